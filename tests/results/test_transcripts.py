"""Turns from the files of other programs, and turns written for them, read by their libraries."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pysubs2
import pytest
import webvtt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from praatio import textgrid

from emoser.errors import TurnsError
from emoser.results.conversation import Conversation
from emoser.results.prediction import Prediction
from emoser.results.svg import colours_of
from emoser.results.transcripts.reading import parse_turns, read_turns
from emoser.results.turns import Turn, find_overlaps

EXPECTED = [(0.5, 2.25, "Anna", "well, well"), (2.0, 4.0, "Ben Li", "so: what?")]
RTTM = """;; a comment
SPKR-INFO call 1 <NA> <NA> <NA> unknown Anna <NA> <NA>
SPEAKER call 1 0.500 1.750 <NA> <NA> Anna <NA> <NA>
SPEAKER call 2 2.000 2.000 <NA> <NA> <NA> 0.9
"""
SRT = """\ufeff1\r
00:00:00,500 --> 00:00:02,250 X1:10 X2:20\r
[Anna]: <i>well,</i>\r
well\r
\r
2\r
00:00:02.000 --> 00:00:04.000\r
Ben Li: so: what?\r
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE 00:00 is no cue

STYLE
::cue { color: red }

first
00:00.500 --> 00:02.250 line:0
<v.loud Anna>well, <b>well</b></v>

00:00:02.000 --> 00:00:04.000
<v Ben Li>so: what?
"""
WHISPERX = json.dumps(
    {
        "segments": [
            {"start": 0.5, "end": 2.25, "text": " well, well", "speaker": "Anna", "words": []},
            {"start": 2, "end": 4, "text": " so: what?", "speaker": "Ben Li"},
        ],
        "language": "en",
    }
)
CSV = "Start;End;Speaker;Text\n0.5;00:02.25;Anna;well, well\n2;4;Ben Li;so: what?\n\n"
TSV = "0.5\t2.25\tAnna\twell, well\n2.0\t4.0\tBen Li\tso: what?\n"
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT><TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="t2" TIME_VALUE="2250"/>
<TIME_SLOT TIME_SLOT_ID="t3" TIME_VALUE="2000"/><TIME_SLOT TIME_SLOT_ID="t4" TIME_VALUE="4000"/>
<TIME_SLOT TIME_SLOT_ID="t5"/></TIME_ORDER>
<TIER TIER_ID="a" PARTICIPANT="Anna"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="1"
TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2"><ANNOTATION_VALUE>well, well</ANNOTATION_VALUE>
</ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="Ben Li"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="2" TIME_SLOT_REF1="t3"
TIME_SLOT_REF2="t4"><ANNOTATION_VALUE>so: what?</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER>
<TIER TIER_ID="words" PARENT_REF="a"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="3"
TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t5"/></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"""
LINES = "\n".join(json.dumps(row) for row in json.loads(WHISPERX)["segments"])


def fields(turns):
    return [(turn.start, turn.end, turn.speaker, turn.text) for turn in turns]


@pytest.mark.parametrize("content", [SRT, VTT, WHISPERX, LINES, CSV, TSV, EAF],
                         ids=["srt", "vtt", "json", "jsonl", "csv", "tsv", "eaf"])  # fmt: skip
def test_every_format_gives_the_same_turns(content, tmp_path):
    file = tmp_path / "turns.of-any-suffix"
    file.write_text(content, encoding="utf-8", newline="")
    assert fields(read_turns(file)) == EXPECTED
    assert fields(parse_turns(content.encode("utf-16"), name="x")) == EXPECTED or content is SRT


def test_rttm_gives_the_turns_of_its_recording():
    found = parse_turns(RTTM.encode(), name="call.rttm")
    assert found == (Turn(0.5, 2.25, "Anna", channel=0), Turn(2.0, 4.0, channel=1))
    other = RTTM + "SPEAKER talk 1 1 1 <NA> <NA> Cy <NA> <NA>\n"
    assert parse_turns(other.encode(), name="x", recording="calls/talk.wav")[0].speaker == "Cy"
    with pytest.raises(TurnsError, match="x: it holds turns of call, talk, none of which"):
        parse_turns(other.encode(), name="x", recording="third.wav")


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_textgrids_of_praat_are_read(form, tmp_path):
    grid = textgrid.Textgrid()
    for start, end, name, text in EXPECTED:
        grid.addTier(textgrid.IntervalTier(name, [(start, end, f'{text} "x"')], 0, 6))
    grid.addTier(textgrid.PointTier("clicks", [(1.0, "click")], 0, 6))
    grid.save(str(tmp_path / "a.TextGrid"), format=form, includeBlankSpaces=True)
    found = fields(read_turns(tmp_path / "a.TextGrid"))
    assert found == [(*row[:3], f'{row[3]} "x"') for row in EXPECTED]


