"""`EmotionClassifier`: predictions and timelines of recordings with a pretrained checkpoint.

A prediction does not depend on the other recordings of its batch. This module imports neither
torch nor transformers; the runtime that it opens may.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt

from emoser.audio import AudioLimits, Channel, Source
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.errors import EmoserError
from emoser.inference.adaptation import adapt_model
from emoser.inference.options import TimelineOptions
from emoser.inference.pieces import Piece
from emoser.inference.pipeline import build_timeline
from emoser.inference.predictor import BatchOptions, Predictor, collect_answers
from emoser.labels import Labels
from emoser.models.adaptation import Adaptation
from emoser.models.config import ModelInfo
from emoser.results.frames import as_columns, find_sources
from emoser.results.prediction import Prediction
from emoser.results.timeline import Timeline
from emoser.runtimes import OpenedModel
from emoser.runtimes.opening import open_runtime

if TYPE_CHECKING:
    import torch

    from emoser.results.conversation import Conversation
    from emoser.results.transcripts.reading import Turns


class EmotionClassifier:
    """Predicts the emotion of recordings with a pretrained checkpoint.

    Several threads may share one classifier. Predicting changes no global state.

    Example:
        >>> import tempfile
        >>> classifier = EmotionClassifier.from_pretrained()
        >>> files = ["examples/audio/plain.wav", "examples/audio/telephone.wav"]
        >>> classifier.predict(files[1]).quality
        ('narrow-band',)
        >>> len(classifier.predict_batch(files)), next(classifier.iter_predictions(files)).source
        (2, 'examples/audio/plain.wav')
        >>> classifier.embed(files).shape, classifier.labels
        ((2, 1536), ('neutral', 'angry', 'happy', 'sad'))
        >>> classifier.adapt(files * 4).num_recordings  # all of one speaker
        8
        >>> classifier.push_to_hub("someone/emoser-copy", dry_run=True)
        'https://huggingface.co/someone/emoser-copy'
        >>> with tempfile.TemporaryDirectory() as place:
        ...     classifier.save_pretrained(f"{place}/copy")
    """

    def __init__(
        self,
        opened: OpenedModel,
        *,
        labels: Labels | None = None,
        request: Mapping[str, Any] | None = None,
        limits: AudioLimits = DEFAULT_LIMITS,
        adaptation: Adaptation | None = None,
    ) -> None:
        """Wrap an opened model; use `from_pretrained` to load one.

        `request` is what it was opened with; the model is opened in the same way where the
        classifier is unpickled. Recordings beyond `limits` are refused. `adaptation` is to a
        speaker; see `adapt`.
        """
        self._opened = adapt_model(opened, adaptation)
        self._adaptation = adaptation
        self._predictor = Predictor(self._opened, labels=labels, limits=limits)
        self._info = opened.info
        self._folder = os.path.abspath(opened.info.path)  # the working folder may change
        self._labels = labels
        self._request = dict(request or {})

    def __reduce__(self) -> tuple[Any, ...]:
        place = self._info.name, self._folder, self._info.revision
        return _reopen, (place, {"adaptation": self._adaptation, **self._options})

    @property
    def _options(self) -> dict[str, Any]:
        limits = self._predictor.limits
        return {"request": self._request, "labels": self._labels, "limits": limits}

    @classmethod
    def from_pretrained(  # noqa: PLR0913  # the public signature of the project
        cls,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: "str | torch.device" = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        labels: Labels | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> "EmotionClassifier":
        """Load a checkpoint strictly: every weight is used, and none is initialised at random.

        Args:
            model: A bundled name, a folder, a name that `emoser models` lists, a Hub id or the
                address of its page. The folder of a run of emoser stands for its best checkpoint.
            device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:1", "mps" or a
                `torch.device`.
            dtype: "float32", "bfloat16" or "float16"; "auto" is float32 on a CPU and the
                checkpoint's choice elsewhere.
            backend: "torch", "openvino" (extra `openvino`; CPU), "onnx" (ONNX Runtime; extra `onnx`
                to convert a checkpoint), or "auto": torch on a GPU; on a CPU the fastest of those
                that are installed and ready to run the checkpoint, by a measurement that is kept.
            labels: None for the checkpoint's own labels; a named set ("ekman", "iemocap4",
                "valence3") or a mapping from the checkpoint's labels to yours, where "other"
                stands for the labels that it leaves out; or a list with a name for each output
                of a checkpoint that names none (LABEL_0, LABEL_1, ...).
            revision: Branch, tag or commit of a Hub checkpoint.
            cache_dir: Where Hub files are kept; huggingface_hub's default when None.
            local_files_only: Load a Hub checkpoint from the cache only, without network requests.
            token: Hub token for gated or private checkpoints.

        Raises:
            CheckpointError: If the checkpoint is damaged or does not fit its configuration.
            HubError: If it cannot be downloaded.
            DeviceError: If the device is not available.
            ValueError: If an option is unknown.
        """
        checkpoint = find_checkpoint(
            model,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        request: dict[str, Any] = {"device": device, "dtype": dtype, "backend": backend}
        opened = open_runtime(checkpoint, **request)
        return cls(opened, labels=labels, request=request)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that predictions use; the checkpoint's in logit order unless mapped."""
        return self._predictor.labels

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions of predictions, such as arousal; empty for most models."""
        return self._predictor.dimensions

    @property
    def num_recordings(self) -> int:
        """How many recordings of a speaker `adapt` used; 0 for a classifier of any speaker."""
        return self._predictor.config.adapted_recordings

    @property
    def info(self) -> ModelInfo:
        """The source of the checkpoint, its properties, and how it runs."""
        return self._info

    @property
    def predictor(self) -> Predictor:
        """The opened model with its labels, for `emoser.finetune`."""
        return self._predictor

    def predict(
        self,
        source: Source,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        start: float | None = None,
        end: float | None = None,
    ) -> Prediction:
        """The emotion of one recording, or of a piece of it.

        Args:
            source: A path, bytes, a binary file object, a NumPy array, a torch tensor, or what
                holds one, as for `load_audio`.
            sampling_rate: Rate in Hz of an array or tensor, required there; a file has its own.
            channel: "mix" (the mean), "left", "right" or the index of a channel.
            start: Where the piece begins, in seconds; None for the start of the recording. The
                answer is that for a file which holds the piece alone.
            end: Where it ends, in seconds; None, or a time after it, for the recording's end.

        Raises:
            AudioError: If the recording cannot be decoded, is empty, or is not finite, or has
                no samples between `start` and `end`.
            OSError: If a file is missing or may not be read.
            ValueError: If an array has no rate or an ambiguous shape, or the piece is empty.
        """
        options = BatchOptions(sampling_rate, channel)
        if start is None and end is None:
            answers = self._predictor.predict([source], options)
        else:
            answers = self._predictor.predict_piece(source, Piece(start, end), options)
        return cast(Prediction, next(answers))

    @overload
    def predict_batch(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...

    @overload
    def predict_batch(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: str,
    ) -> list[Prediction | EmoserError]: ...

    def predict_batch(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: str = "raise",
    ) -> list[Prediction] | list[Prediction | EmoserError]:
        """The emotions of many recordings, in their order; equal to `predict` on each.

        Args:
            sources: Any number of sources as for `predict`, read as they are needed.
            sampling_rate: Rate in Hz of the arrays among them.
            channel: As for `predict`.
            batch_seconds: Seconds of audio in one batch, padding included; None lets the
                engine choose (one recording at a time on a CPU, which is fastest there).
            progress: Show a progress bar when the standard error is a terminal.
            on_error: "raise" at the first source that cannot be read, or "return" an
                `EmoserError` in its place, whatever is wrong with it.

        Raises:
            AudioError: If a recording cannot be read and `on_error` is "raise".
            ValueError: If an option is unknown, or as for `predict`.
        """
        options = BatchOptions(sampling_rate, channel, batch_seconds, on_error)
        answers = self._predictor.predict(sources, options)
        return collect_answers(answers, sources, progress=progress)

    @overload
    def iter_predictions(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[Prediction]: ...

    @overload
    def iter_predictions(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        on_error: str,
    ) -> Iterator[Prediction | EmoserError]: ...

    def iter_predictions(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        on_error: str = "raise",
    ) -> Iterator[Prediction] | Iterator[Prediction | EmoserError]:
        """As `predict_batch`, yielding each prediction as soon as it is ready, in their order.

        A thread takes the sources from their iterable while earlier ones are predicted, so that
        an answer waits for no later source. An error is raised after the predictions before it.
        """
        options = BatchOptions(sampling_rate, channel, batch_seconds, on_error)
        return self._predictor.predict(sources, options)

    def predict_turns(  # noqa: PLR0913  # the public signature of the project
        self,
        source: Source,
        turns: "Turns | None" = None,
        *,
        vad: str = "energy",
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: str = "raise",
        adapt_speakers: bool = False,
    ) -> "Conversation":
        """Who speaks, and how: the emotion of every turn of a conversation.

        The answer for a turn equals `predict` on a file that holds the turn alone, if speakers are
        not adapted to. The recording is decoded once, in order and in constant memory, whatever the
        order of the turns.

        Args:
            source: As for `predict`.
            turns: The path of an RTTM, SubRip, WebVTT, TextGrid, ELAN (EAF), CSV or JSON file; a
                pyannote `Annotation`; the result of WhisperX; segments of faster-whisper; or
                tuples (start, end, speaker, text), of which the last two may be absent. None
                finds them: each channel is a speaker, and the speakers of a recording with one
                channel are found by pyannote.audio (extra `diarize`).
            vad: How the speech of a channel is found, if turns is None: "energy", or "silero"
                (extra `vad`), which ignores other sounds but misses some shouted speech.
            sampling_rate: As for `predict`.
            channel: As for `predict`, or "each" to take every turn from its own channel.
            batch_seconds: As for `predict_batch`.
            progress: Show a progress bar when the standard error is a terminal.
            on_error: "raise" at the first turn without an answer, or "return" its error in
                `Turn.error`.
            adapt_speakers: Answer for every speaker with at least 8 turns with speech as `adapt`
                does after these turns; `Conversation.adaptations` says for whom. A speaker whose
                turns all carry one emotion gets worse answers: it is taken for the voice.

        Raises:
            AudioError: If the recording cannot be read, or ends before a turn begins.
            CheckpointError: With `adapt_speakers`, as for `adapt`.
            DependencyError: If finding the turns needs a package that is not installed.
            TurnsError: If the turns cannot be read, or a turn is empty.
            ValueError: As for `predict`.

        Example:
            >>> classifier = EmotionClassifier.from_pretrained("emoser-tiny")
            >>> turns = [(0.0, 1.0, "anna", "well"), (1.0, 2.0, "ben")]
            >>> call = classifier.predict_turns("examples/audio/plain.wav", turns)
            >>> [(turn.speaker, turn.label) for turn in call]
            [('anna', 'neutral'), ('ben', 'neutral')]
        """
        from emoser.inference.diarization import find_turns
        from emoser.inference.turns import predict_turns

        options = BatchOptions(sampling_rate, channel, batch_seconds, on_error)
        if turns is None:
            turns, options = find_turns(source, options, vad=vad, limits=self._predictor.limits)
        return predict_turns(
            self._predictor,
            source,
            turns,
            options,
            progress=progress,
            adapt_speakers=adapt_speakers,
        )

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """New columns for a batch of rows: `dataset.map(classifier, batched=True)`.

        The recordings are in the column "audio", "path" or "file". The columns are "emotion",
        "emotion_score", "emotion_<label>" for every label and dimension, and "emotion_error".
        """
        answers = self.predict_batch(find_sources(rows), on_error="return")
        return as_columns(answers, (*self.labels, *self.dimensions))

    def timeline(  # noqa: PLR0913  # the public signature of the project
        self,
        source: Source,
        *,
        window_seconds: float = TimelineOptions.window_seconds,
        hop_seconds: float = TimelineOptions.hop_seconds,
        smoothing: float = TimelineOptions.smoothing,
        threshold: float = TimelineOptions.threshold,
        vad: str | None = TimelineOptions.vad,
        channel: Channel = "mix",
        sampling_rate: int | None = None,
    ) -> Timeline:
        """The emotions of a recording over time, in constant memory however long it is.

        A model that classifies frames gives windows of about 0.2 s, each from the chunk of
        `window_seconds` around it. Dimensions are included if the model has them; a model
        without labels has segments of "speech" instead of emotions.

        Args:
            source: As for `predict`.
            window_seconds: Length of the chunks that the model gets.
            hop_seconds: Time from one chunk to the next, at most the window.
            smoothing: Lead in probability that another emotion needs to replace the present one;
                0 follows every window.
            threshold: Probability below which a segment is "uncertain".
            vad: Voice activity detection: "energy" (no dependency), "silero" (better; needs the
                extra `vad`), or None, which finds no silence.
            channel: As for `predict`, or "each" for every channel separately; windows and
                segments then name their channel, and `Timeline.per_channel` separates them.
            sampling_rate: Rate in Hz of an array or tensor, required there.

        Raises:
            AudioError: If the recording cannot be decoded, is empty, or is not finite.
            DependencyError: If `vad` needs a package that is not installed.
            OSError: If a file is missing or may not be read.
            ValueError: If an option is out of its range, or as for `predict`.

        Example:
            >>> classifier = EmotionClassifier.from_pretrained()
            >>> quiet = np.zeros(80000, np.float32)
            >>> print(classifier.timeline(quiet, sampling_rate=16000))
            0:00.00 - 0:05.00  silence
        """
        longest = self._info.max_seconds
        return build_timeline(
            source,
            self._predictor.scorer,
            TimelineOptions(window_seconds, hop_seconds, smoothing, threshold, vad, longest),
            sampling_rate=sampling_rate,
            channel=channel,
            limits=self._predictor.limits,
        )

    @overload
    def embed(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> npt.NDArray[np.float32]: ...

    @overload
    def embed(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: Literal["return"],
    ) -> list[npt.NDArray[np.float32] | EmoserError]: ...

    def embed(
        self,
        sources: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
        progress: bool = False,
        on_error: str = "raise",
    ) -> npt.NDArray[np.float32] | list[npt.NDArray[np.float32] | EmoserError]:
        """Embeddings of many recordings: the pooled encoder output that the head reads, (N, D).

        The chunks of a long recording are averaged, weighted by length. The arguments and errors
        are those of `predict_batch`; with on_error="return" the result is a list with the
        embedding, (D,), or the error of each recording.
        """
        options = BatchOptions(sampling_rate, channel, batch_seconds, on_error)
        rows = collect_answers(self._predictor.embed(sources, options), sources, progress=progress)
        if on_error == "return":
            return rows
        return np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32)

    def adapt(
        self,
        recordings: Iterable[Source],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
    ) -> "EmotionClassifier":
        """A classifier for one speaker, by recordings of that speaker without labels.

        How the speaker's voice differs from those of the training is subtracted. The recordings
        must hold all emotions that occur, as evenly as possible: with one emotion
        only, that emotion is taken for the voice, and the answers get worse. Everything of the
        new classifier uses it, except that `embed` gives the same embeddings.

        Args:
            recordings: At least 8 with speech, better 16 or more, all of one speaker.
            sampling_rate: As for `predict`.
            channel: As for `predict`.

        Raises:
            CheckpointError: If the model cannot be adapted: its head is not linear, or it does not
                state the mean logits of its training speakers.
            ValueError: If there are too few recordings, or as for `predict`.
        """
        options = BatchOptions(sampling_rate, channel)
        adaptation = self._predictor.adapt(recordings, options)
        return EmotionClassifier(self._opened, adaptation=adaptation, **self._options)

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the checkpoint as a folder that emoser and transformers both load.

        Names that were given to the outputs of a checkpoint without names are written too.

        The write is atomic: after an error or a kill the old folder is unchanged.

        Raises:
            FileExistsError: If the folder is not empty and `overwrite` is off.
            NotADirectoryError: If the path is a file.
        """
        from emoser.checkpoints.save import copy_model

        names, adaptation = self._predictor.given_names, self._adaptation
        copy_model(self._folder, folder, overwrite=overwrite, labels=names, adaptation=adaptation)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        dry_run: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes, with its model card; the address of the commit.

        The repository is created if it does not exist.

        Args:
            repo_id: The repository, as owner/name.
            private: Make a new repository private.
            dry_run: Write and check everything but upload nothing; returns the address of the
                repository.
            token: Hub token; that of `hf auth login` when None.

        Raises:
            CheckpointError: If the card is not fit to be published.
            HubError: If the name is invalid, the Hub refuses, or it cannot be reached.
        """
        from emoser.checkpoints.conversion import publish

        return publish(
            self._info,
            repo_id,
            private=private,
            dry_run=dry_run,
            token=token,
            labels=self._predictor.given_names,
            adaptation=self._adaptation,
        )


def _reopen(place: tuple[str, str, str | None], options: Mapping[str, Any]) -> EmotionClassifier:
    """The classifier of a checkpoint folder, opened as before; what pickles of one call."""
    name, folder, revision = place
    opened = open_runtime(CheckpointFiles(name, Path(folder), revision), **options["request"])
    return EmotionClassifier(opened, **options)
