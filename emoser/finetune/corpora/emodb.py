"""EmoDB, the Berlin database (Burkhardt et al. 2005): `wav/03a01Fa.wav`.

The parts are speaker, text, the German initial of the emotion, and the version.
"""

from functools import partial

from emoser.finetune.corpora.tree import read_names

read = partial(
    read_names,
    corpus="emodb",
    pattern=r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<label>[AEFLNTW])[a-f]",
    labels={
        "W": "angry",  # Wut
        "L": "boredom",  # Langeweile
        "E": "disgust",  # Ekel
        "A": "fear",  # Angst
        "F": "happy",  # Freude
        "T": "sad",  # Trauer
        "N": "neutral",
    },
    speakers={
        "03": "m", "08": "f", "09": "f", "10": "m", "11": "m",
        "12": "m", "13": "f", "14": "f", "15": "m", "16": "f",
    },
    num_complete=535,
)  # fmt: skip
"""Utterances of a folder; see `read_names`."""
