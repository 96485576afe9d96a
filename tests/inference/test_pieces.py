"""Pieces of a long recording: exact, read in one pass, and in flat memory."""

import tracemalloc

import numpy as np
import pytest
import soundfile
from support.models import random_clips

from emoser.audio import AudioBlocks, load_audio
from emoser.errors import AudioError
from emoser.inference import pieces
from emoser.inference.batching import InferenceOptions, infer_recordings
from emoser.inference.pieces import Piece, infer_pieces, read_pieces
from emoser.runtimes import InferenceOutput

RATE = 16_000


class MeanRuntime:
    """Answers with mean and deviation of the samples; counts the samples of each call."""

    batch_seconds = None

    def __init__(self, group_size=1):
        self.group_size = group_size
        self.sizes = []

    def infer(self, recordings):
        self.sizes += [len(samples) for samples in recordings]
        rows = np.array([[clip.mean(), clip.std()] for clip in recordings], np.float32)
        return InferenceOutput(rows, rows)


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    file = tmp_path_factory.mktemp("call") / "long.flac"
    soundfile.write(file, random_clips([600 * RATE])[0], RATE)
    return file


@pytest.fixture
def decoded(monkeypatch):
    """Seconds that were decoded, and how often files were opened."""
    seconds = []

    class Counted(AudioBlocks):
        def __init__(self, source, **options):
            seconds.append(0.0)
            super().__init__(source, **options)

        def frames(self):
            for block in super().frames():
                seconds[-1] += len(block) / RATE
                yield block

    monkeypatch.setattr(pieces, "AudioBlocks", Counted)
    return seconds


def many_pieces():
    rows = [(2.0 * n % 400, 2.0 * n % 400 + 3.5) for n in range(100, 0, -1)]
    return [Piece(*row) for row in (*rows, (10.0, 250.0), (None, 4.0), (0.0, 1.0))]


def test_pieces_are_read_in_one_pass_up_to_the_last_end(call, decoded):
    rows = many_pieces()
    found = {number: [] for number in range(len(rows))}
    for part in read_pieces(call, rows, InferenceOptions(window=RATE)):
        found[part.piece].append(part.samples)
    assert len(decoded) == 1
    assert decoded[0] <= 270.0
    whole = load_audio(call)
    for number, (start, end, _) in enumerate(rows):
        expected = whole[round((start or 0) * RATE) : round(end * RATE)]
        assert np.array_equal(np.concatenate(found[number]), expected)


@pytest.mark.parametrize("group_size", [1, 3])
def test_a_piece_has_the_outputs_of_its_samples_alone(call, decoded, group_size):
    rows = [*many_pieces(), Piece(590.0), Piece(5.0, 999.0), Piece()]
    options = InferenceOptions(window=30 * RATE, sampling_rate=RATE)
    outputs = list(infer_pieces([(call, rows)], MeanRuntime(group_size), options))
    assert len(decoded) == 1
    assert sorted(piece for _, piece, _ in outputs) == list(range(len(rows)))
    whole = load_audio(call)
    for _, piece, output in outputs:
        start, end, _ = rows[piece]
        samples = whole[round((start or 0) * RATE) : None if end is None else round(end * RATE)]
        (alone,) = infer_recordings([samples], MeanRuntime(), options)
        assert output.windows == alone.windows
        assert np.array_equal(output.logits, alone.logits)
        assert output.duration == pytest.approx(alone.duration)
        assert output.quality == alone.quality


def test_a_piece_of_an_hour_takes_no_more_memory_than_one_of_a_minute(tmp_path):
    file = tmp_path / "hours.flac"
    with soundfile.SoundFile(file, "w", RATE, 1, format="FLAC") as opened:
        minute = random_clips([60 * RATE])[0]
        for _ in range(75):
            opened.write(minute)
    options = InferenceOptions(window=30 * RATE, sampling_rate=RATE)

    def peak(end):
        tracemalloc.start()
        ((_, _, output),) = infer_pieces([(file, [Piece(1.0, end)])], MeanRuntime(), options)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert output.duration == end - 1.0
        return used

    assert peak(4201.0) < 1.2 * peak(121.0)


def test_what_cannot_be_read_is_named_in_its_place_and_the_rest_is_read(tmp_path, call):
    (tmp_path / "bad.wav").write_bytes(b"RIFF cut short")
    recordings = [
        (tmp_path / "bad.wav", [Piece(0.0, 1.0), Piece(2.0, 3.0)]),
        (tmp_path / "none.wav", [Piece(0.0, 1.0)]),
        (call, [Piece(700.0, 701.0), Piece(1.0, 2.0), Piece(3.0, 3.00001)]),
    ]
    options = InferenceOptions(window=30 * RATE, sampling_rate=RATE)
    found = {(file, piece): item for file, piece, item in
             infer_pieces(recordings, MeanRuntime(), options)}  # fmt: skip
    assert len(found) == 6
    assert found[2, 1].logits.shape == (1, 2)
    faults = {key: str(item) for key, item in found.items() if isinstance(item, AudioError)}
    assert len(faults) == 5
    assert "600.00 s long and has no samples between 700 and 701 s" in faults[2, 0]
    assert "bad.wav" in faults[0, 1]
    assert "none.wav" in faults[1, 0]
