"""OpenVINO gives the numbers of torch for every layout, and the cache of graphs is safe."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.models import loud_model, random_clips, small_config
from support.reference_checkpoints import CASES, require
from torch import from_numpy, inference_mode
from transformers import Wav2Vec2Config

from emoser import EmotionClassifier
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.checkpoints.save import save_model
from emoser.errors import CheckpointError
from emoser.export import export
from emoser.runtimes import InferenceOutput, cache, opening
from emoser.runtimes import openvino as openvino_runtime
from emoser.runtimes.cache import cache_folder, hash_weights, make_key, open_entry
from emoser.runtimes.conversion.graph import build_graph
from emoser.runtimes.opening import open_runtime
from emoser.runtimes.openvino import OpenVinoRuntime, choose_settings, compile_graph

pytest.importorskip("openvino")

from openvino import Core

from emoser.runtimes.conversion.openvino import convert_graph
from emoser.runtimes.conversion.openvino_loop import SEGMENT_FRAMES, fits_loop

# One layout of every kind of graph; the others, converted in processes of their own, are slow.
KINDS = (
    "Wav2Vec2, group norm",
    "Whisper, layer sum",
)
LENGTHS = (1, 16_000, 399, 401, 5_000, 30_000)
TOLERANCE = 1e-4
RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(loud_model(small_config()), tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def both(model):
    """The same checkpoint by torch and by OpenVINO."""
    return tuple(
        EmotionClassifier.from_pretrained(model, device="cpu", backend=backend)
        for backend in ("torch", "openvino")
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def openvino_wins(monkeypatch, own_cache):
    """The choice between engines finds OpenVINO to be the fastest."""
    seconds = {"openvino": 1.0, "onnx": 2.0, "torch": 3.0}
    monkeypatch.setattr(
        opening, "measure_engines", lambda runtimes, **_: {name: seconds[name] for name in runtimes}
    )


def run_python(code, *words, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
    ).stdout


@pytest.mark.parametrize(
    "name",
    [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_every_layout_gives_the_numbers_of_torch(name, tmp_path):
    require(name)
    CASES[name](tmp_path / "model")
    checkpoint = CheckpointFiles(name, tmp_path / "model")
    torch, openvino = (
        open_runtime(checkpoint, device="cpu", backend=backend).runtime
        for backend in ("torch", "openvino")
    )
    clips = random_clips(LENGTHS)
    expected, told = torch.infer(clips), openvino.infer(clips)
    for ours, theirs in zip(told, expected, strict=True):
        scale = max(1.0, float(np.abs(theirs).max()))
        assert np.abs(ours - theirs).max() <= TOLERANCE * scale
    if openvino.by_frame:
        frames = [runtime.infer_frames(clips[0]) for runtime in (torch, openvino)]
        assert np.abs(frames[0] - frames[1]).max() <= TOLERANCE
    else:
        with pytest.raises(ValueError, match="no outputs for single frames"):
            openvino.infer_frames(clips[0])


def test_auto_is_openvino_on_a_cpu_where_it_is_the_fastest(both, model, openvino_wins):
    classifier = EmotionClassifier.from_pretrained(model, device="cpu")
    assert [item.info.backend for item in (*both, classifier)] == ["torch", "openvino", "openvino"]
    assert (classifier.info.device, classifier.info.dtype) == ("cpu", "float32")
    assert classifier.info.layout == both[0].info.layout
    assert classifier.info.parameters == both[0].info.parameters


def test_predictions_embeddings_and_timelines_are_those_of_torch(both):
    clips = random_clips((16_000, 50_000, 9_000, 300))
    torch, openvino = both
    for clip in clips:
        ours, theirs = (item.predict(clip, sampling_rate=RATE) for item in (openvino, torch))
        assert ours.label == theirs.label
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
    embeddings = [item.embed(clips, sampling_rate=RATE) for item in both]
    np.testing.assert_allclose(*embeddings, atol=1e-4)
    lines = [item.timeline(clips[1], sampling_rate=RATE, vad=None) for item in both]
    assert [segment.label for segment in lines[0].segments] == [
        segment.label for segment in lines[1].segments
    ]
    for ours, theirs in zip(lines[1].windows, lines[0].windows, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_a_batch_is_the_same_numbers_as_each_alone(both):
    clips = random_clips((16_000, 50_000, 401, 33_333, 16_000))
    together = both[1].predict_batch(clips, sampling_rate=RATE)
    alone = [both[1].predict(clip, sampling_rate=RATE) for clip in clips]
    assert [dict(item.scores) for item in together] == [dict(item.scores) for item in alone]


def test_a_first_recording_of_one_frame_leaves_the_next_ones_right(both, model):
    """OpenVINO alone chooses an attention for one frame then, which longer clips do not survive."""
    short, *clips = random_clips((400, 16_000, 50_000))
    fresh = open_runtime(CheckpointFiles("m", model), device="cpu", backend="openvino").runtime
    fresh.infer([short])
    expected = both[0]._predictor.runtime.infer(clips).logits
    np.testing.assert_allclose(fresh.infer(clips).logits, expected, atol=1e-4)


def test_several_threads_share_one_classifier(both):
    clips = random_clips((8_000, 12_345, 16_000, 20_001))
    expected = [both[1].predict(clip, sampling_rate=RATE).scores for clip in clips] * 6
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(lambda clip: both[1].predict(clip, sampling_rate=RATE).scores, clips * 6)
        assert list(map(dict, told)) == list(map(dict, expected))


def test_other_devices_and_precisions_are_refused(model):
    with pytest.raises(ValueError, match="'openvino' runs on the 'cpu'"):
        EmotionClassifier.from_pretrained(model, device="cuda", backend="openvino")
    with pytest.raises(ValueError, match="in float32 or bfloat16"):
        EmotionClassifier.from_pretrained(model, dtype="float16", backend="openvino")


@pytest.mark.slow
def test_what_openvino_cannot_express_is_run_by_torch_and_says_so(model, own_cache, monkeypatch):
    monkeypatch.setattr(
        OpenVinoRuntime, "infer", lambda *_: InferenceOutput(np.ones((1, 4)), np.ones(1))
    )
    with pytest.raises(CheckpointError, match="OpenVINO gives other logits than torch"):
        EmotionClassifier.from_pretrained(model, device="cpu", backend="openvino")
    classifier = EmotionClassifier.from_pretrained(model, device="cpu")
    assert classifier.info.backend == "torch"
    assert "OpenVINO gives other logits" in classifier.info.notes[-1]


PREDICT = """
import sys
from emoser.cli import main
code = main(["predict", *sys.argv[1:], "--json"])
heavy = {"torch", "transformers", "openvino_telemetry"} & set(sys.modules)
print(code, sorted(heavy), "openvino" in sys.modules)
"""


def test_predicting_from_the_cache_imports_neither_torch_nor_transformers(both, model, tmp_path):
    import soundfile

    (clip,) = random_clips((16_000,))
    soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="FLOAT")
    words = (tmp_path / "clip.wav", "--model", model, "--backend", "openvino")
    row, state = run_python(PREDICT, *words).splitlines()
    assert state == "0 [] True"
    expected = both[0].predict(clip, sampling_rate=RATE).scores
    assert json.loads(row)["scores"] == pytest.approx(expected, abs=1e-5)


CONNECT = """
import socket, sys
asked = []
def refuse(self, address, *rest):
    asked.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *words, **rest: asked.append(words) or refuse(None, words)
