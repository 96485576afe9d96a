"""Progress of long work: a bar on a terminal; elsewhere a log line at least every half minute.

The lines are of level INFO, and come from a thread, so that they also come during a single long
step. The commands print them.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

from tqdm import tqdm

INTERVAL = 20.0  # seconds from one line to the next
PAUSE = 5.0  # seconds between two pieces of one work, at most

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class Progress(Generic[Item]):
    """Iterates over items and shows how far it has come.

    Args:
        items: The items.
        title: What is being done with them.
        total: Their number, if `items` does not have it.
        show: Whether to show anything, which only one of several processes should.

    Attributes:
        note: Gives what to show beside the title, such as a loss.

    Example:
        >>> sum(Progress([1, 2, 3], "adding"))
        6
    """

    _last_line: ClassVar[float] = time.monotonic()  # of any work; short pieces count together
    _ended: ClassVar[float] = 0.0  # the last work; after a pause the clock starts anew

    def __init__(
        self, items: Iterable[Item], title: str, *, total: int | None = None, show: bool = True
    ) -> None:
        self._items, self._title, self._show = items, title, show
        self._total = len(items) if isinstance(items, Sequence) else total
        self._done = 0
        self.note: Callable[[], str] = str

    def __iter__(self) -> Iterator[Item]:
        if not self._show:
            yield from self._items
        elif sys.stderr.isatty():
            yield from self._with_bar()
        else:
            yield from self._with_lines()

    def _with_bar(self) -> Iterator[Item]:
        with tqdm(self._items, self._title, self._total, leave=False) as bar:
            for item in bar:
                yield item
                bar.set_postfix_str(self.note(), refresh=False)

    def _with_lines(self) -> Iterator[Item]:
        if time.monotonic() > Progress._ended + PAUSE:
            Progress._last_line = time.monotonic()
        finished = threading.Event()
        thread = threading.Thread(target=self._report, args=(finished,), daemon=True)
        thread.start()
        try:
            for item in self._items:
                yield item
                self._done += 1
        finally:
            finished.set()
            thread.join()
            Progress._ended = time.monotonic()

    def _report(self, finished: threading.Event) -> None:
        """Write a line whenever the last one, of any work, is old enough."""
        while not finished.wait(max(0.0, Progress._last_line + INTERVAL - time.monotonic())):
            if time.monotonic() >= Progress._last_line + INTERVAL:
                Progress._last_line = time.monotonic()
                of = "" if self._total is None else f" of {self._total}"
                note = self.note()
                line = f"{self._title}: {self._done}{of}{note and f', {note}'}"
                logger.info("%s", line)
