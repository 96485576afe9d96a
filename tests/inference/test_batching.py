"""Groups of recordings are heard side by side: in order, in bounded memory, and soon."""

import io
import threading
import time
import zlib
from contextvars import ContextVar

import numpy as np
import pytest
from support.fakes import FormulaRuntime, formula_classifier
from support.models import random_clips

from emoser.errors import AudioError, EmoserError
from emoser.inference.batching import SHORT_SAMPLES

RATE = 16_000


class GroupRuntime(FormulaRuntime):
    """The formula, for groups, with a note of every call."""

    group_size = 4

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.calls = []
        self.seconds = seconds

    def infer(self, recordings):
        self.calls.append(len(recordings))
        time.sleep(self.seconds)
        return super().infer(recordings)


@pytest.fixture
def clips():
    return random_clips([16_000, 400, 9_000, 32_000, 5_000] * 5)


def predict(runtime, sources, **options):
    classifier = formula_classifier(runtime)
    return list(classifier.iter_predictions(sources, sampling_rate=RATE, **options))


def test_groups_give_the_answers_of_single_recordings_in_their_order(clips):
    runtime = GroupRuntime(seconds=0.005)
    assert predict(runtime, clips) == predict(None, clips)
    assert sum(runtime.calls) == len(clips)
    assert max(runtime.calls) == GroupRuntime.group_size


def test_the_first_recording_waits_for_no_group(clips):
    runtime = GroupRuntime(seconds=0.005)
    answers = formula_classifier(runtime).iter_predictions(clips, sampling_rate=RATE)
    next(answers)
    assert runtime.calls[0] == 1
    assert sum(runtime.calls) <= 1 + GroupRuntime.group_size


def test_no_more_than_two_groups_are_held_and_what_is_read_ahead(clips):
    runtime = GroupRuntime()
    read = []

    def sources():
        for place, clip in enumerate(clips * 4):
            read.append(place)
            yield clip

    answers = formula_classifier(runtime).iter_predictions(sources(), sampling_rate=RATE)
    for told, _ in enumerate(answers):
        assert len(read) - told <= 2 * GroupRuntime.group_size + 12


def test_a_long_recording_runs_in_groups_of_its_chunks():
    runtime = GroupRuntime(seconds=0.005)
    (long,) = random_clips([20 * RATE])
    classifier = formula_classifier(runtime, max_seconds=1.0)
    alone = formula_classifier(max_seconds=1.0)
    answer = classifier.predict(long, sampling_rate=RATE)
    assert answer == alone.predict(long, sampling_rate=RATE)
    assert answer.num_windows == 20
    assert max(runtime.calls) == GroupRuntime.group_size


def test_long_chunks_come_in_smaller_groups():
    runtime = GroupRuntime(seconds=0.005)
    clips = random_clips([2 * SHORT_SAMPLES] * 12)
    assert predict(runtime, clips) == predict(None, clips)
    assert max(runtime.calls) == GroupRuntime.group_size // 2


def test_timelines_run_in_groups_too():
    (long,) = random_clips([20 * RATE])
    timelines = [
        formula_classifier(runtime).timeline(long, sampling_rate=RATE)
        for runtime in (GroupRuntime(), FormulaRuntime())
    ]
    assert timelines[0].windows == timelines[1].windows


def test_errors_stand_in_their_place_among_groups(clips, tmp_path):
    sources = [*clips[:6], tmp_path / "missing.wav", *clips[6:]]
    answers = predict(GroupRuntime(), sources, on_error="return")
    assert [isinstance(answer, AudioError) for answer in answers].index(True) == 6
    assert answers[:6] + answers[7:] == predict(None, clips)


def test_a_fault_comes_after_the_answers_before_it(clips, tmp_path):
    answers = formula_classifier(GroupRuntime()).iter_predictions(
        [*clips[:6], tmp_path / "missing.wav", *clips[6:]], sampling_rate=RATE
    )
    assert len([next(answers) for _ in range(6)]) == 6
    with pytest.raises(FileNotFoundError):
        next(answers)


