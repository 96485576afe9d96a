"""Print the figures of the bundled checkpoint on speakers that it was not trained on.

    python examples/bundled/score_shipped.py --data PATH

PATH holds RAVDESS and nEMO with the table `manifest.csv` that `train.py` reads. RAVDESS has 1 s
of silence at either end of a clip and nEMO 0.1 s; other corpora and recorders differ, so the same
clips are also scored with the silence trimmed to 0.1 s, and with 0.9 s more.
"""

import argparse
from pathlib import Path

import numpy as np
from network import LABELS, SAMPLING_RATE
from numpy.typing import NDArray
from train import read_sides, score_corpora

import emoser
from emoser import EmotionClassifier
from emoser.finetune import Utterance
from emoser.finetune.data.augment import trim_ends
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring.report import Evaluation

BUNDLED = Path(emoser.__file__).parent / "bundled" / "emoser-tiny"
KEPT_SECONDS = 0.1
ADDED_SECONDS = 0.9
ADDED_LEVEL = 3e-4  # standard deviation of its noise, relative to the peak of the clip

Samples = NDArray[np.float32]


def cut_ends(samples: Samples) -> Samples:
    """A clip with little silence around the speech."""
    return trim_ends(samples, before=KEPT_SECONDS, behind=KEPT_SECONDS)


def add_ends(samples: Samples) -> Samples:
    """A clip with faint noise around it."""
    generator = np.random.default_rng(0)
    size = round(ADDED_SECONDS * SAMPLING_RATE)
    level = np.float32(ADDED_LEVEL * np.abs(samples).max())
    ends = [level * generator.standard_normal(size, dtype=np.float32) for _ in range(2)]
    return np.concatenate([ends[0], samples, ends[1]])


def score_clips(
    classifier: EmotionClassifier, clips: list[Samples], utterances: list[Utterance]
) -> dict[str, Evaluation]:
    """Figures of each corpus for the clips of utterances, changed or not."""
    predictions = classifier.predict_batch(clips, sampling_rate=SAMPLING_RATE)
    logits = np.log([[item.scores[label] for label in LABELS] for item in predictions])
    return score_corpora(logits, utterances)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="another run's checkpoint")
    arguments = parser.parse_args()
    _, validation = read_sides(arguments.data)
    recordings = Recordings(validation)
    clips = [recordings[index] for index in range(len(recordings))]
    classifier = EmotionClassifier.from_pretrained(arguments.model, device="cpu", backend="torch")
    for corpus, evaluation in score_clips(classifier, clips, validation).items():
        report, (low, high) = evaluation.report, evaluation.uar_interval
        print(f"{corpus}: {report}")
        print(f"95 % interval of the UAR over speakers: {low:.3f} to {high:.3f}")
        print("UAR by speaker:", {name: round(uar, 3) for name, uar in report.per_speaker.items()})
        print()
    for name, change in (("cut", cut_ends), ("added", add_ends)):
        found = score_clips(classifier, [change(clip) for clip in clips], validation)
        uars = {corpus: round(evaluation.report.uar, 3) for corpus, evaluation in found.items()}
        print(f"UAR with quiet ends {name}: {uars}")


if __name__ == "__main__":
    main()
