"""`EmotionClassifier`: predictions and timelines of recordings with a pretrained checkpoint.

A prediction does not depend on the other recordings of its batch. This module imports neither
torch nor transformers; the runtime that it opens may.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from emoser.audio import AudioLimits, Channel, Source
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.errors import EmoserError
from emoser.inference.batching import InferenceOptions, RecordingOutput, infer_recordings
from emoser.inference.options import TimelineOptions
from emoser.inference.pipeline import build_timeline
from emoser.inference.scoring import Scorer, score_labels
from emoser.labels import Labels, map_labels, order_dimensions
from emoser.models.config import ModelInfo
from emoser.results.prediction import Prediction
from emoser.results.timeline import Timeline
from emoser.runtimes import FrameAdapter, FrameRuntime, OpenedModel
from emoser.runtimes.opening import open_runtime

if TYPE_CHECKING:
    import torch

ON_ERROR = ("raise", "return")


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
        ((2, 1024), ('neutral', 'angry', 'happy', 'sad'))
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
    ) -> None:
        """Wrap an opened model; use `from_pretrained` to load one.

        `request` is what it was opened with; the model is opened in the same way where the
        classifier is unpickled. Recordings beyond `limits` are refused.
        """
        self._limits = limits
        self._runtime = opened.runtime
        self._config = opened.config
        self._info = opened.info
        self._folder = os.path.abspath(opened.info.path)  # the working folder may change
        self._labels = labels
        self._request = dict(request or {})
        self._map = None
        if labels is not None:
            raw = opened.config.raw_labels[: len(opened.config.labels)]
            self._map = map_labels(opened.config.labels, labels, raw=raw)

    def __reduce__(self) -> tuple[Any, ...]:
        info = self._info
        place = (info.name, self._folder, info.revision)
        return _reopen, (*place, self._request, self._labels, self._limits)

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
            backend: "torch", "openvino" (extra `openvino`; CPU), "onnx" (ONNX Runtime; extra
                `onnx`), or "auto": on a CPU OpenVINO where it is installed, else torch.
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
        return self._config.labels if self._map is None else self._map.labels

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions of predictions, such as arousal; empty for most models."""
        return tuple(order_dimensions(dict.fromkeys(self._config.dimensions, 0.0)))

    @property
    def info(self) -> ModelInfo:
        """The source of the checkpoint, its properties, and how it runs."""
        return self._info

    def predict(
        self, source: Source, *, sampling_rate: int | None = None, channel: Channel = "mix"
    ) -> Prediction:
        """The emotion of one recording.

        Args:
            source: A path, bytes, a binary file object, a NumPy array or a torch tensor.
            sampling_rate: Rate in Hz of an array or tensor, required there; a file has its own.
            channel: "mix" (the mean), "left", "right" or the index of a channel.

        Raises:
            AudioError: If the recording cannot be decoded, is empty, or is not finite.
            OSError: If a file is missing or may not be read.
            ValueError: If an array has no rate or an ambiguous shape.
        """
        (answer,) = self.iter_predictions([source], sampling_rate=sampling_rate, channel=channel)
        return answer

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
        answers = self.iter_predictions(
            sources,
            sampling_rate=sampling_rate,
            channel=channel,
            batch_seconds=batch_seconds,
            on_error=on_error,
        )
        total = len(sources) if isinstance(sources, Sequence) else None
        disable = None if progress else True
        return list(tqdm(answers, total=total, unit="file", disable=disable))

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
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is {on_error!r}; use one of {', '.join(ON_ERROR)}")
        if batch_seconds is not None and not batch_seconds > 0:
            raise ValueError(f"batch_seconds is {batch_seconds}; it must be above 0")
        seconds = self._runtime.batch_seconds if batch_seconds is None else batch_seconds
        options = InferenceOptions(
            window=self._window,
            model_rate=self._config.sampling_rate,
            sampling_rate=sampling_rate,
            channel=channel,
            batch_samples=None if seconds is None else round(seconds * self._config.sampling_rate),
            keep_errors=on_error == "return",
            limits=self._limits,
        )
        output = self._infer(sources, options)
        return (item if isinstance(item, EmoserError) else self._predict(item) for item in output)

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
        options = TimelineOptions(
            window_seconds, hop_seconds, smoothing, threshold, vad, self._config.max_seconds
        )
        return build_timeline(
            source,
            self._scorer,
            options,
            sampling_rate=sampling_rate,
            channel=channel,
            limits=self._limits,
        )

    @property
    def _scorer(self) -> Scorer:
        """The runtime, and how its logits become scores."""
        runtime, frame_seconds = self._runtime, self._config.frame_seconds
        by_frame = None
        if frame_seconds is not None and isinstance(runtime, FrameRuntime):
            by_frame = FrameAdapter(runtime)
        return Scorer(
            runtime=by_frame or runtime,
            to_scores=self._score,
            to_dimensions=self._name_dimensions,
            labels=self.labels,
            dimensions=self.dimensions,
            sampling_rate=self._config.sampling_rate,
            model=self._info.name,
            frame_seconds=None if by_frame is None else frame_seconds,
        )

    def embed(
        self, sources: Iterable[Source], *, sampling_rate: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Embeddings of many recordings: the pooled encoder output that the head reads, (N, D).

        The chunks of a long recording are averaged, weighted by length.

        Raises:
            AudioError: If a recording cannot be read.
            TypeError: If `sources` is a single recording instead of several.
        """
        options = InferenceOptions(
            self._window,
            sampling_rate,
            model_rate=self._config.sampling_rate,
            limits=self._limits,
        )
        rows = [
            (item.weights @ item.embeddings).astype(np.float32)
            for item in self._infer(sources, options)
            if isinstance(item, RecordingOutput)
        ]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the checkpoint as a folder that emoser and transformers both load.

        The write is atomic: after an error or a kill the old folder is unchanged.

        Raises:
            FileExistsError: If the folder is not empty and `overwrite` is off.
            NotADirectoryError: If the path is a file.
        """
        from emoser.checkpoints.save import copy_model

        copy_model(self._info.path, folder, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        dry_run: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes, with its model card; the address of the commit.

        The repository is created if it does not exist. The card states labels, preprocessing,
        figures with their protocol, the parity with the source, and unsuitable uses.

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

        return publish(self._info, repo_id, private=private, dry_run=dry_run, token=token)

    @property
    def _window(self) -> int:
        return round(self._config.max_seconds * self._config.sampling_rate)

    def _infer(
        self, sources: Iterable[Source], options: InferenceOptions
    ) -> Iterator[RecordingOutput | EmoserError]:
        if isinstance(sources, str | bytes | os.PathLike | np.ndarray):
            raise TypeError(
                f"sources is one {type(sources).__name__}; pass a list of them, or use predict"
            )
        return infer_recordings(sources, self._runtime, options)

    def _score(self, logits: npt.NDArray[np.float32]) -> list[float]:
        """Scores of one chunk, (C,) -> one per label of the classifier."""
        return self._average(logits[np.newaxis], np.ones(1))[0]

    def _average(
        self, logits: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]
    ) -> tuple[list[float], float]:
        """Mean scores of chunks, (N, C) -> one per label, and that of labels without a place."""
        if not self._config.labels:
            return [], 0.0
        values = [float(value) for value in weights @ score_labels(logits, self._config)]
        if self._map is None:
            return values, 0.0
        return self._map.apply(values, multi_label=self._config.multi_label)

    def _predict(self, output: RecordingOutput) -> Prediction:
        values, unmapped = self._average(output.logits, output.weights)
        return Prediction.from_scores(
            dict(zip(self.labels, values, strict=True)),
            duration=output.duration,
            quality=output.quality,
            dimensions=self._name_dimensions(output.weights @ output.logits),
            model=self._info.name,
            source=output.source,
            num_windows=len(output.windows),
            unmapped=unmapped,
        )

    def _name_dimensions(self, logits: npt.NDArray[Any]) -> dict[str, float] | None:
        """Values by name, (C,) -> in the order arousal, dominance, valence; None without any."""
        if not self._config.dimensions:
            return None
        values = map(float, logits[len(self._config.labels) :])
        return order_dimensions(dict(zip(self._config.dimensions, values, strict=True)))


def _reopen(
    name: str,
    folder: str,
    revision: str | None,
    request: Mapping[str, Any],
    labels: Labels | None,
    limits: AudioLimits,
) -> EmotionClassifier:
    """The classifier of a checkpoint folder, opened as before; what pickles of one call."""
    opened = open_runtime(CheckpointFiles(name, Path(folder), revision), **request)
    return EmotionClassifier(opened, labels=labels, request=request, limits=limits)
