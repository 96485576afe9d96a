"""MSP-Podcast (Lotfian & Busso 2019): `Labels/labels_consensus.csv` and `Audios/*.wav`.

Consensus labels, arousal, dominance and valence (from 1 to 7) where the table has them, and the
official split. Clips without agreement (X) or with another emotion (O) have ratings alone.
"""

from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.corpora.tree import find_audio, list_files, read_table, report_tree
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.settings import AUTO

TABLE = "labels_consensus.csv"
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
}
ATTRIBUTES = {"arousal": "EmoAct", "dominance": "EmoDom", "valence": "EmoVal"}
SCALE = (1.0, 7.0)
SPLITS = {"train": "train", "development": "validation"}


def read(root: str | Path, *, targets: str = AUTO) -> list[Utterance]:
    """Utterances that the table of a folder names, of any release.

    The split is "train", "validation", "test1", "test2" or "test3". With "dimensions" as `targets`
    they are all with ratings, else those with one of the eight emotions.

    Raises:
        FileNotFoundError: If the table or all of its recordings are missing.
        ValueError: If the table lacks a column, or an attribute is not a number.
    """
    folder = Path(root)
    table = next((file for file in list_files(folder) if file.name == TABLE), None)
    if table is None:
        raise FileNotFoundError(f"{folder} holds no {TABLE}; name the folder of the corpus")
    recordings = find_audio(folder)
    rows = [
        row
        for row in read_table(table, COLUMNS)
        if (_is_rated(row) if targets == "dimensions" else row["EmoClass"] in EMOTIONS)
    ]
    utterances, missing = [], []
    for row in rows:
        path = recordings.get(Path(row["FileName"]).stem)
        if path is None:
            missing.append(row["FileName"])
            continue
        speaker, split = row["SpkrID"].strip(), row["Split_Set"].strip().lower()
        utterances.append(
            Utterance(
                str(path),
                EMOTIONS.get(row["EmoClass"], ""),
                speaker=None if speaker.lower() in ("", "unknown") else speaker,
                corpus="msp-podcast",
                sex={"male": "m", "female": "f"}.get(row["Gender"].strip().lower()),
                split=SPLITS.get(split, split or None),
                dimensions={
                    name: float(row[column])
                    for name, column in ATTRIBUTES.items()
                    if row.get(column)
                },
                scale=SCALE,
            )
        )
    report_tree(root, utterances, corpus="msp-podcast", num_complete=len(rows), missing=missing)
    return utterances


def _is_rated(row: Mapping[str, str]) -> bool:
    return any(map(row.get, ATTRIBUTES.values()))
