"""Keeps a broken torchaudio from taking transformers down with it.

transformers imports torchaudio without a guard wherever the distribution is installed, and a
torchaudio built for another torch fails to load its library. Importing this module first makes
transformers treat such a torchaudio as absent; a torchaudio that works is left alone. The
original fault is kept, for the training features that need torchaudio.
"""

import sys

from emoser.errors import DependencyError

fault: BaseException | None = None

try:
    import torchaudio as _torchaudio  # noqa: F401
# A foreign library may fail to load in any way: OSError, AttributeError, RuntimeError ...
except Exception as error:
    fault = error
    if not isinstance(error, ModuleNotFoundError):
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
        # A transformers that was imported before has remembered another answer.
        _asked = sys.modules.get("transformers.utils.import_utils")
        for _name in ("is_torchaudio_available", "is_speech_available"):
            _forget = getattr(getattr(_asked, _name, None), "cache_clear", None)
            if _forget is not None:
                _forget()


def require_torchaudio(feature: str) -> None:
    """Raise with the original fault when torchaudio cannot be used.

    Raises:
        DependencyError: If torchaudio is absent or broken; `feature` is named in the message.
    """
    if fault is not None:
        raise DependencyError(
            f"{feature} needs torchaudio, which does not load here "
            f"({type(fault).__name__}: {fault}); install a torchaudio that matches torch, "
            'for example: pip install "torch>=2.11,<2.15" "torchaudio>=2.11"'
        ) from fault
