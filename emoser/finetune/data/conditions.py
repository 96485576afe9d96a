"""What happens to recordings on their way: codecs, telephone, noise, rooms, levels, cuts.

Each condition is a pure function of samples (T,) at 16 kHz in float32. Codecs are those of FFmpeg,
by PyAV (extra `media`), as far as it has an encoder.
"""

import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import soxr

from emoser.audio import SAMPLING_RATE, load_audio
from emoser.finetune.data.augment import (
    TELEPHONE_BAND,
    Samples,
    add_noise,
    add_reverb,
    apply_gain,
    change_speed,
    clip_peaks,
    limit_band,
    trim_ends,
)

ROOM_SECONDS = 0.6  # reverberation time of a living room
CLIPPED_DECIBELS = 20.0  # below the peak
QUIET_SECONDS = 1.0
QUIET_LEVEL = 10.0 ** (-70.0 / 20.0)  # of full scale
NARROW_RATE = 8_000

Condition: TypeAlias = Callable[[Samples, np.random.Generator], Samples]


class Codec(NamedTuple):
    """An encoder, the file that holds its output, and its bit rate."""

    encoder: str
    container: str
    rate: int
    bits_per_second: int


CODECS: Mapping[str, Codec] = {
    "Opus at 16 kbit/s": Codec("libopus", "ogg", 16_000, 16_000),
    "MP3 at 32 kbit/s": Codec("libmp3lame", "mp3", 16_000, 32_000),
    "AMR at 12.2 kbit/s": Codec("libopencore_amrnb", "amr", 8_000, 12_200),
    "GSM at 13 kbit/s": Codec("libgsm", "gsm", 8_000, 13_000),
}


def encode(samples: Samples, codec: Codec) -> Samples:
    """A recording after a codec, decoded as any file is.

    Raises:
        ImportError: If PyAV is not installed.
    """
    import av

    written = io.BytesIO()
    with av.open(written, "w", format=codec.container) as file:
        stream = file.add_stream(codec.encoder, rate=codec.rate, layout="mono")
        stream.bit_rate = codec.bits_per_second
        clipped = np.clip(samples, -1.0, 1.0).astype(np.float32)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(clipped, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLING_RATE, 0
        frame.time_base = Fraction(1, SAMPLING_RATE)
        for part in (frame, None):
            file.mux(stream.encode(part))
    return load_audio(written.getvalue())


def has_encoder(codec: Codec) -> bool:
    """Whether PyAV is installed and has the encoder."""
    try:
        from av.codec import Codec as Found
        from av.codec.codec import UnknownCodecError
    except ImportError:
        return False
    try:
        Found(codec.encoder, "w")
    except UnknownCodecError:
        return False
    return True


def narrow(samples: Samples) -> Samples:
    """A recording at 8 kHz, and at 16 kHz again."""
    lower = soxr.resample(samples, SAMPLING_RATE, NARROW_RATE)
    return np.asarray(soxr.resample(lower, NARROW_RATE, SAMPLING_RATE), dtype=np.float32)


def add_quiet_ends(samples: Samples, generator: np.random.Generator) -> Samples:
    """A recording between two seconds of the noise of a quiet room.

    Example:
        >>> len(add_quiet_ends(np.ones(16_000, np.float32), np.random.default_rng(0)))
        48000
    """
    size = round(QUIET_SECONDS * SAMPLING_RATE)
    before, behind = QUIET_LEVEL * generator.standard_normal((2, size), dtype=np.float32)
    return np.concatenate([before, samples, behind], dtype=np.float32)


def _plain(change: Callable[[Samples], Samples]) -> Condition:
    return lambda samples, _generator: change(samples)


def _noise(decibels: float) -> Condition:
    return lambda samples, generator: add_noise(samples, decibels, generator)


def list_conditions() -> tuple[dict[str, Condition], tuple[str, ...]]:
    """All conditions by name, and the names of those that this machine has no encoder for."""
    missing = tuple(name for name, codec in CODECS.items() if not has_encoder(codec))
    codecs = {
        name: _plain(partial(encode, codec=codec))
        for name, codec in CODECS.items()
        if name not in missing
    }
    low, high = TELEPHONE_BAND
    conditions = {
        **codecs,
        "telephone band": _plain(partial(limit_band, low=low, high=high)),
        "8 kHz and back": _plain(narrow),
        **{f"noise at {level} dB": _noise(level) for level in (20, 10, 5)},
        "reverberation": lambda samples, generator: add_reverb(samples, ROOM_SECONDS, generator),
        "gain -20 dB": _plain(partial(apply_gain, decibels=-20.0)),
        "gain +20 dB": _plain(partial(apply_gain, decibels=20.0)),
        "clipping": _plain(partial(clip_peaks, decibels=CLIPPED_DECIBELS)),
        "speed -10 %": _plain(partial(change_speed, factor=0.9)),
        "speed +10 %": _plain(partial(change_speed, factor=1.1)),
        "quiet ends added": add_quiet_ends,
        "quiet ends cut off": _plain(trim_ends),
    }
    return conditions, missing
