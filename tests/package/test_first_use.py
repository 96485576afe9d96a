"""Common first mistakes end in one sentence that says what to do."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emoser import EmotionClassifier
from emoser.cli import main

ROOT = Path(__file__).parents[2]
AUDIO = ROOT / "examples" / "audio"
CLIP = str(AUDIO / "plain.wav")
EXTRAS = {
    "media": ("av", ["predict", "film.mp4"], 3),
    "openvino": ("openvino", ["predict", CLIP, "--backend", "openvino"], 5),
    "onnx": ("onnxruntime", ["predict", CLIP, "--backend", "onnx"], 5),
    "finetune": ("accelerate", ["finetune", "voices.csv", "--output", "run"], 5),
    "lora": ("peft", ["finetune", "voices.csv", "--output", "run", "--mode", "lora"], 5),
    "demo": ("gradio", ["demo"], 5),
    "live": ("sounddevice", ["listen"], 5),
    "vad": ("silero_vad", ["timeline", CLIP, "--vad", "silero"], 5),
    "parquet": ("pyarrow", ["predict", "folder", "--output", "rows.parquet"], 5),
    "plot": ("matplotlib", ["timeline", CLIP, "--plot", "picture.png"], 5),
    "ray": ("ray", ["predict", "folder", "--output", "rows.jsonl", "--engine", "ray"], 5),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with typical files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("not audio")
    (tmp_path / "folder").mkdir()
    shutil.copy(CLIP, tmp_path / "folder" / "call.wav")
    shutil.copy(AUDIO / "bright.mp3", tmp_path / "renamed.wav")
    soundfile.write("short.wav", np.sin(np.arange(1600) / 10) / 3, 16_000)
    (tmp_path / "zero.wav").touch()
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 64)
    rows = ["path,label,speaker"]
    for index in range(36):
        noise = np.random.default_rng(index).normal(0, 0.1, 4_000)
        soundfile.write(f"{index}.wav", noise, 16_000)
        rows.append(f"{index}.wav,{('sad', 'happy')[index % 2]},{index // 6}")
    (tmp_path / "voices.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def run(capsys, *words):
    """Exit code and output of a command; a traceback would be an exception here."""
    code = main(list(words))
    shown = capsys.readouterr()
    return code, (shown.out + shown.err).strip()


@pytest.mark.parametrize("extra", EXTRAS)
def test_without_an_extra_one_sentence_names_the_command_that_installs_it(
    extra, here, monkeypatch, capsys
):
    package, words, expected = EXTRAS[extra]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, text = run(capsys, *words)
    assert code == expected
    assert len(text.splitlines()) == 1
    assert text.endswith(f'install it with: pip install "emoser[{extra}]"')


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["predict", "nowhere.wav"], 3, "nowhere.wav does not exist; check the path"),
        (["timeline", "folder"], 3, "folder is a folder; pass its files, or use emoser.bulk"),
        (["timeline", "nowhere.wav"], 3, "nowhere.wav does not exist; check the path"),
        (["predict", "empty"], 3, "empty holds no audio file; name a file"),
        (["predict", "zero.wav"], 3, "zero.wav is empty (0 bytes); record or copy it again"),
        (["predict", "empty/notes.txt"], 3, "pass wav, flac, ogg"),
        (["predict", "renamed.wav"], 0, "2.6 s"),
        (["predict", "short.wav"], 0, "short]"),
        (["predict", CLIP, "--model", "./nofolder"], 4, "is a folder that does not exist"),
        (["evaluate", "emoser-tiny", "no.csv"], 3, "no.csv: no such file or directory; check"),
    ],
    ids=lambda value: (
        " ".join(Path(word).name for word in value) if isinstance(value, list) else ""
    ),
)
def test_an_invalid_file_gives_one_sentence_and_an_unusual_one_a_result(
    words, code, sentence, here, capsys
):
    found, text = run(capsys, *words)
    assert (found, len(text.splitlines())) == (code, 1)
    assert sentence in text


def test_python_raises_the_message_of_the_command(here):
    classifier = EmotionClassifier.from_pretrained(device="cpu")
    with pytest.raises(FileNotFoundError, match=r"^nowhere.wav does not exist; check the path$"):
        classifier.predict("nowhere.wav")
    with pytest.raises(IsADirectoryError, match=r"^folder is a folder; pass its files"):
        classifier.predict("folder")


def test_a_missing_gpu(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    code, text = run(capsys, "predict", CLIP, "--device", "cuda")
    assert (code, len(text.splitlines())) == (5, 1)
    assert "use device='cpu', or install a torch build for your GPU" in text


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:9", "no connection to the Hub"),
        ("HF_HUB_OFFLINE", "1", "is not in the cache; download it once with a network connection"),
    ],
)
def test_no_network_and_a_hub_id(variable, value, sentence, tmp_path, monkeypatch):
    import os

    environment = {**os.environ, "HF_HOME": str(tmp_path), variable: value}
    command = [sys.executable, "-m", "emoser", "predict", CLIP, "--model", "superb/hubert-x"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert sentence in done.stderr
    if variable == "HF_ENDPOINT":
        assert "the bundled emoser-small, which need none" in done.stderr


def test_an_old_python_gets_the_required_version(monkeypatch):
    source = (ROOT / "emoser" / "__init__.py").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(ImportError, match=r"needs Python 3.11 or newer, this is 3\.9; make a"):
        exec(compile(source, "emoser/__init__.py", "exec"), {"__name__": "emoser"})
    stated = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(map(int, stated.groups())) == (3, 11)
