"""Groups of recordings are heard side by side: in order, in bounded memory, and soon."""

import threading
import time

import numpy as np
import pytest
from support.fakes import FormulaRuntime, formula_classifier
from support.models import random_clips

from emoser.errors import AudioError

RATE = 16_000


class GroupRuntime(FormulaRuntime):
    """The formula, for groups, with a note of every call."""

    group_size = 4

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.calls = []
        self.threads = set()
        self.seconds = seconds

    def infer(self, recordings):
        self.calls.append(len(recordings))
        self.threads.add(threading.get_ident())
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
    assert threading.get_ident() not in runtime.threads


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
