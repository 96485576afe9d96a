"""A live voice gets the segments of the whole file, for ever, in the same memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audio_files import babble
from support.fakes import formula_classifier, voice_and_pauses
from support.models import loud_model, small_config

from emoser import EmotionClassifier, EmotionStream
from emoser.audio.microphone import Microphone, read_pcm
from emoser.checkpoints.save import save_model
from emoser.errors import AudioError, DependencyError, DeviceError

RATE = 16_000
PLAN = ((1.3, 0.1), (1.7, 0.0), (2.1, 0.4), (0.9, 0.003), (1.2, 0.05))


def cut(samples, sizes):
    """Blocks of the sizes, again and again."""
    start, place = 0, 0
    while start < len(samples):
        size = sizes[place % len(sizes)]
        yield samples[start : start + size]
        start, place = start + size, place + 1


@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 400),
    st.floats(0.1, 3.0),
    st.floats(0.05, 1.0),
    st.integers(10, 100_000),
    st.sampled_from(["energy", None]),
    st.sampled_from([16_000, 8_000, 44_100]),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_gives_the_segments_of_the_file(sizes, window, hop_share, length, vad, rate):
    samples = voice_and_pauses(PLAN)[:length]
    options = {"window_seconds": window, "hop_seconds": window * hop_share, "vad": vad}
    classifier = formula_classifier()
    timeline = classifier.timeline(samples, sampling_rate=rate, **options)
    stream = EmotionStream(classifier, sampling_rate=rate, **options)
    segments = list(stream.iterate(cut(samples, sizes)))
    assert [(s.start, s.end, s.name) for s in segments] == [
        (s.start, s.end, s.name) for s in timeline.segments
    ]
    for live, whole in zip(segments, timeline.segments, strict=True):
        assert dict(live.scores) == pytest.approx(dict(whole.scores), abs=1e-6)


def test_a_real_model_gives_the_same_live(tmp_path):
    folder = save_model(loud_model(small_config()), tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(folder, device="cpu")
    samples = voice_and_pauses(PLAN, rate=44_100)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    timeline = classifier.timeline(tmp_path / "a.wav", threshold=0)
    stream = EmotionStream(classifier, sampling_rate=44_100, threshold=0)
    segments = list(stream.iterate(cut(samples, [4410])))
    assert tuple(segments) == timeline.segments
    assert {segment.kind for segment in segments} == {"emotion", "silence"}


def test_segments_come_as_soon_as_they_have_ended():
    stream = EmotionStream(formula_classifier(), sampling_rate=RATE)
    samples = voice_and_pauses([(4, 0.1), (8, 0.0)])
    ended = []
    for block in cut(samples, [1600]):
        for segment in stream.push(block):
            ended.append((segment.kind, stream.seconds))
    assert {kind for kind, _ in ended} == {"emotion"}
    assert 4.0 < ended[-1][1] <= 4.0 + stream.delay_seconds + 0.6 + 1e-6
    assert stream.current.kind == "silence"
    assert stream.latest.scores == {}
    (last,) = stream.flush()
    assert (last.kind, last.end) == ("silence", 12.0)


def test_memory_does_not_grow_with_time():
    stream = EmotionStream(formula_classifier(), sampling_rate=48_000)
    block = voice_and_pauses([(1.0, 0.1)], rate=48_000)

    def listen(seconds):
        tracemalloc.reset_peak()
        for place in range(seconds):
            stream.push(block * np.float32(place % 7 != 0))
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        early = listen(60)
        late = max(listen(300), listen(300))
    finally:
        tracemalloc.stop()
    assert late < early + 100_000


def test_blocks_may_hold_integers_and_channels():
    samples = voice_and_pauses([(2, 0.1)])
    integers = (samples * 32767).astype(np.int16)
    stereo = np.stack([integers, integers], axis=1)
    flat = EmotionStream(formula_classifier(), sampling_rate=RATE)
    wide = EmotionStream(formula_classifier(), sampling_rate=RATE)
    assert list(flat.iterate([integers])) == list(wide.iterate([stereo]))


def test_a_stream_without_sound_has_no_segments():
    with EmotionStream(formula_classifier(), sampling_rate=RATE) as stream:
        assert stream.push(np.zeros(0, np.float32)) == []
        assert stream.flush() == []
        assert stream.current is None


def test_misuse_is_refused():
    stream = EmotionStream(formula_classifier(), sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3\)"):
        stream.push(np.zeros((1, 2, 3)))
    with pytest.raises(TypeError, match="bool"):
        stream.push(np.zeros(3, bool))
    stream.push(np.zeros(8000, np.float32))
    with pytest.raises(AudioError, match=r"block at 0\.500 s holds NaN"):
        stream.push(np.array([np.nan], np.float32))
    stream.flush()
    with pytest.raises(ValueError, match="has ended"):
        stream.push(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="has ended"):
        stream.flush()
    with pytest.raises(ValueError, match="sampling_rate is 0"):
        EmotionStream(formula_classifier(), sampling_rate=0)
    with pytest.raises(ValueError, match="hop_seconds"):
        EmotionStream(formula_classifier(), sampling_rate=RATE, hop_seconds=9)


class FakeInput:
    """sounddevice's InputStream, played by the test."""

    def __init__(self, **options):
        self.options = options
        self.closed = False

    def start(self):
        pass

    def close(self):
        self.closed = True

    def speak(self, value, *, overflow=False):
        size = self.options["blocksize"]
        block = np.full((size, 1), value, np.float32)
        self.options["callback"](block, size, None, SimpleNamespace(input_overflow=overflow))
        block[:] = np.nan  # the driver reuses its buffer


