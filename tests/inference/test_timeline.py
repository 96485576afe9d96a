"""Timelines: every moment has its segment, silence is silence, and channels stay apart."""

import dataclasses
import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import LABELS, FormulaRuntime, formula_classifier, voice_and_pauses
from support.models import loud_model, random_clips, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model
from emoser.errors import AudioError, DependencyError
from emoser.inference.silero import SileroDetector
from emoser.inference.vad import EnergyDetector, SpeechSmoother

RATE = 16_000
PLANS = st.lists(
    st.tuples(st.floats(0.01, 2.5), st.sampled_from([0.0, 0.01, 0.1, 0.5])), min_size=1, max_size=6
)


@given(PLANS, st.floats(0.1, 2.0), st.floats(0.05, 1.0), st.sampled_from(["energy", None]))
@settings(max_examples=60, deadline=None)
def test_windows_and_segments_cover_every_sample_in_order(plan, window, hop_share, vad):
    samples = voice_and_pauses(plan)
    timeline = formula_classifier().timeline(
        samples, sampling_rate=RATE, window_seconds=window, hop_seconds=window * hop_share, vad=vad
    )
    assert timeline.duration == len(samples) / RATE
    assert timeline.windows[0].start == 0
    assert timeline.windows[-1].end == timeline.duration
    for before, after in zip(timeline.windows, timeline.windows[1:], strict=False):
        assert before.start < after.start <= before.end
    assert timeline.segments[0].start == 0
    assert timeline.segments[-1].end == timeline.duration
    for before, after in zip(timeline.segments, timeline.segments[1:], strict=False):
        assert before.end == after.start
        assert (before.kind, before.label) != (after.kind, after.label)
    for segment in timeline.segments:
        assert segment.start < segment.end
        if segment.kind != "silence":
            assert sum(segment.scores.values()) == pytest.approx(1.0)
    if vad is None:
        assert all(segment.kind != "silence" for segment in timeline.segments)
        assert all(window.scores for window in timeline.windows)


def test_silence_is_found_where_it_is_and_not_given_to_the_model():
    samples = voice_and_pauses([(4, 0.1), (5, 0.0), (4, 0.1)])
    runtime = FormulaRuntime()
    timeline = formula_classifier(runtime).timeline(samples, sampling_rate=RATE)
    kinds = [kind for kind, _ in groupby(segment.kind for segment in timeline.segments)]
    assert kinds == ["emotion", "silence", "emotion"]
    (pause,) = (segment for segment in timeline.segments if segment.kind == "silence")
    assert pause.start == pytest.approx(4.0, abs=0.15)
    assert pause.end == pytest.approx(9.0, abs=0.15)
    silent = [window for window in timeline.windows if not window.scores]
    assert [(window.start, window.end) for window in silent] == [(4, 7), (5, 8), (6, 9)]
    assert runtime.num_inferred == len(timeline.windows) - len(silent)


def test_a_breath_between_words_is_no_silence():
    samples = voice_and_pauses([(2, 0.1), (0.3, 0.0), (2, 0.1), (0.02, 0.0)])
    timeline = formula_classifier().timeline(samples, sampling_rate=RATE)
    assert [segment.kind for segment in timeline.segments] == ["emotion"]


