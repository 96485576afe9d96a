"""TESS (Pichora-Fuller & Dupuis 2020): `OAF_angry/OAF_back_angry.wav`.

The parts are speaker (two women), the word after "say the word", and the emotion. One file of
the published corpus begins with `OA_`.
"""

from functools import partial

from emoser.finetune.corpora.tree import Parts, read_names


def _convert(parts: Parts) -> Parts:
    lower = {name: (part or "").lower() for name, part in parts.items()}
    return {**lower, "speaker": "OAF" if lower["speaker"].startswith("oa") else "YAF"}


read = partial(
    read_names,
    corpus="tess",
    pattern=r"(?i:(?P<speaker>OAF?|YAF)_(?P<sentence>[^/]+)_"
    r"(?P<label>angry|disgust|fear|happy|neutral|ps|sad))",
    labels={
        "angry": "angry",
        "disgust": "disgust",
        "fear": "fear",
        "happy": "happy",
        "neutral": "neutral",
        "ps": "surprise",
        "sad": "sad",
    },
    speakers={"OAF": "f", "YAF": "f"},
    num_complete=2800,
    convert=_convert,
)
"""Utterances of a folder; see `read_names`."""