@pytest.fixture
def fake_sounddevice(monkeypatch):
    module = SimpleNamespace(InputStream=FakeInput, PortAudioError=RuntimeError)
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", module)
    return module


def test_lost_blocks_are_counted_and_become_silence(fake_sounddevice):
    with Microphone(sampling_rate=RATE) as microphone:
        driver = microphone._stream
        for _ in range(103):  # ten seconds wait, three blocks are lost
            driver.speak(0.5)
        blocks = iter(microphone)
        heard = [next(blocks) for _ in range(100)]
        driver.speak(0.25, overflow=True)
        filled, after = next(blocks), next(blocks)
    assert microphone.num_dropped == 4
    assert all((block == 0.5).all() for block in heard)
    assert (len(filled), float(np.abs(filled).max())) == (3 * 1600, 0.0)
    assert (after == 0.25).all()
    assert driver.closed


def test_no_microphone_is_one_sentence(fake_sounddevice, monkeypatch):
    def refuse(**options):
        raise RuntimeError("no default input")

    fake_sounddevice.InputStream = refuse
    with pytest.raises(DeviceError, match="no default input"):
        Microphone()
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", None)
    with pytest.raises(DependencyError, match=r"emoser\[live\]"):
        Microphone()


@pytest.mark.parametrize(("name", "dtype"), [("s16le", "<i2"), ("f32le", "<f4"), ("u8", "u1")])
def test_raw_sound_survives_any_cutting_of_the_pipe(name, dtype):
    values = np.arange(200, dtype=dtype).reshape(-1, 2)
    raw = values.tobytes()

    class Pipe:
        def __init__(self):
            self.place = 0

        def read(self, size):
            step = 1 + self.place % 7
            data = raw[self.place : self.place + min(step, size)]
            self.place += len(data)
            return data

    blocks = list(read_pcm(Pipe(), sampling_rate=RATE, sample_format=name, num_channels=2))
    np.testing.assert_array_equal(np.concatenate(blocks), values)
    with pytest.raises(ValueError, match="s24"):
        next(read_pcm(Pipe(), sampling_rate=RATE, sample_format="s24"))


def test_blocks_that_could_mean_two_things_are_refused():
    for shape in ((2, 50), (10, 2), (1, 2), (64, 64), (100, 100)):
        stream = EmotionStream(formula_classifier(), sampling_rate=RATE)
        with pytest.raises(ValueError, match="ambiguous"):
            stream.push(np.zeros(shape, np.float32))
    masked = np.ma.masked_array(np.zeros(800, np.float32), mask=np.arange(800) < 5)
    with pytest.raises(ValueError, match="5 masked values"):
        stream.push(masked)
    with pytest.raises(TypeError, match=r"block of bytes .* numpy\.frombuffer"):
        stream.push(bytes(1_600))
    for block in ("text", (16_000, np.zeros(800)), None, {"array": np.zeros(800)}):
        with pytest.raises(TypeError, match="pass a NumPy array of samples"):
            stream.push(block)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_first_long_block_shows_where_the_channels_are(axis):
    stereo = babble(16_000, 2.0, channels=2)
    results = []
    for samples in (stereo.mean(axis=1), stereo if axis else stereo.T):
        stream = EmotionStream(formula_classifier(), sampling_rate=RATE)
        for start, stop in ((0, 800), (800, 802), (802, 803), (803, 32_000)):
            block = samples[start:stop] if samples.ndim == 1 or axis else samples[:, start:stop]
            stream.push(block)
        results.append((stream.seconds, stream.flush()))
    assert results[0] == results[1]
    other = EmotionStream(formula_classifier(), sampling_rate=RATE)
    other.push(np.zeros((800, 2), np.float32))
    with pytest.raises(ValueError, match=r"follows blocks of shape \(n, 2\)"):
        other.push(np.zeros((800, 3), np.float32))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_refused_with_the_call_that_reads_them(kind):
    stream = EmotionStream(formula_classifier(), sampling_rate=16_000)
    with pytest.raises(TypeError, match=r"numpy\.frombuffer\(block, numpy\.int16\)"):
        stream.push(kind(b"\0\0" * 1600))
    assert stream.seconds == 0
