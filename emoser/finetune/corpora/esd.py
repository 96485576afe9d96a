"""ESD, English and Mandarin (Zhou et al. 2021): `0011/Angry/train/0011_000351.wav`.

The name has speaker and number; the emotion is in the folder, and the numbers run over five
blocks of 350, one per emotion, with the same texts in each. Speakers 0001 to 0010 speak
Mandarin. `train`, `evaluation` and `test` are the official split, where the copy has them; it
shares its speakers.
"""

from functools import partial

from emoser.finetune.corpora.tree import Parts, read_names

EMOTIONS = ("neutral", "angry", "happy", "sad", "surprise")
SPLITS = {"train": "train", "evaluation": "validation", "test": "test"}
BLOCK = 350
LAST_MANDARIN = 10


def _convert(parts: Parts) -> Parts:
    speaker, number = parts["speaker"] or "", parts["sentence"] or ""
    language = "mandarin" if int(speaker) <= LAST_MANDARIN else "english"
    return {
        "label": (parts["label"] or "").lower(),
        "speaker": speaker,
        "split": SPLITS.get((parts["split"] or "").lower()),
        "sentence": f"{language}-{(int(number) - 1) % BLOCK + 1}",
    }


read = partial(
    read_names,
    corpus="esd",
    pattern=rf"(?i:(?P<label>{'|'.join(EMOTIONS)})(?:/[^/]+)*?(?:/(?P<split>{'|'.join(SPLITS)}))?)"
    r"/(?P<speaker>\d{4})_(?P<sentence>\d+)",
    labels={name: name for name in EMOTIONS},
    speakers={f"{index:04d}": None for index in range(1, 21)},
    num_complete=35_000,
    convert=_convert,
)
"""Utterances of a folder; see `read_names`."""
