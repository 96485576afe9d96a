"""SAVEE (Haq & Jackson 2009): `AudioData/DC/a01.wav`, or `DC_a01.wav` in the flat copy.

The parts are speaker (four men), emotion and sentence.
"""

from functools import partial

from emoser.finetune.corpora.tree import read_names

read = partial(
    read_names,
    corpus="savee",
    pattern=r"(?P<speaker>DC|JE|JK|KL)[/_](?P<sentence>(?P<label>a|d|f|h|n|sa|su)\d\d)",
    labels={
        "a": "angry",
        "d": "disgust",
        "f": "fear",
        "h": "happy",
        "n": "neutral",
        "sa": "sad",
        "su": "surprise",
    },
    speakers=dict.fromkeys(("DC", "JE", "JK", "KL"), "m"),
    num_complete=480,
)
"""Utterances of a folder; see `read_names`."""