def test_a_fault_of_the_engine_is_raised(clips):
    class Broken(GroupRuntime):
        def infer(self, recordings):
            if len(self.calls) == 2:
                raise RuntimeError("out of order")
            return super().infer(recordings)

    with pytest.raises(RuntimeError, match="out of order"):
        predict(Broken(), clips)


def test_walking_away_leaves_no_thread_behind(clips):
    before = set(threading.enumerate())
    answers = formula_classifier(GroupRuntime()).iter_predictions(clips, sampling_rate=RATE)
    next(answers)
    answers.close()
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_nothing_in_gives_nothing_out():
    assert predict(GroupRuntime(), []) == []
    assert np.asarray(formula_classifier(GroupRuntime()).embed([])).shape == (0, 0)


class Visitors:
    """Clips that come one by one: the next only when the answer to the last was seen."""

    def __init__(self, clips):
        self.clips = clips
        self.seen = threading.Semaphore(1)

    def __iter__(self):
        for clip in self.clips:
            assert self.seen.acquire(timeout=20)
            yield clip


@pytest.mark.parametrize("options", [{}, {"batch_seconds": 60.0}], ids=["single", "batches"])
@pytest.mark.parametrize("runtime", [FormulaRuntime, GroupRuntime], ids=["single", "groups"])
def test_an_answer_is_given_before_the_next_recording_exists(clips, runtime, options):
    visitors = Visitors(clips[:5])
    answers = formula_classifier(runtime()).iter_predictions(
        iter(visitors), sampling_rate=RATE, **options
    )
    given = []
    for answer in answers:
        given.append(answer)
        visitors.seen.release()
    assert given == predict(None, clips[:5])


def test_the_thread_of_the_sources_has_the_context_of_the_caller(clips):
    request = ContextVar("request", default=None)

    def sources():
        assert request.get() == "this one"
        yield clips[0]

    request.set("this one")
    assert len(predict(None, sources())) == 1


class Stubborn(io.BytesIO):
    """A file of the caller that fails in its own way."""

    def read(self, *_):
        raise zlib.error("the archive is damaged")


WRONG = {
    "nothing": None,
    "number": 3,
    "object": object(),
    "three-dimensional": np.zeros((2, 3, 4), np.float32),
    "complex": np.zeros(RATE, np.complex128),
    "not-a-number": np.full(RATE, np.nan, np.float32),
    "no-samples": np.zeros(0, np.float32),
    "missing": "missing.wav",
    "own-error": Stubborn(b"RIFF"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("runtime", [FormulaRuntime, GroupRuntime], ids=["single", "groups"])
def test_a_wrong_source_is_an_error_in_its_place_in_a_batch_as_alone(clips, wrong, runtime):
    (alone,) = predict(runtime(), [wrong], on_error="return")
    among = predict(runtime(), [clips[0], wrong, clips[1]], on_error="return")
    assert isinstance(alone, EmoserError)
    assert [str(among[1]), type(among[1])] == [str(alone), type(alone)]
    assert [among[0], among[2]] == predict(None, clips[:2])


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_was_ready_comes_before_the_error_that_is_raised(clips, wrong):
    answers = formula_classifier(GroupRuntime()).iter_predictions(
        [*clips[:3], wrong, clips[3]], sampling_rate=RATE
    )
    assert [next(answers) for _ in range(3)] == predict(None, clips[:3])
    with pytest.raises((EmoserError, OSError, TypeError, ValueError, zlib.error)):
        next(answers)


def test_an_unknown_channel_is_misuse_and_not_an_error_of_every_recording(clips):
    with pytest.raises(ValueError, match="channel is 'centre'"):
        formula_classifier().predict_batch(
            clips, sampling_rate=RATE, channel="centre", on_error="return"
        )
