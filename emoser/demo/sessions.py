"""`Visits`: what happens when a visitor sends a recording, changes the model, speaks, or leaves.

Brings together models, uploads and answers; each method gives HTML, and a fault is a sentence in
it. Knows nothing of Gradio: a visitor is the name of a session.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from emoser.demo.live_sessions import Spoken, Voices
from emoser.demo.model_cache import Shelf
from emoser.demo.options import DemoOptions
from emoser.demo.rendering import hear_file, show_answer, show_fault
from emoser.demo.uploads import Uploads
from emoser.errors import EmoserError

CLOSE_SECONDS = 20.0  # for the piece that a model is hearing
FAULTS = (EmoserError, OSError, ValueError)
"""What the library raises in the form of a sentence; anything else is a bug and stays one."""


ShowProgress: TypeAlias = Callable[[float], object]
"""Shows a visitor the share that is done, in [0, 1]."""


class Visits:
    """The visitors of one demo.

    Args:
        options: What they may do.

    Example:
        >>> visits = Visits(DemoOptions())
        >>> visits.hear_again("nobody", "emoser-tiny", lambda share: None)
        ''
    """

    def __init__(self, options: DemoOptions) -> None:
        self.options = options
        self.shelf = Shelf(options)
        self.uploads = Uploads()
        self.voices = Voices(self.shelf.open)
        self._working = threading.Lock()  # one recording at a time: a model takes all the cores

    def hear(self, session: str, path: Path, model: str, show_progress: ShowProgress) -> str:
        """The answer about a file that a visitor sent; the one before it is deleted."""
        self.uploads.hold(session, path)
        return self.hear_again(session, model, show_progress)

    def hear_again(self, session: str, model: str, show_progress: ShowProgress) -> str:
        """The answer of a model about the file that is held for a visitor; "" without one.

        Work stops at the next read when the visitor leaves or sends another file.
        """
        path = self.uploads.find(session)
        if path is None:
            return ""

        def is_wanted() -> bool:
            return self.uploads.find(session) == path

        def report_if_wanted(share: float) -> bool:
            show_progress(share)
            return is_wanted()

        try:
            with self._working:
                report_if_wanted(0.0)
                answer = hear_file(path, self.shelf.open(model), report_if_wanted)
            page = show_answer(answer, path)
        except FAULTS as error:
            page = show_fault(error)
        return page if is_wanted() else ""

    def forget(self, session: str) -> str:
        """A visitor takes a file back, or leaves: it is deleted; an empty page."""
        self.uploads.drop(session)
        return ""

    def hear_voice(self, message: Any) -> str:
        """Hear the next message of a live voice; what the page shows."""
        try:
            return self.voices.hear(Spoken.from_message(message))
        except FAULTS as error:
            return show_fault(error)

    def close(self) -> None:
        """The page is taken down: nothing is kept, and work that goes on ends."""
        self.uploads.drop_all()
        if self._working.acquire(timeout=CLOSE_SECONDS):
            self._working.release()
