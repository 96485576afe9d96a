"""Windows cover every sample, end with the recording, and weigh what they hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.windows import cut_windows

from emoser.inference.windows import WindowCutter, window_weights


def stream_windows(blocks, *, window, hop):
    """The windows of a recording that comes in blocks."""
    cutter = WindowCutter(window=window, hop=hop)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.flush()


SIZES = st.integers(1, 60).flatmap(
    lambda window: st.tuples(
        st.integers(1, 400), st.just(window), st.integers(1, window), st.integers(1, 90)
    )
)
"""Samples, window, hop, block."""


@given(SIZES)
def test_windows_cover_every_sample_and_end_with_the_recording(sizes):
    num_samples, window, hop, _ = sizes
    covered = np.zeros(num_samples, int)
    windows = cut_windows(num_samples, window=window, hop=hop)
    for piece in windows:
        assert piece.stop - piece.start == min(window, num_samples)
        covered[piece] += 1
    assert covered.min() >= 1
    assert windows[-1].stop == num_samples
    starts = [piece.start for piece in windows]
    assert starts == sorted(set(starts))


@given(SIZES)
def test_streaming_gives_the_same_windows_for_any_block_size(sizes):
    num_samples, window, hop, block = sizes
    samples = np.arange(num_samples, dtype=np.float32)
    blocks = [samples[start : start + block] for start in range(0, num_samples, block)]
    streamed = list(stream_windows(blocks, window=window, hop=hop))
    assert [piece for piece, _ in streamed] == cut_windows(num_samples, window=window, hop=hop)
    for piece, values in streamed:
        np.testing.assert_array_equal(values, samples[piece])


@given(SIZES)
def test_weights_are_those_of_a_mean_over_samples(sizes):
    num_samples, window, hop, _ = sizes
    windows = cut_windows(num_samples, window=window, hop=hop)
    cover = np.zeros(num_samples)
    for piece in windows:
        cover[piece] += 1
    expected = [(1 / cover[piece]).sum() / num_samples for piece in windows]
    np.testing.assert_allclose(window_weights(windows), expected, atol=1e-12)


@pytest.mark.parametrize(("window", "hop"), [(4, 0), (4, 5), (4, -1)])
def test_a_hop_outside_the_window_is_refused(window, hop):
    with pytest.raises(ValueError, match="between 1 and the window"):
        cut_windows(10, window=window, hop=hop)
    with pytest.raises(ValueError, match="between 1 and the window"):
        next(stream_windows([], window=window, hop=hop))


def test_nothing_has_no_windows():
    assert cut_windows(0, window=4, hop=2) == []
    assert list(stream_windows([], window=4, hop=2)) == []
    assert len(window_weights([])) == 0
