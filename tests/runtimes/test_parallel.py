"""Several recordings in parallel have the outputs of each alone, and no graph is opened in vain."""

import threading

import numpy as np
import pytest
from support.models import random_clips

from emoser.checkpoints.resolve import find_checkpoint
from emoser.export import export
from emoser.runtimes import onnx
from emoser.runtimes.opening import is_installed, open_runtime
from emoser.runtimes.parallel import (
    GROUP_ROUNDS,
    LONG_SAMPLES,
    WorkerThreads,
    pack,
    run_in_parallel,
)

LENGTHS = (16_000, 400, LONG_SAMPLES, 9_000, 32_000, 5_000)
TOLERANCE = 1e-5
ENGINES = [
    pytest.param(
        engine, marks=pytest.mark.skipif(not is_installed(engine), reason=f"needs {engine}")
    )
    for engine in ("onnx", "openvino")
]


@pytest.fixture
def clips():
    return random_clips(LENGTHS)


@pytest.fixture
def opened(monkeypatch):
    """Opens emoser-tiny as on two cores; the second form pays at once."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(onnx, "GROUPED_SAMPLES", 1)
    return lambda engine, name="emoser-tiny", **settings: (
        open_runtime(find_checkpoint(name), device="cpu", backend=engine, **settings).runtime
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_group_has_the_outputs_of_its_recordings_alone(opened, clips, engine):
    runtime = opened(engine)
    assert runtime.group_size == 2 * GROUP_ROUNDS
    alone = [runtime.infer([clip]) for clip in clips]
    assert runtime._divided is None
    group = runtime.infer(clips)
    assert runtime._divided is not None
    for place, output in enumerate(alone):
        assert np.abs(group.logits[place] - output.logits[0]).max() < TOLERANCE
        assert np.abs(group.embeddings[place] - output.embeddings[0]).max() < TOLERANCE


def test_a_second_form_is_opened_once_it_pays_and_for_short_recordings(opened, clips, monkeypatch):
    monkeypatch.setattr(onnx, "GROUPED_SAMPLES", 2 * sum(LENGTHS) - 2 * LONG_SAMPLES)
    runtime = opened("onnx")
    for size in (1, 1, len(clips)):
        runtime.infer(clips[:size])
    assert runtime._divided is None
    runtime.infer(clips)
    divided = runtime._divided
    assert divided is not None
    runtime.infer(clips)
    assert runtime._divided is divided


@pytest.mark.parametrize(
    ("limit", "settings"), [(1000, {}), (onnx.LARGEST_TWICE, {"num_streams": 2})]
)
def test_large_graphs_and_streams_of_the_caller_stay_single(
    opened, clips, monkeypatch, limit, settings
):
    monkeypatch.setattr(onnx, "LARGEST_TWICE", limit)
    runtime = opened("onnx", **settings)
    assert runtime.group_size == 1
    runtime.infer(clips)
    assert runtime._divided is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", ["changed", "gone"])
def test_a_graph_that_was_changed_since_is_not_opened_again(opened, clips, tmp_path, engine, fault):
    export("emoser-tiny", tmp_path / "graph", to=engine)
    runtime = opened(engine, name=str(tmp_path / "graph"))
    alone = runtime.infer(clips[:1])
    for file in (tmp_path / "graph").iterdir():
        if fault == "gone":
            file.unlink()
        elif file.suffix in (".onnx", ".bin"):
            content = file.read_bytes()
            file.unlink()  # what is mapped into memory stays
            file.write_bytes(content[:-1] + b"x")
    group = runtime.infer(clips)
    assert runtime._divided is None
    assert np.abs(group.logits[0] - alone.logits[0]).max() < TOLERANCE


def test_one_core_takes_recordings_one_by_one(opened, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert opened("onnx").group_size == 1


def test_threads_run_the_longest_first_and_long_ones_alone(clips):
    entered = []
    together = threading.Barrier(2)

    def on_one_core(part):
        together.wait(timeout=60)  # two of the five short ones, then two, ...
        return [len(samples) for samples in part]

    def on_all_cores(samples):
        entered.append(len(samples))
        return len(samples)

    several = [*clips, clips[0]]
    found = run_in_parallel(
        several, WorkerThreads(2), on_one_core=on_one_core, on_all_cores=on_all_cores
    )
    assert found == [*LENGTHS, LENGTHS[0]]
    assert entered == [LONG_SAMPLES]
    order = []
    run_in_parallel(clips, WorkerThreads(1), on_one_core=lambda part: [order.append(len(part[0]))])
    assert order == sorted(LENGTHS, reverse=True)


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_packs_are_about_as_large_and_as_many_for_each_thread(num_threads):
    lengths = [1_000 + 731 * place % 5_000 for place in range(60)]
    places = sorted(range(60), key=lambda place: -lengths[place])[:50]
    packs = pack(places, lengths, num_threads, 20_000)
    sizes = [sum(lengths[place] for place in part) for part in packs]
    assert sorted(place for part in packs for place in part) == sorted(places)
    assert len(packs) % num_threads == 0
    assert max(sizes) - min(sizes) < max(lengths)
    assert max(sizes) < 20_000 + max(lengths)


def test_without_a_size_or_with_few_recordings_each_is_alone():
    assert pack([2, 0, 1], [4, 1, 9], 2, 0) == [[2], [0], [1]]
    assert pack([2, 0], [4, 1, 9], 3, 100) == [[2], [0]]
    assert pack([], [], 2, 100) == []
