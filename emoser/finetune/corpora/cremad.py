"""CREMA-D (Cao et al. 2014): `AudioWAV/1001_DFA_ANG_XX.wav`.

The parts are actor, sentence, intended emotion and level. The sex is in
`VideoDemographics.csv` beside or above the recordings, where that file is.
"""

from pathlib import Path

from emoser.finetune.corpora.tree import read_names, read_table
from emoser.finetune.data.utterance import Utterance

DEMOGRAPHICS = "VideoDemographics.csv"


def read(root: str | Path) -> list[Utterance]:
    """Utterances of a folder; see `read_names`."""
    sexes = _read_sexes(Path(root))
    return read_names(
        root,
        corpus="cremad",
        pattern=r"(?P<speaker>1\d{3})_(?P<sentence>[A-Z]{3})_"
        r"(?P<label>ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)",
        labels={
            "ANG": "angry",
            "DIS": "disgust",
            "FEA": "fear",
            "HAP": "happy",
            "NEU": "neutral",
            "SAD": "sad",
        },
        speakers={actor: sexes.get(actor) for actor in map(str, range(1001, 1092))},
        num_complete=7442,
    )


def _read_sexes(root: Path) -> dict[str, str]:
    for file in (root / DEMOGRAPHICS, root.parent / DEMOGRAPHICS):
        if file.is_file():
            rows = read_table(file, ("ActorID", "Sex"))
            return {row["ActorID"]: row["Sex"][:1].lower() for row in rows if row["Sex"]}
    return {}
