"""Lets transformers be imported although torchaudio is broken.

transformers imports torchaudio unconditionally if the distribution is installed, and a torchaudio
built for another torch fails to load its library. If this module is imported first, transformers
treats such a torchaudio as absent; a working torchaudio is not affected. The original error is
kept for the training features that need torchaudio.
"""

import sys

from emoser.errors import DependencyError

fault: BaseException | None = None

try:
    import torchaudio as _torchaudio  # noqa: F401
# A broken library can raise anything: OSError, AttributeError, RuntimeError ...
except Exception as error:
    fault = error
    if not isinstance(error, ModuleNotFoundError):
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
        # If transformers has been imported before, it has cached its own result.
        _asked = sys.modules.get("transformers.utils.import_utils")
        for _name in ("is_torchaudio_available", "is_speech_available"):
            _forget = getattr(getattr(_asked, _name, None), "cache_clear", None)
            if _forget is not None:
                _forget()


def require_torchaudio(feature: str) -> None:
    """Raise with the original error if torchaudio cannot be used.

    Raises:
        DependencyError: If torchaudio is absent or broken; `feature` is named in the message.
    """
    if fault is not None:
        raise DependencyError(
            f"{feature} needs torchaudio, which does not load here "
            f"({type(fault).__name__}: {fault}); install a torchaudio that matches torch, "
            'for example: pip install "torch>=2.11,<2.15" "torchaudio>=2.11"'
        ) from fault
