"""Paths, bytes, file objects, arrays and tensors: what is taken, and how the rest is refused."""

import io
import os
import pickle
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soxr
from support.audio_files import babble, encode, read_recording

from emoser.audio import AudioBlocks, AudioLimits, describe_source, load_audio
from emoser.audio.reader import ByteReader
from emoser.errors import AudioError

FILE = encode(babble(16_000), 16_000, "WAV", "FLOAT")


class Pipe(io.RawIOBase):
    """A stream that can only be read forwards, a few bytes at a time."""

    def __init__(self, data):
        self._file = io.BytesIO(data)
        self.num_read = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._file.read(min(len(buffer), 4_000))
        buffer[: len(data)] = data
        self.num_read += len(data)
        return len(data)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO, Pipe])
def test_bytes_and_streams_work_like_paths(make):
    assert np.array_equal(load_audio(make(FILE)), babble(16_000))


def test_a_member_of_a_zip_archive_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "calls.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("call.wav", FILE)
    with zipfile.ZipFile(tmp_path / "calls.zip") as archive, archive.open("call.wav") as member:
        recording = read_recording(member)
    assert np.array_equal(recording.samples, babble(16_000))
    assert recording.name == "call.wav"


def test_a_file_object_is_read_from_where_it_stands_and_put_back(tmp_path):
    path = tmp_path / "package"
    path.write_bytes(b"header" + FILE)
    with path.open("rb") as file:
        file.seek(6)
        assert np.array_equal(load_audio(file), babble(16_000))
        assert file.tell() == 6
        assert not file.closed
        file.seek(0, os.SEEK_END)
        with pytest.raises(AudioError, match=r"seek\(0\)"):
            load_audio(file)
    with path.open("r", errors="replace") as text, pytest.raises(TypeError, match="mode 'rb'"):
        load_audio(text)


def test_standard_input_is_read(tmp_path):
    code = (
        "import sys; from emoser.audio import load_audio; print(len(load_audio(sys.stdin.buffer)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=FILE, capture_output=True, check=True, timeout=60
    )
    assert run.stdout.strip() == b"16000"


def test_an_endless_stream_of_noise_is_refused_at_once():
    pipe = Pipe(np.random.default_rng(0).bytes(10_000_000))
    with pytest.raises(AudioError, match="unknown data"):
        load_audio(pipe)
    assert pipe.num_read < 10_000_000


def test_a_stream_is_copied_up_to_the_limit_only():
    pipe = Pipe(FILE + bytes(9_000_000))
    with pytest.raises(AudioError, match="larger than 100000 bytes"):
        load_audio(pipe, limits=AudioLimits(max_bytes=100_000))
    assert pipe.num_read < 3_000_000


