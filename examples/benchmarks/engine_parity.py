"""Print the difference between all installed engines and torch in float32.

    python examples/benchmarks/engine_parity.py FOLDER [--model emoser-tiny] [--every 10]

For each engine and precision that this processor supports: the share of recordings with the same
label, and the largest difference of a score and of a logit.
"""

import argparse
from pathlib import Path

import numpy as np

from emoser import EmotionClassifier, load_audio
from emoser.audio.folders import find_recordings
from emoser.audio.limits import SAMPLING_RATE
from emoser.bench import BASELINE, BenchOptions, plan_rows
from emoser.bench.machine import describe_machine
from emoser.checkpoints.resolve import find_checkpoint
from emoser.runtimes.opening import open_runtime
from emoser.text import markdown_table


def infer(model: str, engine: str, dtype: str, clips: list[np.ndarray]) -> np.ndarray:
    """Logits of clips at 16 kHz, (N, C)."""
    checkpoint = find_checkpoint(model)
    runtime = open_runtime(checkpoint, device="cpu", dtype=dtype, backend=engine).runtime
    return np.concatenate([runtime.infer([clip]).logits for clip in clips])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of recordings, searched recursively")
    parser.add_argument("--model", default="emoser-tiny", help="bundled name, folder or Hub id")
    parser.add_argument("--every", type=int, default=10, help="use every N-th recording")
    options = parser.parse_args()
    num_labels = len(EmotionClassifier.from_pretrained(options.model, device="cpu").labels)
    paths = sorted(find_recordings(options.folder))[:: options.every]
    clips = [load_audio(path) for path in paths]
    print(f"{len(clips)} recordings, {sum(map(len, clips)) / SAMPLING_RATE:.0f} s")
    table = [["engine", "precision", "same label", "largest difference of a score", "of a logit"]]
    reference: np.ndarray | None = None
    for side in plan_rows(BenchOptions(model=options.model), describe_machine()):
        if side.runtime == BASELINE:
            continue
        logits = infer(options.model, side.runtime, side.dtype, clips)[:, :num_labels]
        reference = logits if reference is None else reference  # torch in float32
        same = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
        score = np.abs(softmax(logits) - softmax(reference)).max()
        logit = np.abs(logits - reference).max()
        table.append([side.runtime, side.dtype, f"{same:.2%}", f"{score:.1e}", f"{logit:.1e}"])
    print(markdown_table(table))


if __name__ == "__main__":
    main()
