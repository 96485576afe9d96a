"""EmoDB, the Berlin database (Burkhardt et al. 2005): `wav/03a01Fa.wav`.

The parts are speaker, text, the German initial of the emotion, and the version.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import read_names
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"(\d\d)([ab]\d\d)([AEFLNTW])([a-f])")
SPEAKERS: Mapping[str, str] = {
    "03": "m", "08": "f", "09": "f", "10": "m", "11": "m",
    "12": "m", "13": "f", "14": "f", "15": "m", "16": "f",
}  # fmt: skip
EMOTIONS: Mapping[str, str] = {
    "W": "angry",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 535 of 10 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    return read_names(
        root,
        corpus="emodb",
        pattern=NAME,
        parse=_parse,
        speakers=SPEAKERS,
        num_complete=535,
    )


def _parse(match: re.Match[str]) -> dict[str, str | None]:
    speaker, sentence, emotion, _ = match.groups()
    return {
        "label": EMOTIONS[emotion],
        "speaker": speaker,
        "sex": SPEAKERS.get(speaker),
        "sentence": sentence,
    }