def test_what_the_system_cannot_read_is_an_error_of_both_kinds(tmp_path):
    (tmp_path / "file").touch()
    cases = [
        (tmp_path / "nowhere.wav", FileNotFoundError, "does not exist; check the path"),
        (tmp_path / "file" / "a.wav", OSError, "does not exist; check the path"),
        (tmp_path, IsADirectoryError, "is a folder"),
        ("a" * 5_000, OSError, r"a\.\.\. cannot be read \(.*name too long"),
        ("a\0.wav", ValueError, "is no path"),
    ]
    for path, builtin, match in cases:
        with pytest.raises(builtin, match=match) as caught:
            load_audio(path)
        assert isinstance(caught.value, AudioError)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy)) == (type(caught.value), str(caught.value))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_keeps_pythons_own_error(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(FILE)
    path.chmod(0)
    with pytest.raises(PermissionError):
        load_audio(path)


def test_a_denied_open_keeps_pythons_own_error(tmp_path, monkeypatch):
    path = tmp_path / "secret.wav"
    path.write_bytes(FILE)

    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(PermissionError):
        load_audio(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_pipes_sockets_and_devices_are_refused_without_hanging(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))  # names of sockets must be short
        sources = [tmp_path / "fifo", tmp_path / "socket"]
        if os.path.exists("/dev/zero") and stat.S_ISCHR(os.stat("/dev/zero").st_mode):
            sources.append(Path("/dev/zero"))
        for source in sources:
            with pytest.raises(AudioError, match="not a regular file"):
                load_audio(source)


@pytest.mark.parametrize("name", ["ça va 😀.wav", "-rf.wav", "two\nlines.wav", "a" * 200 + ".wav"])
def test_any_file_name_works(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FILE)
    assert len(load_audio(path)) == len(load_audio(str(path))) == 16_000
    assert read_recording(path).name == str(path)
    assert "\n" not in describe_source(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of plain bytes")
def test_a_path_that_is_no_text_works(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    with open(path, "wb") as file:
        file.write(FILE)
    assert len(load_audio(path)) == 16_000
    assert describe_source(path).isprintable()


def test_a_path_longer_than_255_bytes_works(tmp_path):
    folder = tmp_path / ("d" * 150) / ("e" * 150)
    folder.mkdir(parents=True)
    (folder / "call.wav").write_bytes(FILE)
    assert len(load_audio(folder / "call.wav")) == 16_000


def test_nothing_is_written_beside_the_file(tmp_path):
    path = tmp_path / "call.wav"
    path.write_bytes(FILE)
    load_audio(path)
    assert [item.name for item in tmp_path.iterdir()] == ["call.wav"]
    assert path.read_bytes() == FILE


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.wav", "https://a/b.wav", "file:///a.wav"])
def test_urls_are_refused(url):
    with pytest.raises(AudioError, match="download it first"):
        load_audio(url)


@pytest.mark.parametrize("source", [[0.0, 0.1], None, 3, object()])
def test_other_things_are_no_source(source):
    with pytest.raises(TypeError, match="a path, bytes, a binary file object"):
        load_audio(source)


def test_decoders_read_a_whole_file_of_ours_without_calling_back(tmp_path):
    (tmp_path / "clip").write_bytes(b"0123456789")
    with (tmp_path / "clip").open("rb") as file:
        assert ByteReader(file).take_descriptor() is None
        assert ByteReader(file, start=1, own=True).take_descriptor() is None
        reader = ByteReader(file, own=True)
        assert reader.read_at(4, 2) == b"45"
        if os.name == "posix":
            assert os.read(reader.take_descriptor(), 3) == b"012"
        reader.patch(1, b"ab")
        assert reader.take_descriptor() is None
        target = bytearray(4)
        assert reader.seek(0) == 0
        assert (reader.readinto(target), bytes(target)) == (4, b"0ab3")


def test_threads_read_at_the_same_time(tmp_path):
    path = tmp_path / "call.flac"
    path.write_bytes(encode(babble(44_100), 44_100, "FLAC"))
    expected, results = load_audio(path), []
    threads = [threading.Thread(target=lambda: results.append(load_audio(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, expected) for result in results)
    assert len(results) == 8


# Arrays


def test_an_array_must_state_its_rate():
    with pytest.raises(ValueError, match=r"required .* shape \(16000,\); pass sampling_rate=16000"):
        load_audio(babble(16_000))
    with pytest.raises(TypeError, match="whole number of Hz"):
        load_audio(babble(16_000), sampling_rate=16000.0)
    with pytest.raises(ValueError, match="1000 to 768000 Hz"):
        load_audio(babble(16_000), sampling_rate=999)


@pytest.mark.parametrize(
    ("dtype", "zero", "scale"),
    [
        ("int16", 0, 2**15),
        ("<i2", 0, 2**15),
        (">i2", 0, 2**15),
        ("int32", 0, 2**31),
        ("u1", 128, 128),
        ("i1", 0, 128),
    ],
)
def test_integers_are_scaled_by_their_full_scale(dtype, zero, scale):
    values = (np.array([-1.0, -0.5, 0.0, 0.5] * 200) * scale + zero).astype(dtype)
    assert np.array_equal(load_audio(values, sampling_rate=16_000)[:4], [-1, -0.5, 0, 0.5])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_are_taken_as_they_are(dtype):
    values = babble(16_000).astype(dtype)
    assert np.array_equal(load_audio(values, sampling_rate=16_000), values.astype("float32"))


def test_64_bit_integers_are_16_bit_samples_or_refused():
    values = (babble(16_000) * 32_767).astype(np.int16)
    expected = load_audio(values, sampling_rate=16_000)
    assert np.array_equal(load_audio(values.astype(np.int64), sampling_rate=16_000), expected)
    with pytest.raises(ValueError, match="int64 numbers beyond 16 bits"):
        load_audio(values.astype(np.int64) * 8, sampling_rate=16_000)


def test_masked_samples_are_refused():
    values = np.ma.masked_array(babble(16_000), mask=np.zeros(16_000, bool))
    assert np.array_equal(load_audio(values, sampling_rate=16_000), babble(16_000))
    values[100:110] = np.ma.masked
    with pytest.raises(ValueError, match="10 masked values"):
        load_audio(values, sampling_rate=16_000)
    assert len(load_audio(values.filled(0), sampling_rate=16_000)) == 16_000


@pytest.mark.parametrize("dtype", ["bool", "object", "complex64", "uint16", "uint64", "U5"])
def test_other_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match="float32, float64, int8, int16"):
        load_audio(np.zeros(1000).astype(dtype), sampling_rate=16_000)


def test_the_channel_axis_is_found_by_its_size():
    stereo = babble(16_000, channels=2)
    expected = stereo.mean(axis=1)
    for values in (stereo, stereo.T, np.asfortranarray(stereo)):
        assert np.allclose(load_audio(values, sampling_rate=16_000), expected, atol=1e-7)
    for shape in ((500, 1), (1, 500), (10, 1), (1, 10)):
        samples = load_audio(np.ones(shape, "f4"), sampling_rate=16_000)
        assert len(samples) == max(shape)


@pytest.mark.parametrize("shape", [(2, 50), (64, 64), (100, 100), (2, 2, 100), ()])
def test_an_uncertain_layout_is_refused(shape):
    with pytest.raises(ValueError, match="array of shape"):
        load_audio(np.zeros(shape, "f4"), sampling_rate=16_000)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2)])
def test_an_array_without_samples_is_refused(shape):
    with pytest.raises(AudioError, match="no samples"):
        load_audio(np.zeros(shape, "f4"), sampling_rate=16_000)


def test_the_callers_array_is_never_changed():
    values = babble(16_000).copy()
    before = values.copy()
    with AudioBlocks(values, sampling_rate=16_000, block_seconds=0.3) as blocks:
        for block in blocks:
            block[:] = 7
    load_audio(values, sampling_rate=16_000)[:] = 7
    assert np.array_equal(values, before)


def test_read_only_and_strided_arrays_work():
    values = babble(16_000)  # read-only
    assert np.array_equal(load_audio(values[::-1], sampling_rate=16_000), values[::-1])
    assert np.array_equal(
        load_audio(values[::2], sampling_rate=8_000),
        soxr.resample(np.ascontiguousarray(values[::2]), 8_000, 16_000, quality="HQ"),
    )


def test_a_sampling_rate_is_ignored_for_files():
    assert np.array_equal(load_audio(FILE, sampling_rate=8_000), babble(16_000))


def test_tensors_work_like_arrays():
    torch = pytest.importorskip("torch")
    values = babble(16_000)
    tensor = torch.tensor(values)
    whole = load_audio(tensor.clone().requires_grad_(), sampling_rate=16_000)
    assert np.array_equal(whole, values)
    assert np.allclose(load_audio(tensor.bfloat16(), sampling_rate=16_000), values, atol=4e-3)
    assert np.array_equal(load_audio(tensor[None], sampling_rate=16_000), values)
    assert describe_source(tensor) == "tensor of shape (16000,)"
    with pytest.raises(ValueError, match="sampling_rate is required"):
        load_audio(tensor)


@pytest.mark.gpu
def test_tensors_on_a_gpu_work_like_arrays():
    import torch

    tensor = torch.tensor(babble(16_000), device="cuda", requires_grad=True)
    assert np.array_equal(load_audio(tensor, sampling_rate=16_000), babble(16_000))


def test_audio_never_imports_torch():
    code = (
        "import sys, emoser.audio as a, numpy as np;"
        "a.load_audio(np.zeros(9000, 'f4'), sampling_rate=16000);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'av', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