from emoser import EmotionClassifier
EmotionClassifier.from_pretrained(sys.argv[1], device="cpu", backend="openvino")
import time, threading
time.sleep(0.5)
print(asked, [t.name for t in threading.enumerate()], "openvino_telemetry" in sys.modules)
"""


@pytest.mark.slow
def test_nothing_is_sent_to_anyone(model, tmp_path):
    """As the package comes, its import alone sends an event from a home that has not opted out."""
    answer = run_python(CONNECT, model, HOME=tmp_path, CI="", EMOSER_CACHE=tmp_path / "cache")
    assert answer.strip() == "[] ['MainThread'] False"
    assert not (tmp_path / "intel").exists()


OPEN = """
import sys
from emoser import EmotionClassifier
print(EmotionClassifier.from_pretrained(sys.argv[1], device="cpu", backend="openvino").info.notes)
"""


def graphs(folder):
    return sorted(item.name for item in (folder / "graphs").iterdir())


@pytest.mark.slow
def test_processes_that_fill_the_cache_at_once_leave_one_whole_entry(model, own_cache):
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(model)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in processes] == [b"()"] * 3
    (entry,) = graphs(own_cache)
    assert cache._is_whole(own_cache / "graphs" / entry)


BUILD = """
import sys, time
from pathlib import Path
from emoser.runtimes.cache import open_entry
def build(folder):
    (folder / "graph").write_text("half")
    print("building", flush=True)
    time.sleep(60)
