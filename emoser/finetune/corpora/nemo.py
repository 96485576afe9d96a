"""nEMO, Polish (Christop 2024): `samples/EB0_anger_1.wav`.

The parts are speaker, emotion and sentence; every speaker says each sentence in every emotion.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import read_names
from emoser.finetune.data.utterance import Utterance
from emoser.labels import canonical_label

NAME = re.compile(r"([A-Z]{2}\d)_(anger|fear|happiness|neutral|sadness|surprised?)_(\d+)")
SPEAKERS: Mapping[str, str] = {
    "EB0": "f", "IC0": "f", "KD0": "f", "MK0": "f",
    "KS0": "m", "MP0": "m", "SM0": "m", "TP0": "m", "WR0": "m",
}  # fmt: skip


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 4481 of 9 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    return read_names(
        root,
        corpus="nemo",
        pattern=NAME,
        parse=_parse,
        speakers=SPEAKERS,
        num_complete=4481,
    )


def _parse(match: re.Match[str]) -> dict[str, str | None]:
    speaker, emotion, sentence = match.groups()
    return {
        "label": canonical_label(emotion),
        "speaker": speaker,
        "sex": SPEAKERS.get(speaker),
        "sentence": sentence,
    }
