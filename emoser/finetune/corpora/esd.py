"""ESD, English and Mandarin (Zhou et al. 2021): `0011/Angry/train/0011_000351.wav`.

The name has speaker and number; the emotion is in the folder, and the numbers run over five
blocks of 350, one per emotion, with the same texts in each. Speakers 0001 to 0010 speak
Mandarin. `train`, `evaluation` and `test` are the official split, where the copy has them; it
shares its speakers.
"""

from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import find_audio, report_tree
from emoser.finetune.data.utterance import Utterance

EMOTIONS: Mapping[str, str] = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprise",
}
SPLITS: Mapping[str, str] = {"train": "train", "evaluation": "validation", "test": "test"}
BLOCK = 350
LAST_MANDARIN = 10


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 35,000 of 20 speakers when it is complete.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If it holds no recording of this corpus.
    """
    utterances, strange = [], []
    for name, path in find_audio(root).items():
        speaker, _, number = name.partition("_")
        folders = [part.lower() for part in path.parts[:-1]]
        emotion = next((EMOTIONS[part] for part in reversed(folders) if part in EMOTIONS), None)
        if emotion is None or len(speaker) != 4 or not (speaker + number).isdigit():
            strange.append(path.name)
            continue
        language = "mandarin" if int(speaker) <= LAST_MANDARIN else "english"
        utterances.append(
            Utterance(
                str(path),
                emotion,
                speaker=speaker,
                corpus="esd",
                split=SPLITS.get(folders[-1]),
                sentence=f"{language}-{(int(number) - 1) % BLOCK + 1}",
            )
        )
    speakers = {f"{index:04d}" for index in range(1, 21)}
    absent = sorted(speakers - {item.speaker for item in utterances})
    missing = [f"speaker {name}" for name in absent]
    report_tree(root, utterances, corpus="esd", num_complete=35_000, missing=missing, extra=strange)
    return utterances
