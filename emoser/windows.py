"""Cut a long recording into windows and join what was said about them.

Works on sample counts only: it has never heard of files, models or emotions.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt


def cut_windows(num_samples: int, *, window: int, hop: int) -> list[slice]:
    """Positions of the windows that together cover `num_samples` samples.

    The last window is moved back so that it ends with the recording; a recording shorter
    than one window gives one short window, an empty one gives none.

    Raises:
        ValueError: If `hop` is not in [1, window].

    Example:
        >>> cut_windows(10, window=4, hop=3)
        [slice(0, 4, None), slice(3, 7, None), slice(6, 10, None)]
        >>> cut_windows(9, window=4, hop=3)
        [slice(0, 4, None), slice(3, 7, None), slice(5, 9, None)]
    """
    if not 1 <= hop <= window:
        raise ValueError(f"hop is {hop} samples; it must lie between 1 and the window, {window}")
    if num_samples <= 0:
        return []
    if num_samples <= window:
        return [slice(0, num_samples)]
    starts = list(range(0, num_samples - window, hop))
    starts.append(num_samples - window)
    return [slice(start, start + window) for start in starts]


def stream_windows(
    blocks: Iterable[npt.NDArray[np.float32]], *, window: int, hop: int
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """The windows of `cut_windows`, with their samples, of a recording that comes in blocks.

    Holds at most a window, a hop and a block at a time, however long the recording is.

    Raises:
        ValueError: If `hop` is not in [1, window].

    Example:
        >>> blocks = [np.arange(6, dtype=np.float32), np.arange(6, 10, dtype=np.float32)]
        >>> [piece.start for piece, _ in stream_windows(blocks, window=4, hop=3)]
        [0, 3, 6]
    """
    if not 1 <= hop <= window:
        raise ValueError(f"hop is {hop} samples; it must lie between 1 and the window, {window}")
    kept = np.zeros(0, np.float32)
    base = start = 0  # position of kept[0], and of the next window
    for block in blocks:
        kept = np.concatenate([kept, block])
        while base + len(kept) > start + window:
            yield slice(start, start + window), kept[start - base :][:window]
            start += hop
        forget = max(start - hop - base, 0)  # the last window may begin before `start`
        kept, base = kept[forget:], base + forget
    end = base + len(kept)
    if end > 0:
        last = max(end - window, 0)
        yield slice(last, end), kept[last - base :]


def window_weights(windows: Sequence[slice]) -> npt.NDArray[np.float64]:
    """The share of the recording that each window speaks for, (N,), summing to 1.

    A sample that several windows cover counts in equal parts for each of them, so that the
    weighted mean over windows is the mean over samples.

    Example:
        >>> window_weights([slice(0, 4), slice(2, 6)])
        array([0.5, 0.5])
    """
    if not windows:
        return np.zeros(0)
    edges = np.unique([edge for window in windows for edge in (window.start, window.stop)])
    widths = np.diff(edges).astype(np.float64)  # (E,) pieces between neighbouring edges
    first = np.searchsorted(edges, [window.start for window in windows])
    last = np.searchsorted(edges, [window.stop for window in windows])
    steps = np.zeros(len(edges) + 1)
    np.add.at(steps, first, 1.0)
    np.add.at(steps, last, -1.0)
    cover = np.maximum(np.cumsum(steps)[: len(widths)], 1.0)
    cumulated = np.concatenate([[0.0], np.cumsum(widths / cover)])
    shares = cumulated[last] - cumulated[first]
    return np.asarray(shares / shares.sum(), dtype=np.float64)