with open_entry("key", build):
    pass
"""


def write_graph(folder):
    (folder / "graph").write_text("whole")


def test_a_process_killed_while_it_fills_the_cache_leaves_nothing_that_is_read(own_cache):
    process = subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"building\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [name.startswith(".key.saving") for name in graphs(own_cache)] == [True]
    with open_entry("key", write_graph) as entry:
        assert (entry.folder / "graph").read_text() == "whole"
        assert entry.notes == ()
    assert graphs(own_cache) == ["key"]


@pytest.mark.parametrize("damage", ["changed", "shortened", "missing", "unsealed"])
def test_a_damaged_entry_is_built_again(damage, own_cache):
    with open_entry("key", write_graph) as entry:
        file = entry.folder / "graph"
    if damage == "changed":
        time.sleep(0.02)
        file.write_text("whale")
    elif damage == "shortened":
        os.truncate(file, 2)
    else:
        (file if damage == "missing" else entry.folder / cache.SEAL).unlink()
    with open_entry("key", write_graph) as again:
        assert (again.folder / "graph").read_text() == "whole"
    with open_entry("key", lambda folder: pytest.fail("built without need")):
        pass


@pytest.mark.slow
def test_a_damaged_graph_of_a_model_is_converted_again(model, own_cache):
    (clip,) = random_clips((9_000,))
    answers = []
    for number in range(2):
        opened = open_runtime(CheckpointFiles("m", model), device="cpu", backend="openvino")
        answers.append(opened.runtime.infer([clip]).logits)
        (entry,) = graphs(own_cache)
        compiled = os.listdir(own_cache / "compiled")
        assert len(compiled) <= number + 1  # nothing of the graphs that were compared with torch
        os.truncate(own_cache / "graphs" / entry / "openvino_model.bin", 1_000)
    np.testing.assert_array_equal(*answers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "locked"])
def test_a_cache_that_cannot_be_written_is_survived(kind, model, tmp_path, monkeypatch):
    place = tmp_path / "cache"
    if kind == "file":
        place.write_text("in the way")
    else:
        place.mkdir(mode=0o500)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write everywhere")
    monkeypatch.setenv("EMOSER_CACHE", str(place))
    opened = open_runtime(CheckpointFiles("m", model), device="cpu", backend="openvino")
    assert "cannot be written" in opened.info.notes[-1]
    assert opened.runtime.infer(random_clips((9_000,))).logits.shape == (1, 4)


MONTH_AGO = time.time() - cache.UNUSED_SECONDS - 60


def test_entries_that_nothing_opens_for_a_month_go_when_another_is_written(own_cache):
    seals = [
        cache.find_entry(kind, key, write_graph) / cache.SEAL
        for kind in cache.KINDS
        for key in ("opened", "read", "unused")
    ]
    for seal in seals:
        os.utime(seal, (time.time() if seal.parent.name == "read" else MONTH_AGO, MONTH_AGO))
    for kind in cache.KINDS:
        cache.find_entry(kind, "opened", lambda folder: pytest.fail("built without need"))
    (own_cache / "graphs" / "no entry").mkdir()
    os.utime(own_cache / "graphs" / "no entry", (MONTH_AGO, MONTH_AGO))
    cache.find_entry("compiled", "new", write_graph)
    assert graphs(own_cache) == ["no entry", "opened", "read"]
    assert sorted(os.listdir(own_cache / "compiled")) == ["new", "opened", "read"]


WRITE_AND_AGE = """
import os, sys
from emoser.runtimes import cache
def build(folder):
    (folder / "graph").write_text("whole")
