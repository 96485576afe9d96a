"""MSP-Podcast (Lotfian & Busso 2019): `Labels/labels_consensus.csv` and `Audios/*.wav`.

Consensus labels and the official split. Clips without agreement (X) or with another emotion (O)
are left out.
"""

from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import find_audio, read_table, report_tree
from emoser.finetune.data.utterance import Utterance

TABLE = "labels_consensus.csv"
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
EMOTIONS: Mapping[str, str] = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
}
SPLITS: Mapping[str, str] = {"train": "train", "development": "validation"}


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder that its own table names, of any release.

    The split is "train", "validation", "test1", "test2" or "test3".

    Raises:
        FileNotFoundError: If the table or all of its recordings are missing.
        ValueError: If the table lacks a column.
    """
    folder = Path(root)
    table = next(iter(sorted(folder.rglob(TABLE))), None)
    if table is None:
        raise FileNotFoundError(f"{folder} holds no {TABLE}; name the folder of the corpus")
    recordings = find_audio(folder)
    utterances, missing, num_rows = [], [], 0
    for row in read_table(table, COLUMNS):
        if row["EmoClass"] not in EMOTIONS:
            continue
        num_rows += 1
        path = recordings.get(Path(row["FileName"]).stem)
        if path is None:
            missing.append(row["FileName"])
            continue
        utterances.append(_read_row(row, path))
    report_tree(root, utterances, corpus="msp-podcast", num_complete=num_rows, missing=missing)
    return utterances


def _read_row(row: Mapping[str, str], path: Path) -> Utterance:
    speaker, split = row["SpkrID"].strip(), row["Split_Set"].strip().lower()
    return Utterance(
        str(path),
        EMOTIONS[row["EmoClass"]],
        speaker=None if speaker.lower() in ("", "unknown") else speaker,
        corpus="msp-podcast",
        sex={"male": "m", "female": "f"}.get(row["Gender"].strip().lower()),
        split=SPLITS.get(split, split or None),
    )
