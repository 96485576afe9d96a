"""JL corpus, New Zealand English (James et al. 2018): `female1_angry_10a_1.wav`.

The parts are speaker, emotion, sentence with session, and repetition. The five primary
emotions are read; the secondary ones (anxious, apologetic, ...) are left out.
"""

from functools import partial

from emoser.finetune.corpora.tree import read_names

EMOTIONS = ("angry", "sad", "neutral", "happy", "excited")

read = partial(
    read_names,
    corpus="jl",
    pattern=r"(?P<speaker>(?:fe)?male[12])_(?P<label>[a-z]+)_(?P<sentence>\d+)[ab]_[12]",
    labels={name: name for name in EMOTIONS},
    speakers={"female1": "f", "female2": "f", "male1": "m", "male2": "m"},
    num_complete=1200,
)
"""Utterances of a folder; see `read_names`."""