def test_an_emotion_is_a_turn_only_where_its_speaker_has_no_text(tmp_path):
    tiers = {
        "anna (emotion)": [(0, 1, "sad"), (2, 3, "happy"), (3, 4, "sad")],  # before its speaker
        "anna": [(0, 0.9, "well"), (3, 4, "so")],  # with a border moved
        "ben (emotion)": [(1, 2, "angry")],
    }
    grid = textgrid.Textgrid()
    for name, rows in tiers.items():
        grid.addTier(textgrid.IntervalTier(name, rows, 0, 6))
    grid.save(str(tmp_path / "a.TextGrid"), format="long_textgrid", includeBlankSpaces=True)
    found = sorted(fields(read_turns(tmp_path / "a.TextGrid")))
    assert found == [
        (0, 0.9, "anna", "well"), (1, 2, "ben", None), (2, 3, "anna", None), (3, 4, "anna", "so"),
    ]  # fmt: skip


def test_objects_of_other_libraries_are_read():
    class Row:  # as the segments of faster-whisper
        def __init__(self, start, end, text):
            self.start, self.end, self.text = start, end, text

    plain = [(0.5, 2.25, None, "well, well"), (2.0, 4.0, None, "so: what?")]
    assert fields(read_turns(Row(a, b, f" {text}") for a, b, _, text in EXPECTED)) == plain
    assert fields(read_turns(EXPECTED)) == EXPECTED
    assert fields(read_turns([list(row) for row in EXPECTED])) == EXPECTED
    assert fields(read_turns(json.loads(WHISPERX))) == EXPECTED
    frame = pd.DataFrame(EXPECTED, columns=["start", "end", "speaker", "text"])
    assert fields(read_turns(frame)) == EXPECTED
    assert fields(read_turns(pd.DataFrame([{"onset": 1, "duration": 2}]))) == [(1, 3, None, None)]
    assert read_turns([]) == ()
    assert read_turns([(1, 2)]) == (Turn(1.0, 2.0),)


def test_annotations_of_pyannote_are_read():
    core = pytest.importorskip("pyannote.core")
    annotation = core.Annotation()
    annotation[core.Segment(0.5, 2.25)] = "Anna"
    annotation[core.Segment(2.0, 4.0)] = "Ben Li"
    assert [row[:3] for row in fields(read_turns(annotation))] == [row[:3] for row in EXPECTED]


GRID = 'File type = "ooTextFile"\n"TextGrid"\n0 1 <exists> 1\n'
BAD = {
    "start,end\n1,later": "line 2 has the time 'later'",
    "a,b\n1,2": "x: it is of no known format, and as a table its columns are a, b",
    "start,end\n1": "line 2 has no start and end",
    "start,end\n1,2,3": "line 2 has 3 cells, more than columns",
    "start,end,channel\n1,2,left": "line 2 has the channel 'left'",
    "start,end\n": "holds no turns",
    "": "holds no turns",
    "{}": "has no list of turns",
    "[1]": r"turns\[0\] is 1",
    '{"segments": [{"text": "a"}]}': r"segments\[0\] has no start",
    "[": "not valid JSON",
    "SPEAKER a 1 0.5": "line 1 has 4 fields",
    "SPEAKER a 1 now 1 <NA> <NA> b": "line 1 has the time 'now'",
    f'{GRID}"IntervalTier" "a" 0 1 2 0': "ends before",
    f'{GRID}"Pitch" "a"': "unknown class 'Pitch'",
    f'{GRID}"IntervalTier" 0': "name of tier 1 is missing, 0 stands in its place",
    f"{GRID[:-2]}1e999": "the number of tiers has the time '1e999'",
    '[{"start": 0, "end": 1' + "0" * 400 + "}]": "has the time '1000",
    "<html/>": "XML of another kind",
    "<a": "damaged XML",
    "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>": "declares a document type",
    EAF.replace('PARENT_REF="a"', ""): "annotation 3 of tier words has no time",
    "\xff\xfe".encode("latin-1"): "holds no turns",
    b"\x80abc": "not UTF-8 text",
}


