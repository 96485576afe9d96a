"""Print how well the bundled checkpoint does on the speakers that it was not trained on.

    python examples/bundled/score_shipped.py --data PATH

PATH holds RAVDESS and nEMO with the table `manifest.csv` that `train.py` reads.
"""

import argparse
from pathlib import Path

from train import read_sides, score_corpora

import emoser
from emoser.checkpoints.native import load_model
from emoser.finetune.evaluation import predict_logits
from emoser.finetune.recordings import Recordings

BUNDLED = Path(emoser.__file__).parent / "bundled" / "emoser-tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="another run's checkpoint")
    arguments = parser.parse_args()
    _, validation = read_sides(arguments.data)
    logits = predict_logits(load_model(arguments.model), Recordings(validation))
    for corpus, evaluation in score_corpora(logits, validation).items():
        report, (low, high) = evaluation.report, evaluation.uar_interval
        print(f"{corpus}: {report}")
        print(f"95 % interval of the UAR over speakers: {low:.3f} to {high:.3f}")
        print("UAR by speaker:", {name: round(uar, 3) for name, uar in report.per_speaker.items()})
        print()


if __name__ == "__main__":
    main()
