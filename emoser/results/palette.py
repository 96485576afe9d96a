"""The colour of each emotion, the same in every picture, for eyes of every kind.

Plain strings. The hues are Okabe and Ito's (distinct for the colour-blind), shifted in lightness
where there are more emotions than hues, and they read on white as on near-black.
"""

from collections.abc import Mapping, Sequence

COLOURS: Mapping[str, str] = {
    "neutral": "#8f959b",
    "calm": "#56b4e9",
    "happy": "#e0a800",
    "excited": "#b58200",
    "sad": "#0072b2",
    "angry": "#d55e00",
    "frustrated": "#a84a00",
    "fear": "#9a6fd0",
    "disgust": "#009e73",
    "contempt": "#5c7a29",
    "surprise": "#e377b4",
    "positive": "#e0a800",
    "negative": "#0072b2",
}
OTHERS = ("#56b4e9", "#d55e00", "#009e73", "#e377b4", "#e0a800", "#0072b2", "#9a6fd0", "#8f959b")
"""For labels that emoser has no colour for, in their order."""


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label.

    Example:
        >>> colours_of(["angry", "bored"])
        {'angry': '#d55e00', 'bored': '#56b4e9'}
    """
    free = [colour for colour in OTHERS if colour not in {COLOURS.get(name) for name in labels}]
    unknown = [name for name in labels if name not in COLOURS]
    spare = free or list(OTHERS)
    chosen = {name: spare[place % len(spare)] for place, name in enumerate(unknown)}
    return {name: COLOURS.get(name) or chosen[name] for name in labels}
