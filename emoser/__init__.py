"""What emotion does a voice carry?

Importing emoser costs next to nothing: each public name is loaded when it is first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# pip refuses an older Python; a copy of the source would fail there with a riddle.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(
        f"emoser needs Python 3.11 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}; "
        "make a virtual environment with a newer Python and install emoser there"
    )

if TYPE_CHECKING:
    from emoser.audio import load_audio
    from emoser.classifier import EmotionClassifier
    from emoser.errors import EmoserError
    from emoser.results.prediction import Prediction
    from emoser.results.segments import Segment
    from emoser.results.timeline import Timeline
    from emoser.streaming import EmotionStream

__version__ = "0.1.0"
__all__ = [
    "EmoserError",
    "EmotionClassifier",
    "EmotionStream",
    "Prediction",
    "Segment",
    "Timeline",
    "load_audio",
]

_HOMES = {
    "EmoserError": "emoser.errors",
    "EmotionClassifier": "emoser.classifier",
    "EmotionStream": "emoser.streaming",
    "Prediction": "emoser.results.prediction",
    "Segment": "emoser.results.segments",
    "Timeline": "emoser.results.timeline",
    "load_audio": "emoser.audio",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that owns it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'emoser' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
