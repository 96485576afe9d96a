"""A cluster of two nodes gives the same rows, even if an actor is killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import soundfile
from support.fakes import voice_and_pauses
from support.models import loud_model, small_config

from emoser.bulk import BulkJob, predict_folder
from emoser.checkpoints.save import save_model
from emoser.errors import DependencyError

pytestmark = pytest.mark.slow
TREE = Path(__file__).parents[2]
DEADLY = "ends its reader.wav"
SITE = f"""
import os, sys
def watch(event, details):
    if event == "open" and str(details[0]).endswith({DEADLY!r}):
        os.kill(os.getpid(), 9)
if any("default_worker" in word for word in sys.orig_argv):
    sys.addaudithook(watch)
"""
"""Run by every Python of the cluster: the system ends a worker that opens a certain recording."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8}
    )
    cluster.add_node(num_cpus=2, object_store_memory=10**8)
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    environment = {"PYTHONPATH": f"{TREE}{os.pathsep}{site}", "OMP_NUM_THREADS": "1"}
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": environment})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    model = save_model(loud_model(small_config()), folder / "model")
    (folder / "voices").mkdir()
    for number in range(200):
        file = folder / "voices" / f"{number:03d}.wav"
        samples = voice_and_pauses([(4.0, 0.01 + number % 7 / 20)], seed=number)
        soundfile.write(file, samples, 16_000)
    (folder / "voices" / "100.wav").write_text("nothing")
    return BulkJob(
        str(folder / "voices"), str(folder / "local.jsonl"), model=str(model), device="cpu"
    )


def find_actors():
    """Process ids of the actors that hold a model, as Ray names their processes."""
    psutil = pytest.importorskip("psutil")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if words.startswith("ray::") and ("Predictor" in words or "MapWorker" in words):
            found.append(process.pid)
    return found


def test_two_nodes_and_a_killed_actor_give_the_rows_of_one_machine(cluster, job, tmp_path):
    import ray

    assert sum(node["Alive"] for node in ray.nodes()) == 2
    predict_folder(job)
    values = {**vars(job), "output": str(tmp_path / "ray.jsonl"), "engine": "ray", "num_actors": 2}
    spread = BulkJob(**values)
    output = Path(spread.output)
    killed = []

    def kill_one():
        while not (output.exists() and output.stat().st_size):
            time.sleep(0.02)
        for actor in find_actors()[:1]:
            os.kill(actor, signal.SIGKILL)
            killed.append(len(output.read_bytes().splitlines()))

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    summary = predict_folder(spread)
    killer.join(timeout=120)
    assert len(killed) == 1
    assert killed[0] < 200, "the actor had nothing left to do"
    assert (summary.num_files, summary.num_errors) == (200, 1)
    assert output.read_bytes() == Path(job.output).read_bytes()
    assert predict_folder(spread).num_before == 200


def test_a_recording_that_ends_its_worker_has_a_row_and_the_others_theirs(cluster, job, tmp_path):
    folder = tmp_path / "voices"
    folder.mkdir()
    for number in range(20):
        name = DEADLY if number == 5 else f"{number:03d}.wav"
        (folder / name).write_bytes(Path(job.folder, "000.wav").read_bytes())
    values = {**vars(job), "folder": str(folder), "output": str(tmp_path / "out.jsonl")}
    summary = predict_folder(BulkJob(**{**values, "engine": "ray", "num_actors": 1}))
    assert (summary.num_files, summary.num_errors) == (20, 1)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == sorted(str(file) for file in folder.iterdir())
    (error,) = [row["error"] for row in rows if "error" in row]
    assert error.startswith(f"{folder / DEADLY} ended the process that predicted it")


def test_without_ray_one_sentence_says_what_to_install(job, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    values = {**vars(job), "output": str(tmp_path / "a.jsonl"), "engine": "ray"}
    with pytest.raises(DependencyError, match=r"emoser\[ray\]"):
        predict_folder(BulkJob(**values))
