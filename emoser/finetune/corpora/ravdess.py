"""RAVDESS speech (Livingstone & Russo 2018): `Actor_01/03-01-05-02-01-01-01.wav`.

The parts are modality, vocal channel, emotion, intensity, statement, repetition and actor. Song
and video are left out. Odd actors are men.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import read_names
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
SPEECH = ("03", "01")  # audio only, spoken
EMOTIONS: Mapping[str, str] = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 1440 of 24 actors when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    return read_names(
        root,
        corpus="ravdess",
        pattern=NAME,
        parse=_parse,
        speakers=[f"{actor:02d}" for actor in range(1, 25)],
        num_complete=1440,
    )


def _parse(match: re.Match[str]) -> dict[str, str] | None:
    modality, channel, emotion, _, statement, _, actor = match.groups()
    if (modality, channel) != SPEECH:
        return None
    sex = "m" if int(actor) % 2 else "f"
    return {"label": EMOTIONS[emotion], "speaker": actor, "sex": sex, "sentence": statement}
