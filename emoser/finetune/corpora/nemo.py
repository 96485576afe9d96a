"""nEMO, Polish (Christop 2024): `samples/EB0_anger_1.wav`.

The parts are speaker, emotion and sentence; every speaker says each sentence in every emotion.
"""

from functools import partial

from emoser.finetune.corpora.tree import read_names

read = partial(
    read_names,
    corpus="nemo",
    pattern=r"(?P<speaker>[A-Z]{2}\d)_"
    r"(?P<label>anger|fear|happiness|neutral|sadness|surprised?)_(?P<sentence>\d+)",
    labels={
        "anger": "angry",
        "fear": "fear",
        "happiness": "happy",
        "neutral": "neutral",
        "sadness": "sad",
        "surprise": "surprise",
        "surprised": "surprise",
    },
    speakers={
        "EB0": "f", "IC0": "f", "KD0": "f", "MK0": "f",
        "KS0": "m", "MP0": "m", "SM0": "m", "TP0": "m", "WR0": "m",
    },
    num_complete=4481,
)  # fmt: skip
"""Utterances of a folder; see `read_names`."""
