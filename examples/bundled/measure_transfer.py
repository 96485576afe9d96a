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
from collections.abc import Iterator, Sequence
from pathlib import Path

import egemaps_svm
import torch
from measure import SVM, Row, Split, score, store
from measure_small import SMALL, split_corpora
from network import ALL_LABELS, LABELS
from small import (
    NUM_COPIES,
    ONLY,
    HeadConfig,
    build_network,
    fit_head,
    pool_corpus,
    pool_speech,
    read_speech,
)
from torch import Tensor

from emoser.finetune import Utterance, read_corpus

TRANSFER, PROBE, BURSTS = "transfer", "frozen probe", "emogator"
ROWS = (
    Row("RAVDESS", TRANSFER, slice(0, 1), "ravdess"),
    Row("nEMO", TRANSFER, slice(1, 2), "nemo"),
    Row("CREMA-D, happy and sad", TRANSFER, slice(2, 3), "cremad", ONLY["cremad"]),
    Row("EmoGator", TRANSFER, slice(3, 4), BURSTS),
)
METHODS = (SMALL, PROBE, SVM)


def read_bursts(data: Path) -> list[Utterance]:
    """The bursts of EmoGator with the labels of the checkpoint."""
    found = read_corpus(data / "manifest.csv")
    return [item for item in found if item.corpus == BURSTS and item.label in LABELS]


def split_all(speech: list[Utterance], bursts: list[Utterance]) -> list[Split]:
    """Each corpus alone, with all others but EmoGator for training."""
    return [*split_corpora(speech), Split(f"without {BURSTS}", speech, bursts)]


def measure_heads(
    features: Tensor, tested: Tensor, splits: Sequence[Split], folder: Path, config: HeadConfig
) -> None:
    """Train and test the missing heads.

    Args:
        features: Of all copies of the clips to train on, (copies, N, D).
        tested: Of the same clips and of the bursts, (N + bursts, D).
        splits: Those of `split_all`.
        folder: Of the results.
        config: Of the heads.
    """
    everyone = [*splits[-1].training, *splits[-1].test]
    places = {id(item): place for place, item in enumerate(everyone)}
    for split in splits:
        file = folder / f"{split.name}.npz"
        if not file.is_file():
            training = torch.tensor([places[id(item)] for item in split.training])
            test = torch.tensor([places[id(item)] for item in split.test])
            head = fit_head(features[:, training], split.training, config)
            store(file, head.predict(tested[test]), ALL_LABELS)


def measure_svm(splits: Sequence[Split], output: Path) -> None:
    """Train and test the missing SVMs, if openSMILE is installed."""
    if not egemaps_svm.has_opensmile():
        print("eGeMAPS + SVM is left out: it needs `pip install opensmile`")
        return
    for row in ROWS:
        for split in splits[row.splits]:
            file = output / TRANSFER / SVM / f"{split.name}.npz"
            if file.is_file():
                continue
            training = [item for item in split.training if item.corpus != "cremad"]
            features = egemaps_svm.describe([*training, *split.test], output / "egemaps.npz")
            predicted = egemaps_svm.recognise(training, split.test, features, row.labels)
            store(file, predicted, row.labels)


def tabulate_transfer(output: Path, splits: list[Split]) -> Iterator[str]:
    """Lines of the table in Markdown: UAR and its interval over speakers."""
    yield f"| new corpus | speakers | {' | '.join(METHODS)} |"
    yield f"|---|---|{'---|' * len(METHODS)}"
    for row in ROWS:
        found = [score(output / TRANSFER / method, row, splits) for method in METHODS]
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
    splits = split_all(speech, bursts)
    model = build_network(base)
    plain = HeadConfig(deviation_scale=1.0, speaker_scale=0.0)
    for method, normalization, place, num_copies, config in (
        (SMALL, model.encoder.normalization, "features", NUM_COPIES, HeadConfig()),
        (PROBE, "none", "plain", 0, plain),
    ):
        model.encoder.normalization = normalization
        folder = output / place
        features = pool_speech(model, speech, folder, num_copies=num_copies)
        wordless = pool_corpus(model, bursts, folder / f"{BURSTS}-copy0.npy", 0)
        tested = torch.cat([features[0], wordless])
        measure_heads(features, tested, splits, output / TRANSFER / method, config)
    measure_svm(splits, output)
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
