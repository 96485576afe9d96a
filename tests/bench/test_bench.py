"""The benchmark counts arithmetic correctly, compares within rounds, and runs on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.models import base_config, large_config, small_config
from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig

import emoser.bench as bench
from emoser.audio.limits import SAMPLING_RATE as RATE
from emoser.bench import BenchOptions, BenchReport, BenchRow, plan_rows
from emoser.bench.machine import (
    MIXED_SECONDS,
    count_gflop,
    describe_machine,
    measure_limit,
    mixed_clips,
    read_peak,
)
from emoser.bench.worker import load_engine
from emoser.checkpoints.save import build_model
from emoser.cli import bench as command
from emoser.models.config import ModelConfig

TREE = Path(__file__).resolve().parents[2]


def build(config):
    return build_model(config, ModelConfig(labels=("a", "b")), seed=0)


def count_by_hand(config, num_samples: int) -> float:
    """Multiplications and additions of all convolutions, linear layers and attention, GFLOP."""
    total, frames, width = 0, num_samples, 1
    for out, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        frames = (frames - kernel) // stride + 1
        total += frames * out * width * kernel
        width = out
    size, inner = config.hidden_size, config.intermediate_size
    total += frames * width * size
    taps = config.num_conv_pos_embeddings
    padded = frames + 1 - taps % 2
    total += padded * size * (size // config.num_conv_pos_embedding_groups) * taps
    layer = frames * (4 * size**2 + 2 * size * inner) + 2 * frames**2 * size
    return 2 * (total + config.num_hidden_layers * layer) / 1e9


@pytest.mark.parametrize(
    "config",
    [base_config(Wav2Vec2Config, 12), large_config(HubertConfig, 2), small_config(HubertConfig)],
    ids=["base", "large", "small"],
)
def test_arithmetic_is_counted_as_by_hand(config):
    counted = count_gflop(build(config), (1.0, 4.0))
    for found, seconds in zip(counted, (1.0, 4.0), strict=True):
        assert found == pytest.approx(count_by_hand(config, round(seconds * RATE)), rel=0.01)


def test_counting_takes_no_time_on_the_processor_and_wavlm_counts_too():
    assert count_gflop(build(small_config(WavLMConfig)), (1.0,))[0] > 0


def test_a_model_that_cannot_run_without_weights_is_not_counted():
    class NeedsWeights(torch.nn.Module):
        def forward(self, samples):
            raise NotImplementedError

    assert count_gflop(NeedsWeights(), (1.0,)) is None


def test_the_limit_is_that_of_a_product_timed_here():
    rate = measure_limit("float32", seconds=0.05)
    assert 0.1 < rate < 1e6


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["bfloat16"] in (True, False, None)
    peak = read_peak()
    assert peak is None or peak > 50


def test_bfloat16_is_measured_only_where_the_processor_has_it():
    options = BenchOptions(runtimes=("torch", "openvino", "onnx"), folders=("int8",))
    plain = plan_rows(options, {"bfloat16": False})
    fast = plan_rows(options, {"bfloat16": True})
    assert [row.dtype for row in plain] == ["float32"] * 3 + ["auto"]
    assert [row for row in fast if row not in plain] == [
        BenchRow("torch", "bfloat16", "emoser-small"),
        BenchRow("openvino", "bfloat16", "emoser-small"),
    ]


class FakeWorker:
    """Returns fixed figures; every engine is twice as fast in the second round."""

    SPEEDS = {"torch": 3.0, "transformers": 1.0, "auto": 6.0}  # noqa: RUF012
    first_seconds = 1.5

    def __init__(self, job):
        self.job = job
        self.error = "does not load" if job.get("model") == "broken" else None
        self.round = 0
        machine = {"processor": "a fake", "cores": 2, "bfloat16": False}
        gflop = [4.0, *MIXED_SECONDS]
        self.facts = {"machine": machine, "gflop": gflop} if job["kind"] == "machine" else {}

    def run(self, *, seconds, task=None):
        if self.error:
            return {}
        if task is None:
            return {"limits": {"float32": 1000.0}}
        if task == "single":
            return {"times": [0.1, 0.2, 0.3]}
        self.round += 1
        passes = self.SPEEDS[self.job["runtime"]] * self.round
        return {"passes": passes, "seconds": 2.0, "peak_mib": 100.0}

    def close(self):
        pass


@pytest.fixture
def report(monkeypatch):
    monkeypatch.setattr(bench, "Worker", FakeWorker)
    options = BenchOptions(runtimes=("torch", "transformers"), folders=("int8", "broken"), rounds=3)
    lines = []
    report = bench.run_bench(options, report_step=lines.append)
    assert "round 3 of 3" in lines
    return report


def test_ratios_are_formed_within_a_round(report):
    torch_row, baseline, int8, broken = report.rows
    assert (torch_row.speedup, baseline.speedup, int8.speedup) == (3.0, 1.0, 6.0)
    assert torch_row.real_time == pytest.approx(3.0 * sum(MIXED_SECONDS))
    assert torch_row.clips_per_second == pytest.approx(3.0 * len(MIXED_SECONDS))
    assert torch_row.limit_share == pytest.approx(3.0 * sum(MIXED_SECONDS) / 1000)
    assert (torch_row.latency_p50, torch_row.latency_p95) == (0.2, 0.3)
    assert int8.limit_share is None  # of dtype "auto": there is no limit to compare with
    assert broken == BenchRow("auto", "auto", "broken", error="does not load")
    assert report.gflop_per_second == 1.0


def test_the_table_has_a_line_for_every_engine(report, capsys):
    command._print_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "emoser-small on a fake, 2 cores"
    assert "3.00 x" in next(line for line in lines if line.startswith("torch"))
    assert any("does not load" in line for line in lines)


def test_a_report_is_json(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert values["rows"][0]["runtime"] == "torch"
    assert isinstance(report, BenchReport)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtimes": ("tensorflow",)}, "runtime is 'tensorflow'; use one of"),
        ({"seconds": 0.0}, "must be above 0"),
        ({"rounds": 0}, "must be above 0"),
    ],
)
def test_misuse_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BenchOptions(**changes)


def test_engine_and_pipeline_give_the_same_scores_for_the_same_clips():
    clips = mixed_clips()
    job = {"model": "emoser-tiny", "dtype": "float32"}
    ours = load_engine({**job, "runtime": "torch"})
    theirs = load_engine({**job, "runtime": "transformers"})
    expected = [max(row, key=lambda item: item["score"]) for row in theirs.predict_all[0](clips)]
    found = ours.predict_all[0](clips)
    assert [item.score for item in found] == pytest.approx(
        [item["score"] for item in expected], abs=1e-4
    )


def test_a_missing_checkpoint_is_reported_in_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "emoser", "bench", "--model", str(TREE / "nothing")],
        capture_output=True,
        text=True,
        cwd=TREE,
    )
    assert done.returncode == 4
    assert done.stderr.strip().splitlines()[-1].startswith("emoser: ")


@pytest.mark.slow
def test_the_command_measures_this_machine():
    words = ["bench", "--runtimes", "torch,transformers", "--seconds", "0.05", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "emoser", *words, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=TREE,
    )
    report = json.loads(done.stdout)
    ours, theirs, *_ = report["rows"]  # and bfloat16 where the processor has it
    assert ours["error"] is None
    assert theirs["error"] is None
    assert 0 < ours["limit_share"] < 10  # a loaded machine may slow the limit alone down
    assert theirs["speedup"] == 1.0
    assert "round 1 of 1" in done.stderr


def test_the_command_sets_its_own_process_up_and_the_library_touches_nothing(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code = (
        "import gc, os, sys; stock = gc.get_threshold(); from emoser.cli import main; "
        "show = lambda: print(os.environ.get('OMP_WAIT_POLICY'), gc.get_threshold() == stock, "
        "file=sys.stderr); sys.argv = ['emoser', 'models']; "
        "main(['models']); show(); main(); show()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TREE
    )
    assert done.stderr.split() == ["None", "True", "PASSIVE", "False"]
