"""Cut a recording into windows, and weigh them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


class WindowCutter:
    """Cuts a recording that arrives in blocks into overlapping windows.

    The last window is moved back so that it ends with the recording; a recording shorter than
    one window gives one short window, an empty one gives none. Keeps at most a window, a hop and
    a block in memory.

    Raises:
        ValueError: If `hop` is not in [1, window].

    Example:
        >>> cutter = WindowCutter(window=4, hop=3)
        >>> [window.start for window, _ in cutter.push(np.zeros(9, np.float32))]
        [0, 3]
        >>> [window for window, _ in cutter.flush()]
        [slice(5, 9, None)]
    """

    def __init__(self, *, window: int, hop: int) -> None:
        if not 1 <= hop <= window:
            raise ValueError(
                f"hop is {hop} samples; it must lie between 1 and the window, {window}"
            )
        self._window = window
        self._hop = hop
        self._kept = np.zeros(0, np.float32)
        self._base = self._next = 0  # position of the first kept sample, and of the next window

    def push(
        self, block: npt.NDArray[np.float32]
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """The windows that `block` completes, without the last one.

        Exhaust them before the next call.
        """
        self._kept = np.concatenate([self._kept, block])
        while self._base + len(self._kept) > self._next + self._window:
            start = self._next
            yield (
                slice(start, start + self._window),
                self._kept[start - self._base :][: self._window],
            )
            self._next += self._hop
        # The last window may begin before the next one would.
        forget = max(self._next - self._hop - self._base, 0)
        self._kept, self._base = self._kept[forget:], self._base + forget

    def flush(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """The last window, which ends with the recording; nothing without samples."""
        end = self._base + len(self._kept)
        if end > 0:
            last = max(end - self._window, 0)
            yield slice(last, end), self._kept[last - self._base :]


def window_weights(windows: Sequence[slice]) -> npt.NDArray[np.float64]:
    """The share of the recording that each window stands for, (N,), summing to 1.

    A sample that several windows cover is divided equally among them, so that the weighted mean
    over windows is the mean over samples.

    Example:
        >>> window_weights([slice(0, 4), slice(2, 6)])
        array([0.5, 0.5])
    """
    if not windows:
        return np.zeros(0)
    # A set instead of numpy.unique, which imports numpy.ma at its first call.
    edges = np.array(sorted({edge for item in windows for edge in (item.start, item.stop)}))
    widths = np.diff(edges).astype(np.float64)  # (E,) between neighbouring edges
    first = np.searchsorted(edges, [window.start for window in windows])
    last = np.searchsorted(edges, [window.stop for window in windows])
    steps = np.zeros(len(edges) + 1)
    np.add.at(steps, first, 1.0)
    np.add.at(steps, last, -1.0)
    cover = np.maximum(np.cumsum(steps)[: len(widths)], 1.0)
    cumulated = np.concatenate([[0.0], np.cumsum(widths / cover)])
    shares = cumulated[last] - cumulated[first]
    return np.asarray(shares / shares.sum(), dtype=np.float64)
