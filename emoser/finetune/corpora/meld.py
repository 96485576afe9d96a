"""MELD, from a television series (Poria et al. 2019): three tables and one clip per line.

`train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv` name emotion, speaker, dialogue
and utterance; the clips are `train_splits/dia0_utt0.mp4`, `dev_splits_complete/...` and
`output_repeated_splits_test/...`, or audio files of the same names. The official split shares
its speakers.
"""

from pathlib import Path

from emoser.finetune.corpora.tree import find_audio, read_table, report_tree
from emoser.finetune.data.utterance import Utterance
from emoser.labels import canonical_label

PARTS = (  # table, folders of the clips, split
    ("train_sent_emo.csv", ("train_splits", "train"), "train"),
    ("dev_sent_emo.csv", ("dev_splits_complete", "dev_splits", "dev"), "validation"),
    ("test_sent_emo.csv", ("output_repeated_splits_test", "test_splits", "test"), "test"),
)
COLUMNS = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
NUM_COMPLETE = 13_708


def read(root: str | Path) -> list[Utterance]:
    """The utterances of a folder; 13,708 lines when it is complete.

    Raises:
        FileNotFoundError: If there is no table, or no clip of one.
        ValueError: If a table lacks a column.
    """
    folder = Path(root)
    utterances: list[Utterance] = []
    missing: list[str] = []
    for table, clips, split in PARTS:
        file = next(iter(sorted(folder.rglob(table))), None)
        place = next((item for name in clips for item in sorted(folder.rglob(name))
                      if item.is_dir()), None)  # fmt: skip
        if file is None or place is None:
            missing.append(table if file is None else clips[0])
            continue
        found, absent = _read_part(file, place, split)
        utterances += found
        missing += absent
    report_tree(root, utterances, corpus="meld", num_complete=NUM_COMPLETE, missing=missing)
    return utterances


def _read_part(table: Path, place: Path, split: str) -> tuple[list[Utterance], list[str]]:
    clips = find_audio(place)
    found, absent = [], []
    for row in read_table(table, COLUMNS):
        name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        if name not in clips:
            absent.append(f"{place.name}/{name}")
            continue
        label, speaker = canonical_label(row["Emotion"]), row["Speaker"].strip() or None
        path = str(clips[name])
        found.append(Utterance(path, label, speaker=speaker, corpus="meld", split=split))
    return found, absent
