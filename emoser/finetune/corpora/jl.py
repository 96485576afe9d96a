"""JL corpus, New Zealand English (James et al. 2018): `female1_angry_10a_1.wav`.

The parts are speaker, emotion, sentence with session, and repetition. The five primary
emotions are read; the secondary ones (anxious, apologetic, ...) are left out.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import read_names
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"((fe)?male[12])_([a-z]+)_(\d+)([ab])_([12])")
EMOTIONS: Mapping[str, str] = {
    "angry": "angry",
    "sad": "sad",
    "neutral": "neutral",
    "happy": "happy",
    "excited": "excited",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 1200 of 4 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    return read_names(
        root,
        corpus="jl",
        pattern=NAME,
        parse=_parse,
        speakers=("female1", "female2", "male1", "male2"),
        num_complete=1200,
    )


def _parse(match: re.Match[str]) -> dict[str, str] | None:
    speaker, female, emotion, sentence, _, _ = match.groups()
    if emotion not in EMOTIONS:
        return None
    sex = "f" if female else "m"
    return {"label": EMOTIONS[emotion], "speaker": speaker, "sex": sex, "sentence": sentence}
