"""ONNX Runtime gives torch's numbers for every layout, from a folder that needs neither."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.models import loud_model, random_clips, small_config
from support.reference_checkpoints import CASES, require

from emoser import EmotionClassifier, EmotionStream, load_audio
from emoser.checkpoints.files import GRAPH_MANIFEST, CheckpointFiles, as_files
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.resolve import BUNDLED, find_checkpoint
from emoser.checkpoints.save import save_model
from emoser.cli import main
from emoser.errors import CheckpointError, DependencyError, DeviceError
from emoser.export import export
from emoser.runtimes import opening
from emoser.runtimes.conversion.onnx import save_graph
from emoser.runtimes.conversion.parity import LENGTHS, TOLERANCE
from emoser.runtimes.conversion.writing import write_graph
from emoser.runtimes.manifest import read_manifest
from emoser.runtimes.onnx import OnnxRuntime
from emoser.runtimes.opening import find_graph, open_runtime

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

AUDIO = Path(__file__).parents[2] / "examples" / "audio"
TINY = BUNDLED / "emoser-tiny"
HEAVY = "torch", "torchaudio", "transformers"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    export("emoser-tiny", folder)
    return folder


@pytest.fixture(scope="module")
def engines(exported):
    return (
        EmotionClassifier.from_pretrained(exported, backend="onnx", device="cpu"),
        EmotionClassifier.from_pretrained("emoser-tiny", backend="torch", device="cpu"),
    )


@pytest.mark.parametrize("name", CASES)
def test_every_layout_gives_the_numbers_of_its_authors(name, tmp_path):
    require(name)
    reference = CASES[name](tmp_path / "model")
    manifest_folder = tmp_path / "graph"
    manifest_folder.mkdir()
    checkpoint = CheckpointFiles(name, tmp_path / "model")
    manifest = write_graph(checkpoint, manifest_folder, to="onnx")
    opened = open_runtime(CheckpointFiles(name, manifest_folder), backend="onnx", device="cpu")
    model = load_checkpoint(tmp_path / "model").model
    assert manifest.parity["num_clips"] == len(LENGTHS)
    assert opened.config == model.config
    for clip in random_clips((16_000, 5_000, 9_999)):
        told = opened.runtime.infer([clip])
        with torch.inference_mode():
            expected = reference(clip).numpy()
            embedding = model(torch.from_numpy(clip)[None]).embedding.numpy()
        scale = max(float(np.abs(expected).max()), 1.0)
        assert np.abs(told.logits[0] - expected).max() <= TOLERANCE * scale
        np.testing.assert_allclose(told.embeddings, embedding, atol=1e-4 * np.abs(embedding).max())
        if model.config.frame_seconds is not None:
            with torch.inference_mode():
                frames = model.classify_frames(torch.from_numpy(clip)[None]).logits[0].softmax(-1)
            assert np.abs(opened.runtime.infer_frames(clip) - frames.numpy()).max() <= TOLERANCE


def test_the_file_runs_with_onnx_runtime_alone(exported):
    """Raw samples in, logits out, of any length and number, and no emoser in the process."""
    code = (
        "import sys, json, numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "rows = [session.run(['logits'], {'samples': np.sin(np.arange(number * length,"
        " dtype=np.float32) / 7).reshape(number, length)})[0].tolist()"
        " for number, length in ((1, 1), (3, 16000), (2, 48123))]\n"
        "heavy = {'emoser', 'torch', 'transformers'} & set(sys.modules)\n"
        "print(json.dumps([rows, sorted(heavy)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported / "model.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, heavy = json.loads(done.stdout)
    assert heavy == []
    model = load_checkpoint(TINY).model
    for told, (number, length) in zip(rows, ((1, 1), (3, 16_000), (2, 48_123)), strict=True):
        wave = torch.sin(torch.arange(number * length, dtype=torch.float32) / 7)
        with torch.inference_mode():
            expected = model(wave.reshape(number, length)).logits
        torch.testing.assert_close(torch.tensor(told), expected, atol=TOLERANCE, rtol=0)


def test_predictions_batches_and_embeddings_equal_those_of_torch(engines):
    ours, theirs = engines
    files = sorted(file for file in AUDIO.iterdir() if file.suffix != ".md")
    answers = ours.predict_batch(files)
    assert len(answers) == 5
    for answer, expected in zip(answers, theirs.predict_batch(files), strict=True):
        assert answer.scores == pytest.approx(expected.scores, abs=1e-4)
        assert (answer.label, answer.quality) == (expected.label, expected.quality)
    np.testing.assert_allclose(ours.embed(files), theirs.embed(files), atol=1e-3)
    assert ours.info.backend == "onnx"
    assert ours.info.dtype == "float32"
    left, right = ours.info.to_dict(), theirs.info.to_dict()
    for name in ("layout", "licence", "encoder", "parameters", "raw_labels", "training", "notes"):
        assert left[name] == right[name]


def test_timelines_and_streams_equal_those_of_torch(engines):
    ours, theirs = engines
    timelines = [engine.timeline(AUDIO / "loud.flac", hop_seconds=0.5) for engine in engines]
    assert [str(segment) for segment in timelines[0].segments] == [
        str(segment) for segment in timelines[1].segments
    ]
    for window, expected in zip(timelines[0].windows, timelines[1].windows, strict=True):
        assert window.scores == pytest.approx(expected.scores, abs=1e-4)
    (clip,) = random_clips((64_000,))
    told = []
    for engine in (ours, theirs):
        with EmotionStream(engine, sampling_rate=16_000) as stream:
            segments = [*stream.push(clip), *stream.flush()]
            told.append([(item.start, item.end, item.label) for item in segments])
    assert told[0] == told[1]


def test_an_answer_does_not_depend_on_what_it_is_predicted_with(engines):
    ours, _ = engines
    clips = random_clips((16_000, 300, 40_000, 16_000))
    alone = [ours.predict(clip, sampling_rate=16_000) for clip in clips]
    assert ours.predict_batch(clips, sampling_rate=16_000, batch_seconds=60) == alone
    assert ours.predict_batch(clips[::-1], sampling_rate=16_000) == alone[::-1]


@pytest.mark.data
def test_real_speech_gets_the_numbers_of_torch(engines, speech_data):
    files = sorted((speech_data / "ravdess").rglob("*.flac"))[::40][:12]
    ours, theirs = engines
    told, expected = ours.predict_batch(files), theirs.predict_batch(files)
    for one, other in zip(told, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_the_bundled_graph_is_of_the_bundled_weights():
    """After a training: python examples/bundled/export_graph.py."""
    manifest, model = find_graph(as_files(TINY)), load_checkpoint(TINY).model
    assert manifest is not None
    assert manifest.config == model.config
    # Clips of 25 ms, most of whose frames are padding, round otherwise in every engine.
    assert manifest.parity["max_difference"] <= TOLERANCE * manifest.parity["largest_logit"]
    runtime = open_runtime(CheckpointFiles("tiny", TINY), backend="onnx").runtime
    for path in sorted(AUDIO.iterdir()):
        clip = load_audio(path)
        with torch.inference_mode():
            expected = model(torch.from_numpy(clip)[None]).logits.numpy()
        np.testing.assert_allclose(runtime.infer([clip]).logits, expected, atol=1e-5)


@pytest.mark.parametrize("model", ["bundled", "exported"])
def test_predicting_imports_neither_torch_nor_transformers(model, exported, engines):
    name = "emoser-tiny" if model == "bundled" else str(exported)
    code = (
        "import sys\nfrom emoser.cli import main\n"
        f"code = main(['predict', {str(AUDIO / 'loud.flac')!r}, '--model', {name!r},"
        " '--backend', 'onnx', '--json'])\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, imported = done.stdout.strip().split("\n")
    assert json.loads(answer)["label"] == engines[1].predict(AUDIO / "loud.flac").label
    assert imported == "0 []"


def test_auto_is_onnx_runtime_on_a_cpu_with_a_graph_at_hand(monkeypatch, exported):
    monkeypatch.setattr(opening, "is_installed", lambda backend: backend != "openvino")
    bundled = find_checkpoint()
    assert opening.list_candidates(bundled, device="cpu") == ("onnx",)
    assert opening.list_candidates(bundled, device="cuda") == ("torch",)
    assert opening.list_candidates(bundled, device="cpu", dtype="bfloat16") == ("torch",)
    assert opening.list_candidates(CheckpointFiles("x", exported), device="cpu") == ("onnx",)
    monkeypatch.setattr(opening, "is_installed", lambda backend: backend == "torch")
    assert opening.list_candidates(bundled, device="cpu") == ("torch",)
    with pytest.raises(DependencyError, match=r'pip install "emoser\[onnx\]"'):
        opening.list_candidates(CheckpointFiles("x", exported), device="cpu")


def test_a_missing_engine_is_one_sentence(monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"backend 'onnx' needs .*emoser\[onnx\]"):
        open_runtime(find_checkpoint(), backend="onnx")
    with pytest.raises(DependencyError, match=r"emoser\[onnx\]"):
        export("emoser-tiny", "nowhere")


def test_no_accelerator_is_seen_without_a_trace_of_one(monkeypatch):
    monkeypatch.setattr(opening.platform, "system", lambda: "Linux")
    monkeypatch.setattr(opening, "GPU_TRACES", ("/no/such/device",))
    assert not opening.may_have_accelerator()
    monkeypatch.setattr(opening, "GPU_TRACES", (str(TINY),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert opening.may_have_accelerator()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not opening.may_have_accelerator()


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="this ONNX Runtime has no CUDA"):
        open_runtime(find_checkpoint(), backend="onnx", device="cuda:0")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"device": "mps"}, "runs on 'cpu', 'cuda' or 'cuda:N'"),
        ({"dtype": "bfloat16"}, "computes in float32"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        open_runtime(find_checkpoint(), backend="onnx", **options)


def test_a_damaged_graph_is_refused(exported, tmp_path):
    for name in (GRAPH_MANIFEST, "model.onnx"):
        (tmp_path / name).write_bytes((exported / name).read_bytes()[: 10**6])
    with pytest.raises(CheckpointError, match=r"model\.onnx has changed since it was exported"):
        open_runtime(CheckpointFiles("x", tmp_path), backend="onnx")
    manifest = read_manifest(as_files(tmp_path))
    manifest.write(tmp_path)  # sealed as it is
    with pytest.raises(CheckpointError, match=r"ONNX Runtime \S+ cannot read .*model\.onnx"):
        open_runtime(CheckpointFiles("x", tmp_path), backend="onnx")


def test_other_numbers_are_refused_and_leave_no_folder(monkeypatch, tmp_path):
    infer = OnnxRuntime.infer

    def infer_wrongly(self, recordings):
        answer = infer(self, recordings)
        return answer._replace(logits=answer.logits + 2e-3)

    monkeypatch.setattr(OnnxRuntime, "infer", infer_wrongly)
    with pytest.raises(CheckpointError, match=r"logits than torch: they differ by up to 2\.\de-03"):
        export("emoser-tiny", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_kill_leaves_the_old_folder_or_none(tmp_path):
    code = (
        "import os, signal, sys\nfrom emoser import export as module\n"
        "from emoser.runtimes.manifest import Manifest\n"
        "write = Manifest.write\n"
        "def killed(self, folder):\n"
        "    write(self, folder)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Manifest.write = killed\n"
        "module.export('emoser-tiny', sys.argv[1], overwrite=True)"
    )
    old = tmp_path / "old"
    old.mkdir()
    (old / "mine.txt").write_text("kept")
    for folder in (old, tmp_path / "new"):
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True)
        assert done.returncode == -signal.SIGKILL
    assert [file.name for file in old.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new").exists()
    export("emoser-tiny", old, overwrite=True)
    assert read_manifest(as_files(old)) is not None
    assert not (old / "mine.txt").exists()


def test_a_folder_that_is_not_empty_stays(exported):
    before = os.stat(exported / "model.onnx").st_mtime_ns
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        export("emoser-tiny", exported)
    assert os.stat(exported / "model.onnx").st_mtime_ns == before


def test_a_graph_cannot_be_exported_again(exported, tmp_path):
    with pytest.raises(CheckpointError, match="an exported graph and no weights, so it can only"):
        export(exported, tmp_path / "again")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="to is 'tflite'; use one of onnx, openvino"):
        export("emoser-tiny", tmp_path / "model", to="tflite")


def test_a_model_beyond_one_file_is_refused(tmp_path):
    weights = {"weight": torch.empty(2**30, device="meta")}
    with pytest.raises(CheckpointError, match=r"has 4\.0 GiB of weights and an ONNX file holds 2"):
        save_graph(SimpleNamespace(state_dict=lambda: weights), tmp_path / "model.onnx", "it")


def test_calibration_does_not_change_the_logits_and_the_scores_follow_it(tmp_path):
    save_model(loud_model(small_config(), temperature=2.0, pooling="max"), tmp_path / "model")
    done = export(tmp_path / "model", tmp_path / "graph", calibrate=AUDIO)
    assert done.parity["clips"] == "synthetic voices and 5 recordings"
    (clip,) = random_clips((12_000,))
    ours = EmotionClassifier.from_pretrained(tmp_path / "graph", backend="onnx")
    theirs = EmotionClassifier.from_pretrained(tmp_path / "model", backend="torch")
    assert ours.predict(clip, sampling_rate=16_000).scores == pytest.approx(
        theirs.predict(clip, sampling_rate=16_000).scores, abs=1e-5
    )


def test_the_command_prints_the_measured_differences(tmp_path, capsys):
    assert main(["export", "emoser-tiny", str(tmp_path / "a"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["format"] == "onnx"
    assert row["parity"]["max_difference"] <= TOLERANCE * row["parity"]["largest_logit"]
    assert main(["predict", str(AUDIO / "plain.wav"), "--model", row["folder"]]) == 0
    assert main(["export", "emoser-tiny", str(tmp_path / "a")]) == 3
    assert "pass overwrite=True" in capsys.readouterr().err


def test_a_checkpoint_without_a_graph_is_converted_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    save_model(loud_model(small_config()), tmp_path / "model")
    (clip,) = random_clips((12_000,))
    ours = EmotionClassifier.from_pretrained(tmp_path / "model", backend="onnx", device="cpu")
    theirs = EmotionClassifier.from_pretrained(tmp_path / "model", backend="torch", device="cpu")
    expected = theirs.predict(clip, sampling_rate=16_000).scores
    assert ours.predict(clip, sampling_rate=16_000).scores == pytest.approx(expected, abs=1e-4)
    code = (
        "import sys\nfrom emoser import EmotionClassifier\n"
        "found = EmotionClassifier.from_pretrained(sys.argv[1], backend='onnx', device='cpu')\n"
        f"print(found.info.backend, found.info.notes, set({HEAVY!r}) & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "onnx () set()"
