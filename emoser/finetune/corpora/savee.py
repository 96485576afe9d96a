"""SAVEE (Haq & Jackson 2009): `AudioData/DC/a01.wav`, or `DC_a01.wav` in the flat copy.

The parts are speaker (four men), emotion and sentence.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import AUDIO_SUFFIXES, report_tree
from emoser.finetune.data.utterance import Utterance

NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(a|d|f|h|n|sa|su)(\d\d)")
SPEAKERS = ("DC", "JE", "JK", "KL")
EMOTIONS: Mapping[str, str] = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 480 of 4 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; name the folder of the corpus")
    utterances, strange = [], []
    for path in sorted(item for item in folder.rglob("*") if item.suffix.lower() in AUDIO_SUFFIXES):
        match = NAME.fullmatch(path.stem)
        speaker = None if match is None else match[1] or path.parent.name
        if match is None or speaker not in SPEAKERS:
            strange.append(str(path.relative_to(folder)))
            continue
        emotion, number = match[2], match[3]
        utterances.append(
            Utterance(
                str(path),
                EMOTIONS[emotion],
                speaker=speaker,
                corpus="savee",
                sex="m",
                sentence=f"{emotion}{number}",
            )
        )
    absent = sorted(set(SPEAKERS) - {item.speaker for item in utterances})
    missing = [f"speaker {name}" for name in absent]
    report_tree(root, utterances, corpus="savee", num_complete=480, missing=missing, extra=strange)
    return utterances
