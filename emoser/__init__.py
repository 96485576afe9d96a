"""Speech emotion recognition with wav2vec 2.0, HuBERT and WavLM.

The import is lightweight: each public name is loaded when it is first accessed.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

# pip enforces the minimum; running from a source tree would otherwise fail with a syntax error.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(
        f"emoser needs Python 3.11 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}; "
        "make a virtual environment with a newer Python and install emoser there"
    )

from emoser._version import __version__ as __version__
from emoser.telemetry import disable_telemetry

disable_telemetry()  # before the libraries that read it are imported

if TYPE_CHECKING:
    from emoser.audio import load_audio
    from emoser.classifier import EmotionClassifier
    from emoser.errors import EmoserError
    from emoser.results.conversation import Conversation
    from emoser.results.frames import to_frame
    from emoser.results.prediction import Prediction
    from emoser.results.segments import Segment
    from emoser.results.timeline import Timeline
    from emoser.streaming import EmotionStream

__all__ = [
    "Conversation",
    "EmoserError",
    "EmotionClassifier",
    "EmotionStream",
    "Prediction",
    "Segment",
    "Timeline",
    "load_audio",
    "to_frame",
]

_MODULES = {
    "Conversation": "emoser.results.conversation",
    "EmoserError": "emoser.errors",
    "EmotionClassifier": "emoser.classifier",
    "EmotionStream": "emoser.streaming",
    "Prediction": "emoser.results.prediction",
    "Segment": "emoser.results.segments",
    "Timeline": "emoser.results.timeline",
    "load_audio": "emoser.audio",
    "to_frame": "emoser.results.frames",
}


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        """Load a public name from the module that defines it."""
        if name not in _MODULES:
            raise AttributeError(f"module 'emoser' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