@pytest.mark.parametrize("time", ["nan", "inf", "-Infinity", "1e400"])
def test_times_that_are_not_finite_are_refused(time):
    for content in (
        f"SPEAKER call 1 {time} 1 <NA> <NA> anna <NA> <NA>\n",
        f"SPEAKER call 1 0 {time} <NA> <NA> anna <NA> <NA>\n",
        f"start,end\n0,{time}\n",
        f'[{{"start": 0, "end": "{time}"}}]',
    ):
        with pytest.raises(TurnsError, match=r"has the time .*; write seconds"):
            parse_turns(content.encode(), name="x")


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_damage_ends_in_one_sentence(content):
    data = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(TurnsError, match=BAD[content]) as caught:
        parse_turns(data, name="x")
    assert "x" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["\n", "<v a", "{\\\\", "00:", "a: ", "[", '"'])
def test_hostile_files_take_no_long_time(part):
    for start in ("WEBVTT\n\n00:00.0 --> 00:01.0\n", "", "start,end\n", "{", 'ooTextFile "'):
        with contextlib.suppress(TurnsError):
            parse_turns((start + part * 100_000).encode(), name="x")


def test_turns_that_all_overlap_are_refused():
    turns = read_turns([(0, 100 + place) for place in range(101)])
    assert all(find_overlaps(turns[:100], by_channel=False))
    with pytest.raises(TurnsError, match="more than 100 turns overlap at 0 s"):
        find_overlaps(turns, by_channel=False)


@pytest.mark.parametrize("turns", [b"abc", 3, {}, ["call.wav"], [(1,)], [(1, 2, 3, 4, 5)]])
def test_what_is_no_turns_is_refused(turns):
    with pytest.raises(TurnsError):
        read_turns(turns)


def answered(label, seconds, **scores):
    shares = {"angry": 0.1, "sad": 0.1, label: 0.9, **scores}
    return Prediction.from_scores(shares, duration=seconds, quality=("clipped",))


CALL = Conversation(
    (
        Turn(2.0, 4.0, "Ben Li", 'so: "what" --> <b>?', 1, answered("angry", 2.0)),
        Turn(0.5, 2.25, "Anna", "well,\nwell", 0, answered("sad", 1.75)),
        Turn(4.0, 5.0, "Anna", "=1+1", 0, answered("angry", 1.0), flags=("overlap",)),
        Turn(4.5, 6.0, "Anna", None, 0, answered("angry", 1.5)),
        Turn(7.0, 8.0, None, "?", error=TurnsError("it is lost")),
    ),
    labels=("angry", "sad"),
    source="calls/a call.wav",
)


def test_the_subtitles_are_read_by_others():
    for found in (
        pysubs2.SSAFile.from_string(CALL.to_srt()),
        pysubs2.SSAFile.from_string(CALL.to_webvtt(), format_="vtt"),
    ):
        assert [(cue.start, cue.end) for cue in found] == [
            (500, 2250), (2000, 4000), (4000, 5000), (4500, 6000), (7000, 8000)
        ]  # fmt: skip
        assert "(sad 90 %) well, well" in found[0].plaintext
    cues = webvtt.from_buffer(io.StringIO(CALL.to_webvtt())).captions
    assert [cue.voice for cue in cues] == ["Anna", "Ben Li", "Anna", "Anna", None]
    assert "(angry 90 %)" in cues[1].text
    read = parse_turns(CALL.to_webvtt().encode(), name="x")
    assert read[1].text == '(angry 90 %) so: "what" -> <b>?'
    assert [turn.speaker for turn in parse_turns(CALL.to_srt().encode(), name="x")] == [
        "Anna", "Ben Li", "Anna", "Anna", None
    ]  # fmt: skip


def test_the_textgrid_is_read_by_praatio_and_back(tmp_path):
    (tmp_path / "a.TextGrid").write_text(CALL.to_textgrid(), encoding="utf-8")
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert grid.tierNames == (
        "Anna", "Anna (emotion)", "Anna 2", "Anna 2 (emotion)", "Ben Li", "Ben Li (emotion)",
        "unknown", "unknown (emotion)",
    )  # fmt: skip
    assert [tuple(entry) for entry in grid.getTier("Anna (emotion)").entries] == [
        (0.5, 2.25, "sad 0.90"), (4.0, 5.0, "angry 0.90")
    ]  # fmt: skip
    assert grid.maxTimestamp == 8.0
    read = read_turns(tmp_path / "a.TextGrid")
    assert (0.5, 2.25, "Anna", "well, well") in fields(read)


