"""How near every engine comes to torch in float32 on recordings of one's own.

    python examples/benchmarks/engine_parity.py FOLDER [--model emoser-tiny] [--every 10]

For each engine that is installed, in each precision that this processor has: the share of labels
that are those of torch in float32, and the largest difference of a score and of a logit.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from emoser import EmotionClassifier, load_audio
from emoser.audio.folders import find_recordings
from emoser.bench.machine import describe_machine
from emoser.checkpoints.resolve import find_checkpoint
from emoser.runtimes.opening import open_runtime

RATE = 16_000
ENGINES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


def list_sides() -> list[tuple[str, str]]:
    """Engines and precisions; torch in float32, which the others are compared with, first."""
    found = [name for name, package in ENGINES.items() if find_spec(package)]
    sides = [(name, "float32") for name in found]
    if describe_machine()["bfloat16"]:
        sides += [(name, "bfloat16") for name in found if name != "onnx"]
    return sides


def hear(model: str, engine: str, dtype: str, clips: list[np.ndarray]) -> np.ndarray:
    """Logits of clips at 16 kHz, (N, C)."""
    checkpoint = find_checkpoint(model)
    runtime = open_runtime(checkpoint, device="cpu", dtype=dtype, backend=engine).runtime
    return np.concatenate([runtime.infer([clip]).logits for clip in clips])


def soften(logits: np.ndarray) -> np.ndarray:
    """Probabilities, (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="recordings, in any folders below")
    parser.add_argument("--model", default="emoser-tiny", help="with labels, at 16 kHz")
    parser.add_argument("--every", type=int, default=10, help="take one of so many recordings")
    options = parser.parse_args()
    num_labels = len(EmotionClassifier.from_pretrained(options.model, device="cpu").labels)
    paths = sorted(find_recordings(options.folder))[:: options.every]
    clips = [load_audio(path) for path in paths]
    print(f"{len(clips)} recordings, {sum(map(len, clips)) / RATE:.0f} s")
    print("| engine | precision | labels kept | largest difference of a score | of a logit |")
    print("|---|---|---|---|---|")
    reference: np.ndarray | None = None
    for engine, dtype in list_sides():
        logits = hear(options.model, engine, dtype, clips)[:, :num_labels]
        reference = logits if reference is None else reference
        kept = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
        score = np.abs(soften(logits) - soften(reference)).max()
        logit = np.abs(logits - reference).max()
        print(f"| {engine} | {dtype} | {kept:.2%} | {score:.1e} | {logit:.1e} |")


if __name__ == "__main__":
    main()
