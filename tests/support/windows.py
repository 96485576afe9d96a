"""Positions of windows, computed from the length: the reference for `WindowCutter`."""


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
