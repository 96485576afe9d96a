"""CREMA-D (Cao et al. 2014): `AudioWAV/1001_DFA_ANG_XX.wav`.

The parts are actor, sentence, intended emotion and level. The sex is in
`VideoDemographics.csv` beside or above the recordings, where that file is.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from emoser.finetune.corpora.tree import read_names, read_table
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")
DEMOGRAPHICS = "VideoDemographics.csv"
EMOTIONS: Mapping[str, str] = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 7442 of 91 actors when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    utterances = read_names(
        root,
        corpus="cremad",
        pattern=NAME,
        parse=_parse,
        speakers=[str(actor) for actor in range(1001, 1092)],
        num_complete=7442,
    )
    sexes = _read_sexes(Path(root))
    return [replace(item, sex=sexes.get(item.speaker or "")) for item in utterances]


def _parse(match: re.Match[str]) -> dict[str, str]:
    speaker, sentence, emotion, _ = match.groups()
    return {"label": EMOTIONS[emotion], "speaker": speaker, "sentence": sentence}


def _read_sexes(root: Path) -> dict[str, str]:
    file = next((item for item in (root / DEMOGRAPHICS, root.parent / DEMOGRAPHICS)
                 if item.is_file()), None)  # fmt: skip
    if file is None:
        return {}
    rows = read_table(file, ("ActorID", "Sex"))
    return {row["ActorID"]: row["Sex"][:1].lower() for row in rows if row["Sex"]}
