"""What a checkpoint states about its input: sampling rate and normalisation.

Read from the settings of the feature extractor and compared with `config.json` and with what the
encoder takes. Settings that change no number of a single recording, such as padding and masks,
are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emoser.checkpoints.backbones import FAMILIES, RAW_EXTRACTOR
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.models.spectral import (
    KALDI_STACK,
    MEL_RATE,
    WHISPER_HOP,
    WHISPER_WINDOW,
    whisper_seconds,
)

SAMPLING_RATE = 16_000  # Hz, where nothing is stated, as in transformers
DITHER = "its feature extractor adds random noise (dither), which emoser leaves out"


@dataclass(frozen=True)
class Preprocessing:
    """What happens to the samples of a recording before the encoder.

    Attributes:
        sampling_rate: In Hz.
        normalize: Whether a recording gets zero mean and unit variance.
        notes: Settings that emoser does not follow, for `emoser doctor`.
    """

    sampling_rate: int
    normalize: bool
    notes: tuple[str, ...] = ()


def read_preprocessing(files: CheckpointFiles) -> Preprocessing:
    """What the files of a checkpoint in the layout of transformers state about its input.

    As in transformers, only raw samples are normalised: the feature extractors that compute
    spectrograms do not read `do_normalize`.

    Raises:
        CheckpointError: If a setting has no meaning, contradicts another, or describes a
            spectrogram that is not the one of the encoder.
    """
    stated = files.preprocessor
    family = FAMILIES.get(str(files.config.get("model_type")))
    extractor = RAW_EXTRACTOR if family is None else family.extractor
    kind = stated.get("feature_extractor_type")
    if family is not None and kind is not None and kind != extractor:
        raise CheckpointError(
            f"{files.folder}: feature_extractor_type is {kind!r} and an encoder of the type "
            f"{files.config['model_type']!r} takes the output of {extractor}; correct one"
        )
    rate = read_sampling_rate(files) or SAMPLING_RATE
    if extractor == RAW_EXTRACTOR:
        return Preprocessing(rate, read_normalize(files))
    _check_spectrogram(files, {**stated, "sampling_rate": rate}, extractor)
    return Preprocessing(rate, False, (DITHER,) if stated.get("dither") else ())


def read_sampling_rate(files: CheckpointFiles) -> int | None:
    """The sampling rate in Hz that the feature extractor or `config.json` states; None if none.

    Raises:
        CheckpointError: If a rate is not a number, or the two differ.
    """
    config = files.config if CONFIG in files.stamps else {}  # FunASR writes none
    places = (("the preprocessor", files.preprocessor), (CONFIG, config))
    rates = {
        place: _read_rate(values["sampling_rate"], files)
        for place, values in places
        if values.get("sampling_rate") is not None
    }
    if len(set(rates.values())) > 1:
        stated = " and ".join(f"{rate:,} Hz in {place}" for place, rate in rates.items())
        raise CheckpointError(f"{files.folder}: sampling_rate is {stated}; correct the wrong one")
    return next(iter(rates.values()), None)


def read_normalize(files: CheckpointFiles) -> bool:
    """Whether the feature extractor normalises raw samples; it does unless it says otherwise.

    Raises:
        CheckpointError: If the setting is neither true nor false.
    """
    value = files.preprocessor.get("do_normalize")
    if value not in (None, True, False):
        raise CheckpointError(
            f"{files.folder}: do_normalize is {value!r}; correct it to true or false"
        )
    return value is None or bool(value)


def _read_rate(value: Any, files: CheckpointFiles) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
        raise CheckpointError(
            f"{files.folder}: sampling_rate is {value!r}; correct it to a whole number of Hz"
        )
    return int(number)


def _check_spectrogram(files: CheckpointFiles, stated: Mapping[str, Any], extractor: str) -> None:
    """Refuse settings of a spectrogram that is not the one that emoser computes."""
    config = files.config
    if extractor == "WhisperFeatureExtractor":
        computed = {
            "feature_size": config.get("num_mel_bins", 80),
            "hop_length": WHISPER_HOP,
            "n_fft": WHISPER_WINDOW,
            "chunk_length": whisper_seconds(config.get("max_source_positions", 1500)),
            "sampling_rate": MEL_RATE,
        }
    else:
        width = config.get("feature_projection_input_dim", 160)
        computed = {"num_mel_bins": width // KALDI_STACK, "stride": KALDI_STACK}
    faults = [
        f"{name} is {stated[name]!r} and the encoder takes {value:g}"
        for name, value in computed.items()
        if stated.get(name) is not None and stated[name] != value
    ]
    if faults:
        raise CheckpointError(
            f"{files.folder}: the preprocessor computes another spectrogram: {'; '.join(faults)}"
        )
