"""Local work makes no connection: neither emoser nor any library under it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from support.voices import write_voices

from emoser.audio import SAMPLING_RATE, load_audio
from emoser.telemetry import VARIABLES

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "audio" / "plain.wav"
TINY = ("--model", "emoser-tiny")
HUB = "HF_HUB_OFFLINE"  # set on some machines; without it the Hub could be asked
INTERNET = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*AF_INET")
LOOPBACK = re.compile(r'"127\.|"::1"')
NAMES_ASKED = "htons(53)"  # the port of a resolver, which may be on this machine


def environment(home: Path, **changes: str) -> dict[str, str]:
    """A home without choices about telemetry, and no proof of an automatic build."""
    unset = {*VARIABLES, HUB, "CI", "DO_NOT_TRACK", "DISABLE_TELEMETRY", "EMOSER_CACHE"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = os.pathsep.join([str(ROOT), kept.get("PYTHONPATH", "")])
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": path, **changes}


def run_python(code: str, home: Path, *words: object, **changes: str) -> str:
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(
        command, env=environment(home, **changes), capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


SETTINGS = """
import json, os, sys, emoser
heavy = {"torch", "transformers", "huggingface_hub", "onnxruntime", "numpy"} & set(sys.modules)
print(json.dumps([dict(os.environ), sorted(heavy)]))
"""


def test_the_variables_are_set_before_any_library_is_imported(tmp_path):
    found, heavy = json.loads(run_python(SETTINGS, tmp_path))
    assert {name: found[name] for name in VARIABLES} == dict(VARIABLES)
    assert heavy == []


def test_what_the_user_has_chosen_stays(tmp_path):
    chosen = {"ORT_DISABLE_TELEMETRY": "0", "GRADIO_ANALYTICS_ENABLED": "True"}
    found, _ = json.loads(run_python(SETTINGS, tmp_path, **chosen))
    assert {name: found[name] for name in chosen} == chosen


HEEDED = """
import emoser
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""


def test_huggingface_hub_heeds_its_variable(tmp_path):
    assert run_python(HEEDED, tmp_path) == "True"


AUDITED = """
import sys
asked = []
def audit(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        asked.append((event, str(arguments)))
sys.addaudithook(audit)
from emoser.cli import main
for backend in ("torch", "openvino", "onnx"):
    main(["predict", sys.argv[1], "--model", "emoser-tiny", "--backend", backend])
main(["doctor", "emoser-tiny"])
print(asked, "openvino_telemetry" in sys.modules)
"""


def test_no_engine_asks_for_a_connection(tmp_path):
    for name in ("openvino", "onnxruntime"):
        pytest.importorskip(name)
    # urllib3 opens a port on the own machine to see whether it has IPv6
    shown = run_python(AUDITED, tmp_path, CLIP)
    assert re.sub(r"\('socket\.bind', [^)]*'::1', 0[^)]*\)+\"?\),? ?", "", shown) == "[] False"
    assert not (tmp_path / "Microsoft").exists()


PREDICT_FOR = """
import sys, time
from emoser import EmotionClassifier
classifier = EmotionClassifier.from_pretrained("emoser-tiny", backend=sys.argv[1], device="cpu")
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    classifier.predict(sys.argv[2])
    time.sleep(0.1)
"""
SENDING_SECONDS = 30  # ONNX Runtime sends after some seconds


@pytest.fixture
def recordings(tmp_path):
    """A table of tones of three voices, and a folder with their recordings."""
    folder = tmp_path / "voices"
    folder.mkdir()
    rows = write_voices(folder, 120, num_voices=3, noise=0.01, suffix=".wav")
    lines = [f"{path.name},{label},{voice}" for path, label, voice in rows]
    table = folder / "voices.csv"
    table.write_text("\n".join(["path,label,speaker", *lines]) + "\n")
    return folder


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    """What is traced, by name."""
    table, emoser = str(folder / "voices.csv"), [sys.executable, "-m", "emoser"]
    tuning = ["--base", "emoser-tiny", "--mode", "frozen", "--epochs", "2"]
    int8 = ["--int8", "--calibrate", str(folder)]
    return {
        **{
            f"predict {name}": [sys.executable, "-c", PREDICT_FOR, name, str(CLIP), "30"]
            for name in ("torch", "openvino", "onnx")
        },
        "export onnx": [*emoser, "export", "emoser-tiny", str(out / "onnx"), "--to", "onnx"],
        "export openvino": [*emoser, "export", "emoser-tiny", str(out / "ov"), "--to", "openvino"],
        "int8": [*emoser, "export", "emoser-tiny", str(out / "8"), "--to", "openvino", *int8],
        "finetune": [*emoser, "finetune", table, "--output", str(out / "run"), *tuning],
        "evaluate": [*emoser, "evaluate", "emoser-tiny", table],
        "bench": [*emoser, "bench", *TINY, "--seconds", "0.2", "--rounds", "1"],
        "doctor": [*emoser, "doctor", "emoser-tiny"],
        "convert": [*emoser, "convert", "emoser-tiny", str(out / "copy")],
        "timeline": [*emoser, "timeline", str(CLIP), *TINY],
        "listen": [*emoser, "listen", "-", *TINY],
        "card": [*emoser, "card", "emoser-tiny"],
        "demo": [*emoser, "demo", *TINY, "--port", "7893"],
        "serve": [*emoser, "serve", *TINY, "--port", "7894"],
    }


NAMES = list(commands(Path(), Path()))
ENDLESS = ("demo", "serve")
MAY_REFUSE = ("int8",)  # tones are not speech, so that int8 may change too many labels


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_system_call_reaches_another_machine(name, recordings, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    command = commands(recordings, tmp_path)[name]
    speech = tmp_path / "speech.raw"  # what `listen` gets; no other command reads it
    soundfile.write(speech, load_audio(CLIP), SAMPLING_RATE, subtype="PCM_16")
    process = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), *command],
        env=environment(home),
        stdin=speech.open("rb"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if name in ENDLESS:
        time.sleep(SENDING_SECONDS)
        os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    if name not in (*ENDLESS, *MAY_REFUSE):
        assert process.returncode == 0, errors.decode()
    calls = trace.read_text(errors="replace").splitlines()
    sent = [call for call in calls if INTERNET.search(call)]
    if name in ENDLESS:  # it asks itself whether it serves
        sent = [call for call in sent if NAMES_ASKED in call or not LOOPBACK.search(call)]
    assert sent == []
    assert not (home / "Microsoft").exists()
    assert not (home / "intel").exists()
