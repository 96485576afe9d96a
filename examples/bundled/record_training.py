"""Record what the bundled checkpoints were trained on, in `trained_on.json` beside their weights.

    python examples/bundled/record_training.py --data PATH

PATH is the folder that `train.py` and `train_small.py` were given. Recordings and speakers are
stored as salted hashes. No other file changes: the record is no part of what the graphs are sealed
with. Run it again after a checkpoint has been trained again.

Of emoser-tiny the held-out speakers are not recorded: one number, its temperature, was chosen on
them, which changes no label. The speech that it was trained on without labels is.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import small
from pretrain import read_pretraining
from train import read_sides

from emoser.checkpoints.resolve import BUNDLED
from emoser.checkpoints.trained_on import write_stages
from emoser.finetune import Utterance
from emoser.finetune.data.content import hash_recordings
from emoser.models.training_stage import TrainingStage

TRAINED: Mapping[str, Callable[[Path], Sequence[Utterance]]] = {
    "emoser-tiny": lambda data: [*read_pretraining(data), *read_sides(data)[0]],
    "emoser-small": small.read_speech,
}


def describe(speech: Sequence[Utterance]) -> TrainingStage:
    """The record of a training set."""
    contents = hash_recordings(item.path for item in speech)
    return TrainingStage.of(contents.values(), [item.voice for item in speech if item.voice])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--into", type=Path, default=BUNDLED, help="folder of the checkpoints")
    options = parser.parse_args()
    for name, read in TRAINED.items():
        speech = read(options.data)
        write_stages([describe(speech)], options.into / name)
        speakers = len({item.voice for item in speech})
        print(f"{name}: {len({item.path for item in speech})} recordings of {speakers} speakers")


if __name__ == "__main__":
    main()
