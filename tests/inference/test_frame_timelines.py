"""Timelines of models that answer for frames, or in dimensions: fine cells, and values."""

import csv
import io
import json
import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import formula_classifier, voice_and_pauses
from support.models import loud_model, small_config
from support.reference_checkpoints import CASES

from emoser import EmotionClassifier, EmotionStream
from emoser.checkpoints.save import save_model
from emoser.inference.scoring import CELL_SECONDS, Scorer, WindowScorer
from emoser.inference.segmentation import Segmenter, SegmentRules
from emoser.inference.vad import SpeechRegion
from emoser.models.config import ModelConfig
from emoser.results.plots import plot_timeline
from emoser.runtimes import InferenceOutput, OpenedModel

RATE = 16_000
STEP = 320
PLAN = ((1.3, 0.1), (1.7, 0.0), (2.1, 0.4), (0.9, 0.003), (1.2, 0.05))


class LoudFrames:
    """Frames whose probabilities follow how loud they and their piece are."""

    batch_seconds = None
    group_size = 1

    def infer_frames(self, samples):
        count = max(1, (len(samples) - 80) // STEP)
        padded = np.pad(samples, (0, max(0, count * STEP - len(samples))))
        loud = np.abs(padded[: count * STEP]).reshape(count, STEP).mean(axis=1) * 5
        sad = 1 / (1 + np.exp(4 * (loud - 2 * np.abs(samples).mean())))
        return np.stack([sad, 1 - sad], axis=1).astype(np.float32)

    def infer(self, recordings):
        rows = [np.log(self.infer_frames(item).mean(axis=0)) for item in recordings]
        return InferenceOutput(np.stack(rows), np.stack(rows))


def frame_classifier(runtime=None):
    config = ModelConfig(labels=("sad", "angry"), pooling="frames", frame_seconds=0.02)
    info = formula_classifier().info
    return EmotionClassifier(OpenedModel(runtime or LoudFrames(), config, info))


@pytest.fixture(scope="module")
def frame_model(tmp_path_factory):
    changes = {"pooling": "frames", "frame_seconds": 0.02, "output_norm": True}
    model = loud_model(small_config(), **changes)
    folder = save_model(model, tmp_path_factory.mktemp("frames") / "model")
    return model, EmotionClassifier.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def dimensional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dimensions") / "model"
    CASES["audEERING dimensions"](folder)
    return EmotionClassifier.from_pretrained(folder, device="cpu", backend="torch")


def cut(samples, sizes):
    start, place = 0, 0
    while start < len(samples):
        size = sizes[place % len(sizes)]
        yield samples[start : start + size]
        start, place = start + size, place + 1


def assert_stream_is_file(classifier, samples, sizes, **options):
    """The segments and the last window of a stream are those of the file."""
    timeline = classifier.timeline(samples, sampling_rate=RATE, **options)
    stream = EmotionStream(classifier, sampling_rate=RATE, **options)
    segments = list(stream.iterate(cut(samples, sizes)))
    assert [(s.start, s.end, s.name) for s in segments] == [
        (s.start, s.end, s.name) for s in timeline.segments
    ]
    for live, whole in zip(segments, timeline.segments, strict=True):
        assert dict(live.scores) == pytest.approx(dict(whole.scores), abs=1e-6)
        assert (live.dimensions or {}) == pytest.approx(whole.dimensions or {}, abs=1e-6)
    assert stream.latest == timeline.windows[-1]
    return timeline


def test_cells_are_the_mean_of_the_frames_that_the_model_gives(frame_model):
    model, classifier = frame_model
    samples = voice_and_pauses([(2.0, 0.1), (1.5, 0.3), (1.93, 0.02)])
    timeline = classifier.timeline(samples, sampling_rate=RATE, vad=None)
    starts = [0, RATE, 2 * RATE, len(samples) - 3 * RATE]
    borders = [(left + right) // 2 + 3 * RATE // 2 for left, right in pairwise(starts)]
    with torch.inference_mode():
        frames = [
            model.classify_frames(torch.from_numpy(samples[start : start + 3 * RATE])[None])
            .logits[0].softmax(-1).numpy()
            for start in starts
        ]  # fmt: skip
    for window in timeline.windows:
        left, right = round(window.start * RATE), round(window.end * RATE)
        place = sum(border <= left for border in borders)
        middles = starts[place] + (np.arange(len(frames[place])) + 0.5) * STEP
        chosen = frames[place][(middles >= left) & (middles < right)]
        assert len(chosen) in (8, 9, 10, 11)
        np.testing.assert_allclose(
            list(window.scores.values()), chosen.mean(axis=0), atol=1e-5, rtol=0
        )
    lengths = [window.end - window.start for window in timeline.windows]
    assert lengths == pytest.approx([CELL_SECONDS] * len(lengths), rel=0.15)


def test_a_real_frame_model_gives_the_same_live(frame_model):
    samples = voice_and_pauses(PLAN)
    timeline = assert_stream_is_file(frame_model[1], samples, [1600, 700], threshold=0)
    assert {"emotion", "silence"} <= {segment.kind for segment in timeline.segments}


@given(
    st.lists(st.sampled_from([160, 512, 1600, 3200, 7001]), min_size=1, max_size=3),
    st.floats(0.1, 3.0),
    st.floats(0.05, 1.0),
    st.integers(10, 100_000),
    st.sampled_from(["energy", None]),
)
@settings(max_examples=40, deadline=None)
def test_cells_cover_the_recording_and_a_stream_is_the_file(sizes, window, hop_share, length, vad):
    samples = voice_and_pauses(PLAN)[:length]
    options = {"window_seconds": window, "hop_seconds": window * hop_share, "vad": vad}
    classifier = frame_classifier()
    timeline = assert_stream_is_file(classifier, samples, sizes, smoothing=0, **options)
    assert timeline.windows[0].start == timeline.segments[0].start == 0
    assert timeline.windows[-1].end == timeline.segments[-1].end == timeline.duration
    for stretches in (timeline.windows, timeline.segments):
        for before, after in pairwise(stretches):
            assert before.start < before.end == after.start
    assert max(item.end - item.start for item in timeline.windows) < 1.5 * CELL_SECONDS + 1e-4


@pytest.mark.parametrize("stop", [7999, 8000, 8001])
def test_speech_that_is_known_up_to_the_end_of_a_cell_may_go_on(stop):
    segmenter = Segmenter(SegmentRules(("happy", "sad"), smoothing=0))
    for window, sad in ((slice(0, 4800), 0), (slice(4800, 8000), 1), (slice(8000, 12800), 1)):
        segmenter.add_window(window, [1 - sad, sad])
    segmenter.add_speech(SpeechRegion(0, stop, True))
    segments = list(segmenter.settle())
    segmenter.add_speech(SpeechRegion(stop, 12_800, True))
    segments += [*segmenter.settle(), *segmenter.finish()]
    assert [(item.end, item.label) for item in segments] == [(0.3, "happy"), (0.8, "sad")]


def test_frames_separate_turns_that_one_window_mixes():
    samples = voice_and_pauses([(1.0, 0.02), (0.8, 0.8), (1.2, 0.02)])
    timeline = frame_classifier().timeline(samples, sampling_rate=RATE)
    assert [segment.label for segment in timeline.segments] == ["sad", "angry", "sad"]
    assert timeline.segments[1].start == pytest.approx(1.0, abs=CELL_SECONDS)
    assert timeline.segments[1].end == pytest.approx(1.8, abs=CELL_SECONDS)


def test_an_engine_without_frames_gives_whole_windows():
    class Whole:
        batch_seconds = None
        group_size = 1
        infer = staticmethod(LoudFrames().infer)

    timeline = frame_classifier(Whole()).timeline(voice_and_pauses([(5, 0.1)]), sampling_rate=RATE)
    assert [(item.start, item.end) for item in timeline.windows] == [(0, 3), (1, 4), (2, 5)]


def test_the_cells_of_three_hours_stay_within_fifty_mebibytes():
    labels = tuple("abcdefgh")
    scorer = Scorer(
        runtime=LoudFrames(),
        to_scores=lambda logits: [float(value) for value in np.exp(logits)],
        to_dimensions=lambda logits: None,
        labels=labels,
        dimensions=(),
        sampling_rate=RATE,
        model="",
        frame_seconds=0.02,
    )
    generator = np.random.default_rng(0)
    frames = generator.dirichlet(np.ones(len(labels)), 149).astype(np.float32)
    window_scorer = WindowScorer(scorer)
    tracemalloc.start()
    try:
        shown = []
        for second in range(0, 3 * 360 - 2):  # a tenth of three hours
            piece = slice(second * RATE, (second + 3) * RATE)
            shown += [scored.shown for scored in window_scorer.add(piece, frames)]
        shown += [scored.shown for scored in window_scorer.finish()]
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(shown) == 3 * 360 * 5
    assert 10 * used < 50 * 2**20


def test_dimensions_alone_make_a_timeline_of_speech_and_silence(dimensional, tmp_path):
    samples = voice_and_pauses([(4, 0.1), (5, 0.0), (4, 0.3)])
    timeline = assert_stream_is_file(dimensional, samples, [1600])
    assert timeline.labels == ()
    assert timeline.dimensions == dimensional.dimensions == ("arousal", "dominance", "valence")
    assert [(item.kind, item.label) for item in timeline.segments] == [
        ("speech", None),
        ("silence", None),
        ("speech", None),
    ]
    for window in timeline.windows:
        piece = samples[round(window.start * RATE) : round(window.end * RATE)]
        assert window.scores == {}
        if window.dimensions is None:
            assert not piece.any()
            continue
        alone = dimensional.predict(piece, sampling_rate=RATE).dimensions
        assert list(window.dimensions) == list(alone)
        assert window.dimensions == pytest.approx(alone, abs=1e-6)
    values = json.loads(json.dumps(timeline.to_dict()))
    assert values["dimensions"] == ["arousal", "dominance", "valence"]
    assert values["segments"][0]["dimensions"] == timeline.segments[0].dimensions
    assert values["segments"][1]["dimensions"] is None
    rows = list(csv.DictReader(io.StringIO(timeline.to_csv())))
    assert [row["kind"] for row in rows] == ["speech", "silence", "speech"]
    arousal = timeline.segments[0].dimensions["arousal"]
    assert float(rows[0]["arousal"]) == pytest.approx(arousal, abs=1e-6)
    assert rows[1]["arousal"] == ""
    assert "arousal" in str(timeline)
    assert timeline.shares()["speech"] > 0.5
    names = [segment.name for segment in timeline.segments]
    assert all(left != right for left, right in pairwise(names))


def test_segments_hold_the_mean_of_the_dimensions(dimensional):
    samples = voice_and_pauses([(2, 0.1), (2, 0.3)])
    timeline = dimensional.timeline(
        samples, sampling_rate=RATE, vad=None, window_seconds=2, hop_seconds=2
    )
    (segment,) = timeline.segments
    first, second = (window.dimensions for window in timeline.windows)
    for name, value in segment.dimensions.items():
        assert value == pytest.approx((first[name] + second[name]) / 2)


def test_pictures_of_dimensions_are_drawn(dimensional, tmp_path):
    pytest.importorskip("matplotlib")
    samples = voice_and_pauses([(4, 0.1), (5, 0.0), (4, 0.3)])
    timeline = dimensional.timeline(samples, sampling_rate=RATE)
    figure = plot_timeline(timeline)
    lowest = figure.axes[2]
    assert len(lowest.patches) == 3  # a line per dimension
    top = max(max(item.dimensions.values()) for item in timeline.windows if item.dimensions)
    assert lowest.get_ylim()[1] >= top
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["arousal", "dominance", "valence"]
    timeline.plot(tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 10_000
    assert "speech" in timeline._repr_html_()


def test_labels_and_dimensions_come_together(tmp_path):
    model = loud_model(small_config(), dimensions=("valence", "arousal"))
    classifier = EmotionClassifier.from_pretrained(
        save_model(model, tmp_path / "m"), device="cpu", backend="torch"
    )
    samples = voice_and_pauses([(5, 0.1)])
    timeline = classifier.timeline(samples, sampling_rate=RATE, vad=None, threshold=0)
    alone = classifier.predict(samples[: 3 * RATE], sampling_rate=RATE)
    assert timeline.windows[0].dimensions == pytest.approx(alone.dimensions, abs=1e-6)
    assert dict(timeline.windows[0].scores) == pytest.approx(dict(alone.scores), abs=1e-6)
    assert math.isclose(sum(timeline.segments[0].scores.values()), 1.0, abs_tol=1e-9)
    assert list(timeline.segments[0].dimensions) == ["arousal", "valence"]
    header = timeline.to_csv().splitlines()[0]
    assert header.endswith("neutral,happy,angry,sad,arousal,valence")
