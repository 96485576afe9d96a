"""Join acted clips into a call with its turns, the example of `guides/conversations.md`.

    python examples/join_call.py RAVDESS FOLDER [--long]

RAVDESS holds the folders of the actors, of whom 18 (anna, first channel) and 17 (ben, second)
speak. FOLDER gets `call.wav` and `call.rttm`: ten turns, of which one is interrupted, or twelve
turns each.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from emoser.audio import SAMPLING_RATE, load_audio
from emoser.finetune.data.augment import trim_ends

NEUTRAL, HAPPY, SAD, ANGRY = "01", "03", "04", "05"
SPEAKERS = (("anna", "18"), ("ben", "17"))
QUIET_SECONDS = 0.2  # kept before and after the voice
PAUSE_SECONDS = 0.3
INTERRUPTED = 4  # this turn begins before the one before it ends
OVERLAP_SECONDS = 0.6
SHORT = (
    (0, NEUTRAL, "01-01"), (1, NEUTRAL, "01-01"), (0, ANGRY, "01-01"), (1, NEUTRAL, "01-02"),
    (0, ANGRY, "01-02"), (1, SAD, "01-01"), (0, ANGRY, "02-01"), (1, SAD, "01-02"),
    (0, HAPPY, "01-01"), (1, HAPPY, "01-01"),
)  # fmt: skip
LONG = tuple(
    (speaker, emotion, take)
    for take, emotion, speaker in product(
        ("01-01", "01-02", "02-01"), (NEUTRAL, ANGRY, HAPPY, SAD), (0, 1)
    )
)
"""Speaker, emotion, and statement and repetition of each turn."""


class Turn(NamedTuple):
    """A turn of a call; times in samples."""

    speaker: int
    start: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        """The sample after the last."""
        return self.start + len(self.samples)


def read_turns(corpus: Path, *, long: bool) -> list[Turn]:
    """The turns of a call, one after the other."""
    turns: list[Turn] = []
    start = SAMPLING_RATE // 2
    for place, (speaker, emotion, take) in enumerate(LONG if long else SHORT):
        if place == INTERRUPTED and not long:
            start -= round((PAUSE_SECONDS + OVERLAP_SECONDS) * SAMPLING_RATE)
        actor = SPEAKERS[speaker][1]
        pattern = f"Actor_{actor}/03-01-{emotion}-01-{take}-{actor}.*"
        file = next(corpus.glob(pattern), None)
        if file is None:
            raise SystemExit(f"{corpus} has no file {pattern}; give the folder of RAVDESS's actors")
        clip = trim_ends(load_audio(file), before=QUIET_SECONDS, behind=QUIET_SECONDS)
        turns.append(Turn(speaker, start, clip))
        start = turns[-1].end + round(PAUSE_SECONDS * SAMPLING_RATE)
    return turns


def write_call(turns: list[Turn], folder: Path) -> None:
    """Write the recording, one channel for each speaker, and its turns."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.zeros((turns[-1].end + SAMPLING_RATE // 2, len(SPEAKERS)), np.float32)
    lines = []
    for turn in turns:
        samples[turn.start : turn.end, turn.speaker] += turn.samples
        begin, seconds = turn.start / SAMPLING_RATE, len(turn.samples) / SAMPLING_RATE
        name = SPEAKERS[turn.speaker][0]
        lines.append(
            f"SPEAKER call {turn.speaker + 1} {begin:.3f} {seconds:.3f} <NA> <NA> {name} <NA> <NA>"
        )
    soundfile.write(folder / "call.wav", samples, SAMPLING_RATE)
    (folder / "call.rttm").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, metavar="RAVDESS")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--long", action="store_true", help="twelve turns of each speaker")
    given = parser.parse_args()
    write_call(read_turns(given.corpus, long=given.long), given.folder)


if __name__ == "__main__":
    main()
