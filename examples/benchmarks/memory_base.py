"""Peak memory of a base-size model on long files.

Run by `python examples/benchmarks/memory_base.py [--minutes 2 10]`. Prints by how much the peak of
a process grows while it predicts a file, after it has loaded the model and predicted one second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from shapes import write_model

from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import make_clip

ENGINES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
ALLOWED_MIB = 250.0
CODE = """
import json, sys
from emoser import EmotionClassifier
from emoser.bench.machine import read_peak
import numpy as np
model, backend, path = sys.argv[1:]
start = read_peak()
classifier = EmotionClassifier.from_pretrained(model, device="cpu", backend=backend)
classifier.predict(np.zeros(16000, np.float32), sampling_rate=16000)
loaded = read_peak()
classifier.predict(path)
print(json.dumps([start, loaded, read_peak()]))
"""


def write_recording(path: Path, minutes: int) -> None:
    """Write a FLAC file of noise with varying loudness."""
    minute = make_clip(60.0)
    with soundfile.SoundFile(path, "w", SAMPLING_RATE, 1) as file:
        for place in range(minutes):
            file.write(np.roll(minute, place * SAMPLING_RATE))


def measure_memory(models: dict[str, Path], *, minutes: tuple[int, ...]) -> list[list[str]]:
    """Rows of the table: MiB above the loaded model, by engine and length."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for count in minutes:
            write_recording(Path(name) / f"{count}.flac", count)
        for backend, model in models.items():
            peaks = {}
            for count in (minutes[0], *minutes):  # the first process may have to convert the model
                words = [sys.executable, "-c", CODE, str(model), backend, f"{name}/{count}.flac"]
                done = subprocess.run(words, capture_output=True, text=True)
                if done.returncode:
                    break
                _, loaded, peak = json.loads(done.stdout)
                peaks[count] = (loaded, peak - loaded)
            else:
                growth = ", ".join(
                    f"{count} min +{more:.0f} MiB" for count, (_, more) in peaks.items()
                )
                loaded = max(size for size, _ in peaks.values())
                rows.append(
                    [
                        f"base, peak memory on long files, {backend}",
                        f"loaded {loaded:.0f} MiB",
                        growth,
                        f"<= +{ALLOWED_MIB:.0f} MiB",
                    ]
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=int, nargs="+", default=[2, 10])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = write_model("base", Path(name) / "base")
        models = {engine: model for engine, package in ENGINES.items() if find_spec(package)}
        for row in measure_memory(models, minutes=tuple(options.minutes)):
            print(*row, sep="  ")


if __name__ == "__main__":
    main()
