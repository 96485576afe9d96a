"""Synthesise the clips of `examples/audio` with espeak-ng: `python examples/make_audio.py`.

Needs espeak-ng on the path. Speed, pitch and loudness are set by hand; no human was recorded.
"""

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr

FOLDER = Path(__file__).parent / "audio"

# file, voice, words per minute, pitch (0-99), amplitude (0-200), sampling rate, channels, text
CLIPS = (
    ("plain.wav", "en-us+m3", 150, 40, 100, 16_000, 1, "The meeting starts at ten o'clock."),
    ("loud.flac", "en-us+m7", 190, 62, 200, 48_000, 2, "I told you not to touch it! Get out!"),
    ("bright.mp3", "en-us+f2", 200, 85, 150, 44_100, 1, "We won! We really won! This is great!"),
    ("slow.ogg", "en-us+f4", 95, 22, 60, 24_000, 1, "She is gone, and nothing is the same."),
    ("telephone.wav", "en-us+m1", 160, 45, 110, 8_000, 1, "Hello, who is calling, please?"),
)


def synthesise(text: str, *, voice: str, speed: int, pitch: int, amplitude: int) -> tuple:
    """Synthesise a text: samples (T,) and their sampling rate."""
    command = [
        "espeak-ng",
        "--stdout",
        "-v",
        voice,
        "-s",
        speed,
        "-p",
        pitch,
        "-a",
        amplitude,
        text,
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, check=True)
    return soundfile.read(io.BytesIO(done.stdout), dtype="float32")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, voice, speed, pitch, amplitude, rate, channels, text in CLIPS:
        samples, native = synthesise(
            text, voice=voice, speed=speed, pitch=pitch, amplitude=amplitude
        )
        samples = np.clip(soxr.resample(samples, native, rate), -1, 1)
        soundfile.write(FOLDER / name, np.stack([samples] * channels, axis=1), rate)
        print(f"{name}  {len(samples) / rate:.1f} s at {rate} Hz")


if __name__ == "__main__":
    main()
