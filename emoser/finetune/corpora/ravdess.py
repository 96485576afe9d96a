"""RAVDESS speech (Livingstone & Russo 2018): `Actor_01/03-01-05-02-01-01-01.wav`.

The parts are modality, vocal channel, emotion, intensity, statement, repetition and actor. Song
and video are left out. Odd actors are men.
"""

from functools import partial

from emoser.finetune.corpora.tree import read_names

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")

read = partial(
    read_names,
    corpus="ravdess",
    pattern=r"(?P<label>\d\d-\d\d-0[1-8])-0[12]-(?P<sentence>0[12])-0[12]-(?P<speaker>\d\d)",
    labels={f"03-01-{code:02d}": name for code, name in enumerate(EMOTIONS, start=1)},
    speakers={f"{actor:02d}": "fm"[actor % 2] for actor in range(1, 25)},
    num_complete=1440,
)
"""Utterances of a folder; see `read_names`."""
