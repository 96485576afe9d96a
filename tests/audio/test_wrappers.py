"""Recordings as other libraries hand them over are decoded like their files."""

import io

import numpy as np
import pytest
from support.audio_files import babble, encode, read_recording

from emoser.audio import describe_source, load_audio
from emoser.audio.wrappers import is_source

SAMPLES = babble(16_000)
FILE = encode(SAMPLES, 16_000, "WAV", "FLOAT")


class Decoder:
    """An AudioDecoder as torchcodec describes it: samples of shape (channels, T) with a rate."""

    def __init__(self, samples):
        import torch

        self.data, self.sample_rate = torch.tensor(samples)[None], 16_000

    def get_all_samples(self):
        return self


@pytest.fixture
def path(tmp_path):
    (tmp_path / "call.wav").write_bytes(FILE)
    return str(tmp_path / "call.wav")


ROWS = {
    "array": lambda path: {"array": SAMPLES, "sampling_rate": 16_000, "path": None},
    "list": lambda path: {"array": SAMPLES.tolist(), "sampling_rate": 16_000},
    "bytes": lambda path: {"bytes": FILE, "path": "call.wav"},
    "path": lambda path: {"bytes": None, "path": path},
    "row": lambda path: {"audio": {"bytes": FILE, "path": None}, "label": 3},
    "decoder": lambda path: Decoder(SAMPLES),
    "decoder in a row": lambda path: {"audio": Decoder(SAMPLES)},
    "rate first": lambda path: (16_000, SAMPLES),
    "rate last": lambda path: (SAMPLES[np.newaxis], np.int64(16_000)),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_decoders_and_pairs_are_taken_apart(kind, path):
    source = ROWS[kind](path)
    assert np.array_equal(load_audio(source), SAMPLES)
    assert np.array_equal(load_audio(source, sampling_rate=8_000), SAMPLES)  # its own rate counts
    assert is_source(source)


def test_rows_of_datasets_are_taken_apart(path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"audio": [path]})
    row = table.cast_column("audio", datasets.Audio(decode=False))[0]
    assert np.array_equal(load_audio(row), SAMPLES)
    assert describe_source(row) == path


def test_a_segment_of_pydub_is_decoded():
    pydub = pytest.importorskip("pydub")
    stereo = babble(16_000, channels=2)
    for width, dtype in ((1, "i1"), (2, "<i2"), (4, "<i4")):
        values = (stereo * (2 ** (8 * width - 1) - 128)).astype(dtype)
        segment = pydub.AudioSegment(
            data=values.tobytes(), sample_width=width, frame_rate=16_000, channels=2
        )
        assert np.array_equal(load_audio(segment), load_audio(values, sampling_rate=16_000))
        assert is_source(segment)


def test_an_upload_is_read_as_often_as_it_is_needed():
    starlette = pytest.importorskip("starlette.datastructures")
    upload = starlette.UploadFile(io.BytesIO(FILE), filename="call.wav")
    for _ in range(2):
        assert np.array_equal(load_audio(upload), SAMPLES)
    assert read_recording(upload).name == describe_source(upload) == "call.wav"
    assert is_source(upload)


def test_a_file_that_is_read_with_await_is_refused():
    class AsyncFile:
        async def read(self, size=-1):
            return FILE

    with pytest.raises(TypeError, match=r"await file\.read"):
        load_audio(AsyncFile())


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({}, r"the keys \(none\)"),
        ({"file": 3}, "the keys file"),
        ((1, 2, 3), "a tuple of 3"),
        ((16_000, [0.0]), "a tuple of 2"),
    ],
)
def test_other_dictionaries_and_tuples_are_refused(source, match):
    with pytest.raises(TypeError, match=match):
        load_audio(source)


def test_several_sources_are_not_one():
    for sources in (["a.wav"], ("a.wav", "b.wav"), [SAMPLES], iter([FILE]), (SAMPLES, SAMPLES)):
        assert not is_source(sources)
    for source in ("a.wav", FILE, io.BytesIO(FILE), SAMPLES, memoryview(FILE)):
        assert is_source(source)
