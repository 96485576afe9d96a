"""Speak the clips of `examples/audio` with espeak-ng: synthetic voices, made for this project.

Run from anywhere: `python examples/make_audio.py`. Needs espeak-ng on the path. The prosody is
set by hand (speed, pitch, range, loudness); no human voice was recorded.
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


def speak(text: str, *, voice: str, speed: int, pitch: int, amplitude: int) -> tuple:
    """Samples (T,) and their rate, as espeak-ng speaks them."""
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
    spoken = subprocess.run([str(part) for part in command], capture_output=True, check=True)
    return soundfile.read(io.BytesIO(spoken.stdout), dtype="float32")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, voice, speed, pitch, amplitude, rate, channels, text in CLIPS:
        samples, native = speak(text, voice=voice, speed=speed, pitch=pitch, amplitude=amplitude)
        samples = np.clip(soxr.resample(samples, native, rate), -1, 1)
        soundfile.write(FOLDER / name, np.stack([samples] * channels, axis=1), rate)
        print(f"{name}  {len(samples) / rate:.1f} s at {rate} Hz")


if __name__ == "__main__":
    main()
