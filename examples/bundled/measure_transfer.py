"""Compare emoser-small, a plain frozen probe, and eGeMAPS with an SVM on corpora new to each.

    python examples/bundled/measure_transfer.py --base openai/whisper-base --data PATH --output DIR

Each of RAVDESS, nEMO and CREMA-D is tested by models that were trained on the two others, and the
wordless bursts of EmoGator by models that were trained on all three; nobody learns from EmoGator.
The probe has neither varied copies nor a common level nor intercepts of speakers. The SVM is
trained on RAVDESS and nEMO only, since the two labels of CREMA-D would teach it that corpus; it
needs `pip install opensmile`, and is left out without it. Features and answers stay in DIR, which
may be that of `measure_small.py`: run the same command again to resume.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from frame_head import encode_corpus, encode_speech
from measure import SVM, Row, Split, score, svm_folder, train_svms
from measure_small import (
    SMALL,
    WHOLE,
    LinearHeads,
    measure_splits,
    open_layers,
    split_corpora,
)
from network import LABELS
from small import ONLY, HeadConfig, read_speech

from emoser.finetune import Utterance, read_corpus

TRANSFER, PROBE, PLAIN, BURSTS = "transfer", "frozen probe", "plain", "emogator"
ROWS = (
    Row("RAVDESS", TRANSFER, slice(0, 1), "ravdess"),
    Row("nEMO", TRANSFER, slice(1, 2), "nemo"),
    Row("CREMA-D, happy and sad", TRANSFER, slice(2, 3), "cremad", ONLY["cremad"]),
    Row("EmoGator", TRANSFER, slice(3, 4), BURSTS),
)
METHODS = (SMALL, PROBE)


def read_bursts(data: Path) -> list[Utterance]:
    """The bursts of EmoGator with the labels of the checkpoint."""
    found = read_corpus(data / "manifest.csv")
    return [item for item in found if item.corpus == BURSTS and item.label in LABELS]


def split_all(speech: list[Utterance], bursts: list[Utterance]) -> list[Split]:
    """Each corpus alone, with all others but EmoGator for training."""
    return [*split_corpora(speech), Split(WHOLE, speech, bursts)]


def tabulate_transfer(output: Path, splits: list[Split]) -> Iterator[str]:
    """Lines of the table in Markdown: UAR and its interval over speakers."""
    yield f"| new corpus | speakers | {' | '.join((*METHODS, SVM))} |"
    yield f"|---|---|{'---|' * (len(METHODS) + 1)}"
    for row in ROWS:
        heads = [output / TRANSFER / method for method in METHODS]
        found = [score(folder, row, splits) for folder in (*heads, svm_folder(row, output))]
        speakers = {item.voice for split in splits[row.splits] for item in split.test}
        cells = [
            "-"
            if one is None
            else "{:.3f} ({:.3f} to {:.3f})".format(one.uar, *one.evaluation.uar_interval)
            for one in found
        ]
        yield f"| {row.title} | {len(speakers)} | {' | '.join(cells)} |"


def compare_corpora(
    base: str, speech: list[Utterance], bursts: list[Utterance], output: Path
) -> str:
    """The table, after training and testing what is missing."""
    splits, results = split_all(speech, bursts), output / TRANSFER
    layers = open_layers(base, speech, output, bursts=bursts)
    measure_splits(layers.predict, splits, results / SMALL)
    model = layers.model
    model.encoder.normalization = "none"
    plain = encode_speech(model, speech, output / PLAIN, num_copies=0)[0].pool()
    bare = encode_corpus(model, bursts, output / PLAIN / f"{BURSTS}-copy0.npz", 0).pool()
    config = HeadConfig(deviation_scale=1.0, speaker_scale=0.0)
    probe = LinearHeads(plain[None], torch.cat([plain, bare]), [*speech, *bursts], config)
    measure_splits(probe.predict, splits, results / PROBE)
    train_svms(ROWS, splits, output)
    return "\n".join(tabulate_transfer(output, splits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the same numbers on every machine
    speech, bursts = read_speech(given.data), read_bursts(given.data)
    print(compare_corpora(given.base, speech, bursts, given.output))


if __name__ == "__main__":
    main()
