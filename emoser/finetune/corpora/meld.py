"""MELD, from a television series (Poria et al. 2019): three tables and one clip per line.

`train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv` name emotion, speaker, dialogue
and utterance; the clips are `train_splits/dia0_utt0.mp4`, `dev_splits_complete/...` and
`output_repeated_splits_test/...`, or audio files of the same names. The official split shares
its speakers.
"""

from pathlib import Path

from emoser.finetune.corpora.tree import find_audio, list_files, read_table, report_tree
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
    """Utterances of a folder; 13,708 lines of the tables of the complete corpus.

    Raises:
        FileNotFoundError: If there is no table, or no clip of one.
        ValueError: If a table lacks a column.
    """
    files = list_files(root)
    folders = sorted({parent for file in files for parent in file.parents})
    utterances, missing = [], []
    for name, places, split in PARTS:
        table = next((file for file in files if file.name == name), None)
        found = [item for place in places for item in folders if item.name == place]
        if table is None or not found:
            missing.append(name if table is None else places[0])
            continue
        clips = find_audio(found[0])
        for row in read_table(table, COLUMNS):
            clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if clip not in clips:
                missing.append(f"{found[0].name}/{clip}")
                continue
            utterances.append(
                Utterance(
                    str(clips[clip]),
                    canonical_label(row["Emotion"]),
                    speaker=row["Speaker"].strip() or None,
                    corpus="meld",
                    split=split,
                )
            )
    report_tree(root, utterances, corpus="meld", num_complete=NUM_COMPLETE, missing=missing)
    return utterances