for turn in range(50):
    folder = cache.find_entry("graphs", f"{sys.argv[1]}-{turn}", build)
    os.utime(folder / cache.SEAL, (float(sys.argv[2]), float(sys.argv[2])))
    assert (cache.find_entry("graphs", "shared", build) / "graph").read_text() == "whole"
"""


@pytest.mark.slow
def test_processes_may_remove_the_same_entries_at_once(own_cache):
    shared = cache.find_entry("graphs", "shared", write_graph)
    os.utime(shared / cache.SEAL, (MONTH_AGO, MONTH_AGO))
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE_AND_AGE, str(number), str(MONTH_AGO)])
        for number in (0, 1)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    cache.find_entry("graphs", "last", write_graph)
    assert graphs(own_cache) == ["last", "shared"]


def test_keys_follow_weights_and_versions(model, own_cache, tmp_path):
    shutil.copytree(model, tmp_path / "other")
    key = make_key(as_files(model), {"openvino": "1"})
    assert make_key(as_files(tmp_path / "other"), {"openvino": "1"}) == key
    assert make_key(as_files(model), {"openvino": "2"}) != key
    save_model(loud_model(small_config(), seed=1), tmp_path / "other", overwrite=True)
    assert make_key(as_files(tmp_path / "other"), {"openvino": "1"}) != key


def test_a_hash_is_remembered_until_a_file_changes(model, own_cache, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    found = hash_weights(as_files(folder))
    calls = []
    monkeypatch.setattr(
        CheckpointFiles, "content_hash", property(lambda files: calls.append(files) or "new")
    )
    assert hash_weights(as_files(folder)) == found
    assert not calls
    (folder / "config.json").write_text("{}")
    assert hash_weights(as_files(folder)) == "new"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"EMOSER_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/emoser"),
        ({"XDG_CACHE_HOME": "relative"}, "~/.cache/emoser"),
        ({}, "~/.cache/emoser"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the customs of Linux")
def test_the_cache_is_where_the_system_keeps_caches(environment, expected, monkeypatch):
    for name in ("EMOSER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected).expanduser()


@pytest.fixture(scope="module")
def graph_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph") / "graph"
    export(model, folder, to="openvino")
    return folder


def test_bfloat16_stays_near_float32(graph_folder, both):
    """On any processor; where it has no such arithmetic it is imitated."""
    half = OpenVinoRuntime(
        compile_graph(graph_folder / "openvino_model.xml", choose_settings("bfloat16", 1)), 4
    )
    (clip,) = random_clips((16_000,))
    expected = both[0]._predictor.runtime.infer([clip]).logits
    assert 0 < np.abs(half.infer([clip]).logits - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_used_where_the_processor_has_it(able, model, monkeypatch, openvino_wins):
    monkeypatch.setattr(openvino_runtime, "has_bfloat16", lambda: able)
    info = EmotionClassifier.from_pretrained(model, device="cpu", dtype="bfloat16").info
    assert (info.backend, info.dtype) == ("openvino", "bfloat16" if able else "float32")
    assert any("no bfloat16 arithmetic" in note for note in info.notes) is not able


def test_an_exported_folder_runs_alone(graph_folder, both, tmp_path):
    shutil.copytree(graph_folder, tmp_path / "moved")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "moved", device="cpu")
    (clip,) = random_clips((16_000,))
    expected = both[0].predict(clip, sampling_rate=RATE).scores
    assert classifier.info.backend == "openvino"
    assert classifier.predict(clip, sampling_rate=RATE).scores == pytest.approx(expected, abs=1e-5)
    with pytest.raises(CheckpointError, match="which backend 'torch' needs"):
        EmotionClassifier.from_pretrained(graph_folder, backend="torch")


def test_kernels_of_few_numbers_of_frames_are_all_kept(graph_folder, monkeypatch):
    """A graph whose layers compute any number of frames, as the bundled one, keeps fewer."""
    kept = []
    monkeypatch.setattr(
        openvino_runtime,
        "compile_graph",
        lambda file, settings: (
            kept.append(settings["CPU_RUNTIME_CACHE_CAPACITY"]) or compile_graph(file, settings)
        ),
    )
    monkeypatch.setattr(openvino_runtime, "find_entry", lambda kind, name, build: None)
    for folder in (graph_folder, "emoser-small"):
        EmotionClassifier.from_pretrained(folder, backend="openvino")
    assert kept == [openvino_runtime.ROUNDED_KERNELS, openvino_runtime.CACHED_KERNELS]


@pytest.mark.slow
def test_a_model_of_base_shape_agrees(tmp_path):
    config = Wav2Vec2Config(num_hidden_layers=1)
    checkpoint = CheckpointFiles("base", save_model(loud_model(config), tmp_path / "base"))
    clips = random_clips((16_000, 4_000))
    torch, openvino = (
        open_runtime(checkpoint, device="cpu", backend=backend).runtime.infer(clips).logits
        for backend in ("torch", "openvino")
    )
    assert np.abs(torch - openvino).max() <= TOLERANCE * max(1.0, np.abs(torch).max())


LOOP_KINDS = {
    "group norm": Wav2Vec2Config(num_hidden_layers=1),
    "layer norm": Wav2Vec2Config(num_hidden_layers=1, feat_extract_norm="layer", conv_bias=True),
}


def count_loops(converted):
    return [op.get_type_name() for op in converted.get_ordered_ops()].count("Loop")


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_wide_convolutions_in_a_loop_keep_the_numbers_of_every_length(kind):
    """Of one frame, of one stretch, of a frame more, and of several stretches."""
    model = loud_model(LOOP_KINDS[kind])
    graph = build_graph(model)
    assert fits_loop(graph)
    converted = convert_graph(graph, kind)
    assert count_loops(converted) == (2 if kind == "group norm" else 1)
    compiled = Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runtime = OpenVinoRuntime(compiled, len(model.config.outputs))
    for frames in (1, 3, SEGMENT_FRAMES, SEGMENT_FRAMES + 1, 3 * SEGMENT_FRAMES - 5):
        for spare in (0, 319):  # samples behind the last frame
            (clip,) = random_clips((400 + 320 * (frames - 1) + spare,))
            with inference_mode():
                expected = model(from_numpy(clip)[None])
            for ours, theirs in zip(runtime.infer([clip]), expected, strict=True):
                scale = max(1.0, float(theirs.abs().max()))
                assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE * scale


@pytest.mark.slow
def test_rows_of_one_batch_pass_the_loop_as_each_alone():
    converted = convert_graph(build_graph(loud_model(LOOP_KINDS["group norm"])), "base")
    compiled = Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = np.stack(random_clips((30_000, 30_000)))
    together = compiled([rows])[0]
    alone = np.concatenate([compiled([row[None]])[0] for row in rows])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)


@pytest.mark.slow
def test_loops_of_several_steps_stay_near_float32_in_bfloat16():
    model = loud_model(LOOP_KINDS["group norm"])
    converted = convert_graph(build_graph(model), "base")
    compiled = Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    for length in (16_000, 90_000):
        (clip,) = random_clips((length,))
        with inference_mode():
            expected = model(from_numpy(clip)[None]).logits.numpy()
        error = np.abs(compiled([clip[None]])[0] - expected).max()
        assert 0 < error <= 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_narrow_convolutions_and_graphs_to_quantise_have_no_loop():
    assert not fits_loop(build_graph(loud_model(small_config())))
    plain = convert_graph(build_graph(loud_model(LOOP_KINDS["group norm"])), "base", looped=False)
    assert count_loops(plain) == 0


SPEAK_AT_MANY_LENGTHS = """
from pathlib import Path
import numpy as np
from emoser import EmotionClassifier
classifier = EmotionClassifier.from_pretrained("emoser-small", backend="openvino")
sound = np.random.default_rng(0).standard_normal(12 * 16_000).astype(np.float32) / 10
for number in range(240):
    classifier.predict(sound[: 640 * (number * 97 % 240 + 60)], sampling_rate=16_000)
    if number % 80 == 79:
        print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read as on Linux")
def test_recordings_of_many_lengths_leave_little_in_memory():
    """OpenVINO compiles code for each new length; kept without bound, it takes 1 MiB each."""
    command = [sys.executable, "-c", SPEAK_AT_MANY_LENGTHS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    _, after_160, after_240 = map(int, done.stdout.split())
    assert after_240 - after_160 < 40
