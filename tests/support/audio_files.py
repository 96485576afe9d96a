"""Synthetic recordings for the tests, and files of them written by other people's code."""

import io
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from emoser.audio import AudioBlocks


@cache
def babble(rate: int, seconds: float = 1.0, *, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Noise with the slope and the pauses of speech, shape (n,) or (n, channels), read-only."""
    rng = np.random.default_rng(seed)
    num_samples = round(rate * seconds)
    spectrum = np.fft.rfft(rng.standard_normal((num_samples, channels)), axis=0)
    hertz = np.fft.rfftfreq(num_samples, 1 / rate)[:, None]
    spectrum *= (hertz > 80) / (1 + (hertz / 500) ** 1.5)
    samples = np.fft.irfft(spectrum, num_samples, axis=0)
    samples *= 0.3 + np.sin(np.arange(num_samples) / rate * 25)[:, None] ** 2
    samples = (0.5 * samples / np.abs(samples).max()).astype(np.float32)
    samples = samples[:, 0] if channels == 1 else samples
    samples.flags.writeable = False
    return samples


def encode(samples: np.ndarray, rate: int, fmt: str = "WAV", subtype: str | None = None) -> bytes:
    """A file in memory as libsndfile writes it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=fmt, subtype=subtype)
    return buffer.getvalue()


def encode_media(samples: np.ndarray, rate: int, fmt: str, codec: str) -> bytes:
    """A file in memory as FFmpeg writes it; the test is skipped where the encoder is missing."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    planes = np.ascontiguousarray(np.atleast_2d(samples.T))
    layout = "mono" if len(planes) == 1 else "stereo"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec in ("aac", "wmav2"):
            stream.bit_rate = 64_000 * len(planes)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of the shorter length, after the best shift of up to 100 ms at 16 kHz."""
    num_samples = min(len(first), len(second))
    first, second = first[:num_samples].astype(float), second[:num_samples].astype(float)
    size = 2 ** int(np.ceil(np.log2(2 * num_samples)))
    cross = np.fft.irfft(np.fft.rfft(first, size) * np.fft.rfft(second, size).conj(), size)
    near = max(cross[:1600].max(), cross[-1600:].max())
    return float(near / np.sqrt((first**2).sum() * (second**2).sum()))


class Recording(NamedTuple):
    """A recording read whole, with what `AudioBlocks` knows at its end."""

    samples: np.ndarray
    duration: float
    quality: tuple[str, ...]
    name: str | None
    source_rate: int


def read_recording(source: Any, **options: Any) -> Recording:
    """All blocks of a source, joined."""
    with AudioBlocks(source, **options) as blocks:
        samples = np.concatenate(list(blocks))
        return Recording(samples, blocks.duration, blocks.quality, blocks.name, blocks.source_rate)


AWKWARD_FORMS = (
    *(("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("WAV", kind) for kind in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    *(("FLAC", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("OGG", kind) for kind in ("VORBIS", "OPUS")),
    *(
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "FLOAT"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_24"),
    ),
    ("MP3", "MPEG_LAYER_III"),
)
AWKWARD_RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000)
AWKWARD_SECONDS = (0.01, 0.024, 0.2, 0.5, 1.0, 1.7, 2.6)
OPUS_RATES = (8_000, 16_000, 24_000, 48_000)
AWKWARD_SOUNDS = {
    "plain": lambda samples: samples,
    "loud": lambda samples: 6.0 * samples,  # above 1.0 where the file can hold it
    "faint": lambda samples: 1e-3 * samples,
    "offset": lambda samples: 0.4 * samples + 0.5,
    "zeros": lambda samples: 0.0 * samples,
    "hiss": lambda samples: 1e-3 * np.sign(samples) * np.abs(samples) ** 0.01,
    "gap": lambda samples: samples * (np.arange(len(samples)) > len(samples) / 2).reshape(
        -1, *(1,) * (samples.ndim - 1)
    ),
}  # fmt: skip


def write_awkward(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Files of all these forms, rates, lengths and sounds, mono and stereo, in turn."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        fmt, subtype = AWKWARD_FORMS[number % len(AWKWARD_FORMS)]
        rate = int(rng.choice(OPUS_RATES if subtype == "OPUS" else AWKWARD_RATES))
        seconds, channels = float(rng.choice(AWKWARD_SECONDS)), int(rng.integers(1, 3))
        sound = AWKWARD_SOUNDS[str(rng.choice(list(AWKWARD_SOUNDS)))]
        samples = sound(babble(rate, seconds, seed=number, channels=channels))
        file = folder / f"{number}.{fmt.lower()}"
        file.write_bytes(encode(samples, rate, fmt, subtype))
        files.append(file)
    return files
