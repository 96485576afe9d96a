"""What the demo does when a visitor sends audio, changes the model, or leaves the page.

Each method returns HTML for the page; errors are part of it, as one sentence. Visitors are
identified by the name of their session.
"""

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emoser.checkpoints.catalog import CATALOG
from emoser.checkpoints.resolve import bundled_names
from emoser.classifier import EmotionClassifier
from emoser.demo.live_sessions import LiveSessions, read_chunk
from emoser.demo.rendering import analyse_file, render_analysis, render_error
from emoser.demo.uploads import Uploads
from emoser.errors import CheckpointError, EmoserError

if TYPE_CHECKING:
    from emoser.demo import DemoOptions

MAX_MODELS = 2  # in memory; large ones take gigabytes
CLOSE_SECONDS = 20.0  # to wait for the batch that a model is working on
ERRORS = (EmoserError, OSError, ValueError)
"""Raised by the library with a message for users; anything else is a bug and not handled."""

ShowProgress: TypeAlias = Callable[[float], object]
"""Shows a visitor the completed share, in [0, 1]."""


class ModelCache:
    """Loads models by name and keeps the most recently used ones; safe for use by threads.

    Example:
        >>> from emoser.demo import DemoOptions
        >>> cache = ModelCache(DemoOptions())
        >>> cache.names
        ('emoser-small',)
        >>> cache.open("emoser-small") is cache.open("emoser-small")
        True
    """

    def __init__(self, options: "DemoOptions") -> None:
        self._options = options
        self._lock = threading.Lock()
        engine: dict[str, Any] = {
            "device": options.device,
            "dtype": options.dtype,
            "backend": options.backend,
        }
        self._load = lru_cache(MAX_MODELS)(partial(EmotionClassifier.from_pretrained, **engine))

    @property
    def names(self) -> tuple[str, ...]:
        """The models of the options and, if any model is allowed, the bundled and catalog ones."""
        known: tuple[str, ...] = ()
        if self._options.any_model:
            known = (*bundled_names(), *(entry.name for entry in CATALOG))
        return tuple(dict.fromkeys((*self._options.models, *known)))

    def open(self, name: str) -> EmotionClassifier:
        """The classifier of that name, loaded if necessary.

        Raises:
            CheckpointError: If visitors may not choose it, or it cannot be loaded.
            HubError: If it cannot be downloaded.
        """
        if not isinstance(name, str):
            raise CheckpointError("the model has no name; choose one of the list")
        if not self._options.any_model and name not in self._options.models:
            allowed = ", ".join(self._options.models)
            raise CheckpointError(f"model {name!r} is not available here; choose one of {allowed}")
        with self._lock:
            return self._load(name)


class Sessions:
    """The visitors of a demo.

    Args:
        options: Settings of the demo.

    Example:
        >>> from emoser.demo import DemoOptions
        >>> sessions = Sessions(DemoOptions())
        >>> sessions.analyse_again("unknown session", "emoser-tiny", lambda share: None)
        ''
    """

    def __init__(self, options: "DemoOptions") -> None:
        self.options = options
        self.models = ModelCache(options)
        self.uploads = Uploads()
        self.live = LiveSessions(self.models.open)
        self._busy = threading.Lock()  # one recording at a time: a model uses all cores

    def analyse(
        self,
        session: str,
        path: Path,
        model: str,
        show_progress: ShowProgress,
        *,
        separate: bool = False,
    ) -> str:
        """Analyse the file that a visitor sent; the previous one is deleted."""
        self.uploads.hold(session, path)
        return self.analyse_again(session, model, show_progress, separate=separate)

    def analyse_again(
        self, session: str, model: str, show_progress: ShowProgress, *, separate: bool = False
    ) -> str:
        """Analyse the current file of a visitor, its channels one by one or mixed; "" if none.

        The analysis is cancelled at the next read when the visitor leaves or sends another file.
        """
        path = self.uploads.find(session)
        if path is None:
            return ""

        def is_current() -> bool:
            return self.uploads.find(session) == path

        def report(share: float) -> bool:
            show_progress(share)
            return is_current()

        try:
            with self._busy:
                report(0.0)
                results = analyse_file(path, self.models.open(model), report, separate=separate)
            page = render_analysis(*results, path)
        except ERRORS as error:
            page = render_error(error)
        return page if is_current() else ""

    def forget(self, session: str) -> str:
        """Delete the file of a visitor who cleared it or left; an empty page."""
        self.uploads.drop(session)
        return ""

    def push_live(self, message: Any) -> str:
        """Analyse the next chunk of a live microphone."""
        try:
            return self.live.push(read_chunk(message))
        except ERRORS as error:
            return render_error(error)

    def close(self) -> None:
        """Delete all files and cancel what is running."""
        self.uploads.drop_all()
        if self._busy.acquire(timeout=CLOSE_SECONDS):
            self._busy.release()
