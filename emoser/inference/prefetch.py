"""Iterate in a background thread, so that slow items hold up nothing that is ready before them."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prefetch(Generic[Item]):
    """The items of an iterable in their order, taken from it ahead by a thread of its own.

    The thread sees the context variables of the one that made it. An error of the iterable is
    raised after the items before it.

    Args:
        items: What to iterate.
        limit: The thread pauses once the items ahead have this cost together.
        cost: The cost of an item.

    Example:
        >>> with closing(Prefetch(range(3), 2)) as ahead:
        ...     list(ahead)
        [0, 1, 2]
    """

    def __init__(
        self, items: Iterable[Item], limit: int, cost: Callable[[Item], int] = lambda _: 1
    ) -> None:
        self._limit = limit
        self._cost = cost
        self._ahead: deque[Item] = deque()
        self._held = 0  # the cost of the items ahead
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        # A daemon: an iterable that never gives its next item must not keep the process alive.
        threading.Thread(
            target=copy_context().run, args=(self._fill, items), name="emoser-ahead", daemon=True
        ).start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._ahead or self._ended)
            if self._ahead:
                item = self._ahead.popleft()
                self._held -= self._cost(item)
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    @property
    def is_ready(self) -> bool:
        """Whether the next item is there; it does not have to be waited for then."""
        return bool(self._ahead)

    def close(self) -> None:
        """Let the thread end; it takes no further items."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fill(self, items: Iterable[Item]) -> None:
        error = None
        try:
            for item in items:
                with self._changed:
                    self._ahead.append(item)
                    self._held += self._cost(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or self._held < self._limit)
                    if self._closed:
                        return
        except BaseException as raised:  # the caller's iterable may raise anything
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int, num_ahead: int
) -> Generator[Result]:
    """`map(function, items)` in order, computed ahead in threads.

    A result is there once it is computed, however long the next item takes. An error of `items`
    is raised after the results of the items before it.

    Example:
        >>> list(map_ahead(abs, [-1, 2, -3], num_threads=2, num_ahead=2))
        [1, 2, 3]
    """
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="emoser-read")
    submitted = (executor.submit(function, item) for item in items)
    try:
        with closing(Prefetch(submitted, num_ahead)) as futures:
            for future in futures:
                yield future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
