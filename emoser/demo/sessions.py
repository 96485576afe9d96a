"""What the demo does when a visitor sends audio, changes the model, or leaves the page.

Each method returns HTML for the page; errors are part of it, as one sentence. Visitors are
identified by the name of their session.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emoser.demo.live_sessions import LiveChunk, LiveSessions
from emoser.demo.model_cache import ModelCache
from emoser.demo.rendering import analyse_file, render_analysis, render_error
from emoser.demo.uploads import Uploads
from emoser.errors import EmoserError

if TYPE_CHECKING:
    from emoser.demo import DemoOptions

CLOSE_SECONDS = 20.0  # to wait for the batch that a model is working on
ERRORS = (EmoserError, OSError, ValueError)
"""Raised by the library with a message for users; anything else is a bug and not handled."""

ShowProgress: TypeAlias = Callable[[float], object]
"""Shows a visitor the completed share, in [0, 1]."""


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

    def analyse(self, session: str, path: Path, model: str, show_progress: ShowProgress) -> str:
        """Analyse the file that a visitor sent; the previous one is deleted."""
        self.uploads.hold(session, path)
        return self.analyse_again(session, model, show_progress)

    def analyse_again(self, session: str, model: str, show_progress: ShowProgress) -> str:
        """Analyse the current file of a visitor; "" if there is none.

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
                analysis = analyse_file(path, self.models.open(model), report)
            page = render_analysis(analysis, path)
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
            return self.live.push(LiveChunk.from_message(message))
        except ERRORS as error:
            return render_error(error)

    def close(self) -> None:
        """Delete all files and cancel what is running."""
        self.uploads.drop_all()
        if self._busy.acquire(timeout=CLOSE_SECONDS):
            self._busy.release()
