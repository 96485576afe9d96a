"""TESS (Pichora-Fuller & Dupuis 2020): `OAF_angry/OAF_back_angry.wav`.

The parts are speaker (two women), the word after "say the word", and the emotion. One file of
the published corpus begins with `OA_`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import read_names
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"(OAF?|YAF)_(.+)_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE)
EMOTIONS: Mapping[str, str] = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sad",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 2800 of 2 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    return read_names(
        root,
        corpus="tess",
        pattern=NAME,
        parse=_parse,
        speakers=("OAF", "YAF"),
        num_complete=2800,
    )


def _parse(match: re.Match[str]) -> dict[str, str]:
    speaker, word, emotion = match.groups()
    speaker = "OAF" if speaker.upper().startswith("OA") else "YAF"
    label = EMOTIONS[emotion.lower()]
    return {"label": label, "speaker": speaker, "sex": "f", "sentence": word.lower()}
