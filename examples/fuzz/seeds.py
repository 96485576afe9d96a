"""Whole files that mutations start from: recordings in all formats, checkpoints, graphs."""

import io
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

TESTS = Path(__file__).parents[2] / "tests"
RATE = 16_000
FORMATS = (
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
    ("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"),
    ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
)  # fmt: skip
MEDIA = (
    ("mp4", "aac", "m4a"), ("adts", "aac", "aac"), ("webm", "libopus", "webm"),
    ("matroska", "flac", "mka"), ("asf", "wmav2", "wma"), ("mov", "pcm_s16le", "mov"),
    ("amr", "libopencore_amrnb", "amr"), ("avi", "mp3", "avi"),
)  # fmt: skip
"""Container, codec and ending of what PyAV writes, where it can."""


def voice(seconds: float = 0.8, *, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Noise with the slope and the loudness of speech, (T,) or (T, channels)."""
    generator = np.random.default_rng(seed)
    length = round(seconds * RATE)
    noise = np.cumsum(generator.standard_normal((length, channels)), axis=0)
    noise -= np.linspace(noise[0], noise[-1], length)
    loudness = np.abs(np.sin(np.arange(length) / RATE * 7))[:, None]
    samples = (0.4 * noise / np.abs(noise).max() * loudness).astype(np.float32)
    return samples[:, 0] if channels == 1 else samples


def write_recordings(folder: Path) -> list[Path]:
    """A recording in every format that soundfile and PyAV write here."""
    folder.mkdir(parents=True)
    files = []
    for number, (container, subtype) in enumerate(FORMATS):
        if soundfile.check_format(container, subtype):
            file = folder / f"{container}-{subtype}.{container.lower()}"
            samples = voice(seed=number, channels=1 + number % 2 * (subtype[:3] == "PCM"))
            soundfile.write(file, samples, RATE, format=container, subtype=subtype)
            files.append(file)
    for container, codec, ending in MEDIA:
        file = folder / f"{container}-{codec}.{ending}"
        if _write_media(file, container, codec):
            files.append(file)
    return files


def _write_media(file: Path, container: str, codec: str) -> bool:
    try:
        import av
    except ImportError:
        return False
    rate = 8_000 if codec.endswith("amrnb") else 48_000
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=container) as opened:
            stream = opened.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(voice(0.5)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
            for part in resampler.resample(frame):
                opened.mux(stream.encode(part))
            opened.mux(stream.encode(None))
    except (av.FFmpegError, ValueError, TypeError):
        return False  # this FFmpeg has no such encoder
    file.write_bytes(buffer.getvalue())
    return True


def write_checkpoints(folder: Path) -> list[Path]:
    """A small checkpoint of every layout, as its authors' code writes it, and of emoser's own."""
    import pytest

    sys.path.insert(0, str(TESTS))
    from support.models import loud_model, small_config
    from support.reference_checkpoints import CASES, require

    from emoser.checkpoints.save import save_model

    folders = []
    for number, (name, write) in enumerate(CASES.items()):
        place = folder / f"layout-{number}"
        try:
            require(name)
            write(place)
        except pytest.skip.Exception:
            continue  # the package that writes it is not installed
        folders.append(place)
    for number, changes in enumerate(
        ({}, {"pooling": "attentive-statistics"}, {"layer_mix": True})
    ):
        save_model(loud_model(small_config(), **changes), folder / f"own-{number}")
        folders.append(folder / f"own-{number}")
    return folders


def write_graphs(folder: Path) -> list[Path]:
    """An exported folder for every engine that is installed."""
    sys.path.insert(0, str(TESTS))
    from support.models import loud_model, small_config

    from emoser.checkpoints.save import save_model
    from emoser.export import export
    from emoser.runtimes.opening import is_installed

    save_model(loud_model(small_config()), folder / "model")
    formats = [name for name in ("onnx", "openvino") if is_installed(name)]
    return [export(folder / "model", folder / name, to=name).folder for name in formats]


def choose(items: list[Path], dice: random.Random) -> Path:
    """One of the seeds."""
    return dice.choice(items)
