"""Speed and size of the bundled checkpoints beside eGeMAPS with an SVM and stock Whisper.

    python examples/bundled/measure_speed.py --base openai/whisper-base --data PATH

All methods score the same 4-s pieces of RAVDESS and nEMO, decoded before, in turns, so that other
load affects all of them alike; each row is the median of the rounds. Stock Whisper is
`WhisperForAudioClassification` of transformers with a new head: all layers, on 30 s, in batches of
four. The SVM costs next to nothing beside its features; it is left out without `pip install
opensmile`. Takes two minutes on two cores.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
from egemaps_svm import SAMPLING_RATE, has_opensmile
from network import LABELS
from numpy.typing import NDArray
from small import read_speech
from transformers import WhisperFeatureExtractor, WhisperForAudioClassification

from emoser import EmotionClassifier
from emoser.finetune.data.recordings import Recordings
from emoser.text import markdown_table

SECONDS, NUM_PIECES, NUM_ROUNDS, BATCH = 4.0, 24, 3, 4
CHECKPOINTS = (
    ("emoser-tiny", "auto", "float32"),
    ("emoser-tiny", "torch", "float32"),
    ("emoser-small", "auto", "float32"),
    ("emoser-small", "torch", "float32"),
    ("emoser-small", "torch", "bfloat16"),
    ("emoser-small", "openvino", "bfloat16"),
)

Pieces = list[NDArray[np.float32]]
Method = Callable[[Pieces], object]


def cut_pieces(data: Path) -> Pieces:
    """Pieces of the same length, of clips joined where they are shorter."""
    speech = [item for item in read_speech(data) if item.corpus != "cremad"]
    chosen = speech[:: len(speech) // (2 * NUM_PIECES)]
    joined = np.concatenate(list(Recordings(chosen)))
    size = int(SECONDS * SAMPLING_RATE)
    return [joined[start : start + size] for start in range(0, NUM_PIECES * size, size)]


def list_methods(base: str) -> Iterator[tuple[str, float | None, Method]]:
    """Name of each method, megabytes of its weights on disk, and the method."""
    for name, backend, dtype in CHECKPOINTS:
        try:
            classifier = EmotionClassifier.from_pretrained(
                name, device="cpu", backend=backend, dtype=dtype
            )
        except (ImportError, ValueError) as error:
            print(f"{name}, {backend}, {dtype} is left out: {error}")
            continue
        size = sum(file.stat().st_size for file in Path(classifier.info.path).glob("*.safetensors"))
        title = f"{name}, {dtype}, {backend}"
        if backend == "auto":
            title += f" ({classifier.info.backend})"
        yield title, size / 1e6, _predict_with(classifier)
    if has_opensmile():
        import opensmile

        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02)
        yield (
            "eGeMAPS + SVM",
            None,
            lambda pieces: [smile.process_signal(piece, SAMPLING_RATE) for piece in pieces],
        )
    stock = WhisperForAudioClassification.from_pretrained(base, num_labels=len(LABELS)).eval()
    size = sum(tensor.numel() for tensor in stock.state_dict().values()) * 2 / 1e6
    yield "stock Whisper, float32, 30 s", size, _predict_with_stock(base, stock.float())


def _predict_with(classifier: EmotionClassifier) -> Method:
    return lambda pieces: classifier.predict_batch(pieces, sampling_rate=SAMPLING_RATE)


def _predict_with_stock(base: str, stock: WhisperForAudioClassification) -> Method:
    extractor = WhisperFeatureExtractor.from_pretrained(base)

    @torch.inference_mode()
    def predict(pieces: Pieces) -> list[object]:
        return [
            stock(
                **extractor(
                    pieces[start : start + BATCH], sampling_rate=SAMPLING_RATE, return_tensors="pt"
                )
            )
            for start in range(0, len(pieces), BATCH)
        ]

    return predict


def measure(methods: Mapping[str, Method], pieces: Pieces) -> dict[str, float]:
    """Median of times real time of each method, measured in turns."""
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for method in methods.values():
        method(pieces[:BATCH])  # the first call is slower
    for _ in range(NUM_ROUNDS):
        for name, method in methods.items():
            began = time.perf_counter()
            method(pieces)
            rates[name].append(len(pieces) * SECONDS / (time.perf_counter() - began))
    return {name: median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    given = parser.parse_args()
    found = list(list_methods(given.base))
    rates = measure({name: method for name, _, method in found}, cut_pieces(given.data))
    rows = [
        [name, "" if size is None else f"{size:.1f} MB", f"{rates[name]:.0f}"]
        for name, size, _ in found
    ]
    print(markdown_table([["", "weights", "times real time"], *rows]))


if __name__ == "__main__":
    main()