def test_the_rttm_keeps_speakers_and_is_read_by_pyannote(tmp_path):
    lines = [line.split() for line in CALL.to_rttm().splitlines()]
    assert {len(line) for line in lines} == {10}
    assert lines[0] == "SPEAKER a_call 2 2.000 2.000 <NA> angry Ben_Li 0.900 <NA>".split()
    read = parse_turns(CALL.to_rttm().encode(), name="x", recording="a call.wav")
    assert [(turn.start, turn.end) for turn in read] == [(t.start, t.end) for t in CALL]
    util = pytest.importorskip("pyannote.database.util")
    (tmp_path / "a.rttm").write_text(CALL.to_rttm())
    assert set(util.load_rttm(tmp_path / "a.rttm")["a_call"].labels()) >= {"Anna", "Ben_Li"}


def test_tables_hold_every_turn():
    table = pd.read_csv(io.StringIO(CALL.to_csv()))
    frame = CALL.to_frame()
    for found in (table, frame):
        assert found["speaker"].tolist()[:4] == ["Ben Li", "Anna", "Anna", "Anna"]
        assert found["label"].tolist()[:4] == ["angry", "sad", "angry", "angry"]
        assert found["error"].tolist()[4] == "it is lost"
        assert found["quality"].tolist()[2] == "overlap clipped"
    assert table["text"][2] == "'=1+1"  # which a spreadsheet would compute
    assert frame["score_sad"].tolist()[:2] == [0.1, 0.9]
    assert table["angry"].tolist()[:2] == [0.9, 0.1]
    assert json.loads(json.dumps(CALL.to_dict()))["turns"][0]["scores"]["angry"] == 0.9


def test_the_summary_is_by_time():
    summary = CALL.summary()
    assert list(summary) == ["Anna", "Ben Li", "unknown"]
    anna = summary["Anna"]
    assert (anna.num_turns, anna.switches, anna.seconds) == (3, 1, 4.25)
    assert anna.shares == pytest.approx({"angry": 2.5 / 4.25, "sad": 1.75 / 4.25})
    assert list(anna.shares) == ["angry", "sad"]
    assert summary["unknown"].shares == {}
    assert str(summary["unknown"]) == "unknown: 1.0 s in 1 turn; 0 switches"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_short_turns_of_a_long_call_keep_their_colour(theme):
    """Each of them is a pixel wide; its outline has the colour of the paper."""
    sad = Prediction.from_scores({"sad": 0.9, "angry": 0.1}, duration=0.5)
    turns = [
        Turn(60.0 * minute, 60.0 * minute + 0.5, "anna", prediction=sad) for minute in range(1, 50)
    ]
    end = Turn(3_050.0, 3_100.0, "anna")  # without an answer, so an outline
    figure = Conversation((*turns, end), ("sad", "angry")).plot(theme=theme)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    box = figure.axes[0].get_window_extent()
    lane = pixels[round(len(pixels) - (box.y0 + box.y1) / 2), round(box.x0) - 1 : round(box.x1)]
    colour = 255 * np.array(to_rgb(colours_of(("sad", "angry"))["sad"]))
    paper = lane[len(lane) // 100]  # before the first turn
    shares = (lane - paper) @ (colour - paper) / ((colour - paper) @ (colour - paper))
    inked = np.split(shares, np.flatnonzero(shares < 0.02))
    assert sum(part.sum() > 0.7 for part in inked) == len(turns)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_have_a_lane_per_speaker(theme, tmp_path):
    figure = CALL.plot(tmp_path / "call.svg", theme=theme)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Anna", "Ben Li", "unknown"]
    assert len(axes.collections) == len(CALL)
    assert (tmp_path / "call.svg").read_text().startswith("<?xml")
    page = CALL._repr_html_()
    assert page.count("<rect") == len(CALL) + 2  # with the legend
    assert "Ben Li: 2.0 s in 1 turn" in page
    with pytest.raises(ValueError, match="theme is 'blue'"):
        CALL.plot(theme="blue")