def test_steady_noise_is_learnt_as_the_floor():
    noise = voice_and_pauses([(30, 0.003)])  # -50 dBFS
    flags = EnergyDetector().detect(noise[: len(noise) // 512 * 512].reshape(-1, 512))
    assert flags[:30].all()
    assert not flags[-300:].any()


def test_speech_runs_swallow_clicks():
    flags = np.zeros(100, bool)
    flags[50:52] = True
    smoother = SpeechSmoother(512)
    runs = [*smoother.push(flags), *smoother.flush(100 * 512)]
    assert {run.speaking for run in runs} == {False}
    assert runs[0].start == 0
    assert runs[-1].stop == 100 * 512


def test_smoothing_keeps_an_emotion_that_is_barely_behind():
    samples = voice_and_pauses([(1, level) for level in (0.05, 0.065) * 8])
    restless = formula_classifier().timeline(
        samples, sampling_rate=RATE, window_seconds=1, hop_seconds=1, smoothing=0, threshold=0
    )
    calm = formula_classifier().timeline(
        samples, sampling_rate=RATE, window_seconds=1, hop_seconds=1, smoothing=0.3, threshold=0
    )
    assert len(restless.segments) > len(calm.segments) == 1


def test_what_is_not_probable_enough_is_uncertain():
    samples = voice_and_pauses([(5, 0.1)])
    timeline = formula_classifier().timeline(samples, sampling_rate=RATE, threshold=1.0)
    assert [segment.kind for segment in timeline.segments] == ["uncertain"]
    assert timeline.segments[0].label is None
    assert timeline.segments[0].scores


def test_each_channel_is_processed_separately():
    left = voice_and_pauses([(3, 0.1), (4, 0.0)])
    right = voice_and_pauses([(3, 0.0), (4, 0.3)], seed=1)
    classifier = formula_classifier()
    both = classifier.timeline(np.stack([left, right]), sampling_rate=RATE, channel="each")
    assert both.channels == (0, 1)
    for part, samples in zip(both.per_channel(), (left, right), strict=True):
        alone = classifier.timeline(samples, sampling_rate=RATE)
        expected = [(item.start, item.end, item.name, item.scores) for item in alone.segments]
        assert [(i.start, i.end, i.name, i.scores) for i in part.segments] == expected
        assert len(part.windows) == len(alone.windows)
    assert alone.per_channel() == [alone]


def test_windows_are_what_the_model_says_about_them_alone(tmp_path):
    folder = save_model(loud_model(small_config()), tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(folder, device="cpu")
    (samples,) = random_clips([5 * RATE])
    timeline = classifier.timeline(samples, sampling_rate=RATE, window_seconds=2, vad=None)
    for window in timeline.windows:
        piece = samples[round(window.start * RATE) : round(window.end * RATE)]
        alone = classifier.predict(piece, sampling_rate=RATE)
        assert dict(window.scores) == pytest.approx(dict(alone.scores), abs=1e-6)
    mapped = EmotionClassifier.from_pretrained(folder, device="cpu", labels="valence3")
    assert mapped.timeline(samples, sampling_rate=RATE).labels == mapped.labels


def test_one_window_says_what_predict_says(tmp_path):
    samples = voice_and_pauses([(2, 0.1)])
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    classifier = formula_classifier()
    timeline = classifier.timeline(tmp_path / "a.wav")
    whole = classifier.predict(tmp_path / "a.wav")
    assert len(timeline.windows) == whole.num_windows == 1
    assert dict(timeline.windows[0].scores) == pytest.approx(dict(whole.scores))
    assert timeline.source == whole.source
    assert timeline.segments[0].label == whole.label


def test_predict_joins_the_windows_of_a_long_recording_by_their_length():
    samples = voice_and_pauses([(2, 0.05), (1, 0.3)])
    classifier = formula_classifier(max_seconds=2.0)
    whole = classifier.predict(samples, sampling_rate=RATE)
    first = classifier.predict(samples[: 2 * RATE], sampling_rate=RATE)
    last = classifier.predict(samples[RATE:], sampling_rate=RATE)
    assert whole.num_windows == 2
    for label in LABELS:
        expected = (first.scores[label] + last.scores[label]) / 2
        assert whole.scores[label] == pytest.approx(expected)


def test_a_timeline_is_plain_and_frozen():
    timeline = formula_classifier().timeline(voice_and_pauses([(4, 0.1)]), sampling_rate=RATE)
    values = json.loads(json.dumps(timeline.to_dict()))
    assert [len(values["windows"]), len(values["segments"])] == [2, 1]
    assert values["duration"] == 4.0
    assert sum(timeline.shares().values()) == pytest.approx(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        timeline.duration = 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_seconds": 31.0}, r"window_seconds is 31.0; this model takes 0.1 to 30 s"),
        ({"window_seconds": 0.01}, "window_seconds is 0.01"),
        ({"hop_seconds": 3.5}, "hop_seconds is 3.5"),
        ({"hop_seconds": 0.0}, "hop_seconds is 0.0"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"vad": "webrtc"}, "vad is 'webrtc'"),
        ({"channel": 3}, "channel 3 is not there"),
        ({"sampling_rate": None}, "sampling_rate is required"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(options, message):
    arguments = {"sampling_rate": RATE, **options}
    with pytest.raises(ValueError, match=message):
        formula_classifier().timeline(np.ones(RATE, np.float32), **arguments)


def test_a_recording_that_breaks_off_is_an_error(tmp_path):
    samples = voice_and_pauses([(3, 0.1)])
    samples[40_000] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        formula_classifier().timeline(samples, sampling_rate=RATE)


def test_a_pipe_cannot_be_read_once_per_channel():
    class Pipe:
        def read(self, size=-1):
            return b""

    with pytest.raises(ValueError, match="read only once"):
        formula_classifier().timeline(Pipe(), channel="each")


def test_silero_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("emoser.inference.silero.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"emoser\[vad\]"):
        formula_classifier().timeline(np.ones(RATE, np.float32), sampling_rate=RATE, vad="silero")


@pytest.mark.data
def test_silero_finds_speech_in_speech_and_none_in_noise(speech_data):
    if find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed")

    file = speech_data / "ravdess/Actor_01/03-01-05-02-01-01-01.flac"
    samples, _ = soundfile.read(file, dtype="float32")
    frames = samples[: len(samples) // 512 * 512].reshape(-1, 512)
    whole = SileroDetector(RATE).probabilities(frames)
    detector = SileroDetector(RATE)
    parts = np.concatenate([detector.probabilities(frames[i : i + 7]) for i in range(0, 128, 7)])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert 0.3 < (whole > 0.5).mean() < 0.7
    noise = voice_and_pauses([(2.048, 0.05)]).reshape(-1, 512)
    assert SileroDetector(RATE).detect(noise).mean() < 0.05


@pytest.mark.data
def test_composed_recordings_are_mostly_right(speech_data):
    path = Path(__file__).parents[2] / "examples" / "benchmarks" / "composed.py"
    spec = spec_from_file_location("composed", path)
    composed = module_from_spec(spec)
    spec.loader.exec_module(composed)
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu")
    unheard = [("nemo", "KS0"), ("nemo", "KD0")]
    unheard += [("ravdess", name) for name in ("16", "17", "18")]
    shares = []
    for (corpus, speaker), draw in product(unheard, range(4)):
        samples, truth = composed.compose(speech_data, corpus, speaker, draw)
        timeline = classifier.timeline(samples, sampling_rate=RATE)
        shares.append(composed.share_right(timeline, truth))
    right, silence = np.mean(shares, axis=0)
    assert right > 0.65
    assert silence > 0.9
