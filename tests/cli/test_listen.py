"""`emoser timeline` and `emoser listen`, on a terminal and in a pipe."""

import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from support.fakes import voice_and_pauses
from support.models import loud_model, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model
from emoser.cli import main

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(loud_model(small_config()), tmp_path_factory.mktemp("live") / "model"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "call.wav"
    soundfile.write(path, voice_and_pauses([(4, 0.1), (3, 0.0), (3, 0.3)]), RATE)
    return path


@pytest.fixture(scope="module")
def timeline(model, recording):
    return EmotionClassifier.from_pretrained(model, device="cpu").timeline(recording)


@pytest.mark.parametrize(
    ("notation", "method"),
    [("srt", "to_srt"), ("vtt", "to_webvtt"), ("csv", "to_csv"), ("rttm", "to_rttm"),
     ("textgrid", "to_textgrid"), ("audacity", "to_audacity")],
)  # fmt: skip
def test_every_format_is_printed(capsys, model, recording, timeline, notation, method):
    code = main(["timeline", str(recording), "--model", model, "--format", notation])
    assert (code, capsys.readouterr().out) == (0, getattr(timeline, method)())


def test_the_default_output_is_segments_and_shares(capsys, model, recording, timeline):
    assert main(["timeline", str(recording), "--model", model]) == 0
    *lines, shares = capsys.readouterr().out.splitlines()
    assert lines == str(timeline).splitlines()
    assert "silence" in shares
    assert "%" in shares


def test_json_is_one_object(capsys, model, recording, timeline):
    assert main(["timeline", str(recording), "--model", model, "--json", "--vad", "none"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["windows"]) == len(timeline.windows)
    assert {segment["kind"] for segment in values["segments"]} <= {"emotion", "uncertain"}


def test_errors_are_one_sentence(capsys, model, recording, tmp_path):
    for words, code in (
        (["timeline", str(tmp_path / "missing.wav")], 3),
        (["timeline", str(recording), "--hop", "9"], 2),
        (["timeline", str(recording), "--channel", "7"], 3),
        (["listen", str(recording)], 2),
        (["listen", "-", "--window", "99"], 2),
    ):
        assert main([*words, "--model", model]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1


def raw_pcm(recording):
    samples, _ = soundfile.read(recording, dtype="int16")
    return np.stack([samples, samples], axis=1).tobytes()


def test_a_pipe_gives_the_segments_of_the_file(model, recording, timeline):
    command = [sys.executable, "-m", "emoser", "listen", "-", "--channels", "2", "--json"]
    done = subprocess.run(
        [*command, "--model", model, "--device", "cpu"],
        input=raw_pcm(recording),
        capture_output=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["start"], row["end"], row["kind"], row["label"]) for row in rows] == [
        (round(item.start, 3), round(item.end, 3), item.kind, item.label)
        for item in timeline.segments
    ]
    assert done.stderr == b""


def test_a_terminal_shows_one_status_line(model, recording, timeline):
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "emoser", "listen", "-", "--channels", "2", "--model", model]
    done = subprocess.run(
        command, input=raw_pcm(recording), stdout=subprocess.PIPE, stderr=slave, check=True
    )
    os.close(slave)
    screen = b""
    try:
        while data := os.read(master, 65536):
            screen += data
    except OSError:  # Linux ends a terminal without a writer like this
        pass
    os.close(master)
    assert done.stdout.decode().splitlines() == str(timeline).splitlines()
    assert b"silence" in screen
    assert screen.count(b"\r\x1b[2K") > 50
    assert b"\n" not in screen
