"""`emoser predict --turns`, `--diarize`, `--start` and `--end`: rows, formats and exit codes."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pysubs2
import pytest
import soundfile

from emoser import EmotionClassifier
from emoser.cli import main
from emoser.inference.adaptation import MIN_RECORDINGS
from emoser.results.transcripts.reading import parse_turns

CLIP = Path(__file__).parents[2] / "examples" / "audio" / "plain.wav"
RTTM = "SPEAKER x 1 1.2 0.8 <NA> <NA> ben\nSPEAKER x 1 0.0 1.0 <NA> <NA> anna\n"
LATE = RTTM + "SPEAKER x 1 7.0 1.0 <NA> <NA> ben\n"


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier.from_pretrained("emoser-tiny")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "call.rttm").write_text(RTTM)
    (tmp_path / "late.rttm").write_text(LATE)

    def run(*words):
        try:
            code = main(["predict", "--model", "emoser-tiny", *map(str, words)])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def test_each_turn_has_a_row_and_each_speaker_a_summary(run, classifier):
    code, out, err = run(CLIP, "--turns", "call.rttm")
    assert (code, err) == (0, "")
    first, second = (classifier.predict(CLIP, start=a, end=b) for a, b in [(1.2, 2.0), (0.0, 1.0)])
    lines = out.splitlines()
    assert lines[0] == f"0:01.20 - 0:02.00  ben  {first.label} {first.score:.2f}"
    assert lines[1] == f"0:00.00 - 0:01.00  anna  {second.label} {second.score:.2f}"
    assert [line.split(":")[0] for line in lines[2:]] == ["anna", "ben"]
    rows = [
        json.loads(line) for line in run(CLIP, "--turns", "call.rttm", "--json")[1].splitlines()
    ]
    assert [row["speaker"] for row in rows] == ["ben", "anna"]
    assert rows[0]["scores"] == pytest.approx(dict(first.scores), abs=1e-6)
    table = list(csv.DictReader(io.StringIO(run(CLIP, "--turns", "call.rttm", "--csv")[1])))
    assert [row["label"] for row in table] == [first.label, second.label]


def test_speakers_with_enough_turns_are_adapted_to(run, classifier):
    spans = [(round(0.25 * number, 2), round(0.25 * number + 0.9, 2)) for number in range(8)]
    rows = [f"SPEAKER x 1 {start} 0.9 <NA> <NA> anna\n" for start, _ in spans]
    Path("eight.rttm").write_text("".join(rows) + "SPEAKER x 1 0.0 1.0 <NA> <NA> ben\n")
    words = (CLIP, "--turns", "eight.rttm", "--adapt-speakers")
    expected = classifier.predict_turns(CLIP, "eight.rttm", adapt_speakers=True)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    too_few = "not adapted: 1 turn with speech; at least 8 are needed"
    assert [line.rpartition("; ")[2] for line in out.splitlines()[9:10]] == ["adapted by 8 turns"]
    assert out.splitlines()[10].endswith(f"; {too_few}")
    code, out, err = run(*words, "--json")
    found = [json.loads(line)["scores"] for line in out.splitlines()]
    assert found[0] == pytest.approx(dict(expected[0].scores), abs=1e-6)
    plain = [json.loads(line)["scores"] for line in run(*words[:-1], "--json")[1].splitlines()]
    assert found[:8] != plain[:8]
    assert found[8] == plain[8]
    assert code == 0
    assert err == f"emoser: anna: adapted by 8 turns\nemoser: ben: {too_few}\n"
    shown = " ".join(run("--help")[1].split())
    assert f"at least {MIN_RECORDINGS} turns with speech; makes answers worse" in shown


def test_formats_are_those_of_other_programs(run):
    for name in ("srt", "vtt", "rttm", "textgrid"):
        code, out, _ = run(CLIP, "--turns", "call.rttm", "--format", name, "--plot", f"{name}.png")
        assert code == 0
        found = sorted(parse_turns(out.encode(), name=name), key=lambda turn: turn.start)
        assert [turn.speaker for turn in found] == ["anna", "ben"]
        assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")
    subtitles = pysubs2.SSAFile.from_string(run(CLIP, "--turns", "call.rttm", "--format", "srt")[1])
    assert [cue.start for cue in subtitles] == [0, 1200]


def test_a_turn_without_an_answer_keeps_its_row(run):
    code, out, err = run(CLIP, "--turns", "late.rttm", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 3
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "has no samples between 7 and 8 s" in rows[2]["error"]
    assert err == "emoser: 1 of 3 turns could not be predicted\n"


@pytest.mark.parametrize("vad", ["energy", "silero"])
def test_each_channel_is_a_speaker(vad, run, tmp_path):
    if vad == "silero":
        pytest.importorskip("silero_vad")
    speech, rate = soundfile.read(CLIP)
    sides = np.zeros((2 * len(speech) + rate, 2))
    sides[: len(speech), 0] = sides[-len(speech) :, 1] = speech
    soundfile.write("call.wav", sides, rate)
    code, out, _ = run("call.wav", "--diarize", "--json", "--vad", vad)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["speaker"] for row in rows] == ["channel 0 (left)", "channel 1 (right)"]
    bounds = [(round(row["start"], 1), round(row["end"], 1)) for row in rows]
    assert all(0 <= start < end <= 3 for start, end in bounds[:1])
    assert all(3 <= start < end <= 6 for start, end in bounds[1:])


def test_a_piece_is_predicted_alone(run, classifier):
    code, out, _ = run(CLIP, "--start", "0.5", "--end", "1.5", "--json")
    expected = classifier.predict(CLIP, start=0.5, end=1.5)
    assert code == 0
    assert json.loads(out)["duration"] == 1.0
    assert json.loads(out)["scores"] == pytest.approx(dict(expected.scores), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.wav", "--turns", "call.rttm"], 3, "none.wav does not exist"),
        ([CLIP, "--turns", "none.rttm"], 3, "none.rttm: no such file"),
        ([CLIP, "--turns", CLIP], 3, "not UTF-8 text"),
        ([CLIP, CLIP, "--turns", "call.rttm"], 2, "take one recording"),
        ([".", "--diarize"], 2, "take one recording"),
        (["-", "--diarize"], 2, "can be read only once"),
        ([CLIP, "--diarize", "--channel", "left"], 2, "turns are found on all channels"),
        ([CLIP, "--turns", "call.rttm", "--diarize"], 2, "not allowed with"),
        ([CLIP, "--turns", "call.rttm", "--channel", "each", "--top-k", "1"], 2, "--top-k"),
        ([CLIP, "--format", "srt"], 2, "pass --turns or --diarize"),
        ([CLIP, "--adapt-speakers"], 2, "pass --turns or --diarize"),
        ([CLIP, "--start", "2", "--end", "1"], 2, "is empty"),
        ([CLIP, "--start", "9"], 3, "has no samples after 9 s"),
        ([".", "--start", "1"], 2, "take one recording"),
        ([".", "--output", "a.csv", "--turns", "call.rttm"], 2, "cannot be combined"),
        ([".", "--output", "a.csv", "--adapt-speakers"], 2, "cannot be combined"),
    ],
)
def test_errors_are_one_sentence_with_an_exit_code(run, words, code, message):
    found, _, err = run(*words)
    assert found == code
    assert message in err
