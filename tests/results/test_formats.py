"""What timelines are written as is read back by other people's programs."""

import csv
import io
from pathlib import PurePath

import numpy as np
import pytest
from support.fakes import formula_classifier, voice_and_pauses

from emoser.results.formats import write_csv, write_rttm, write_srt, write_textgrid, write_webvtt
from emoser.results.segments import Segment

RATE = 16_000
HOSTILE = 'a"b --> c\n\n<i>&'


@pytest.fixture(scope="module")
def timeline():
    samples = voice_and_pauses([(4.2, 0.1), (3, 0.0), (2, 0.3), (2, 0.01)])
    return formula_classifier().timeline(samples, sampling_rate=RATE)


@pytest.fixture(scope="module")
def stereo():
    left = voice_and_pauses([(4, 0.1), (3, 0.0)])
    right = voice_and_pauses([(3, 0.0), (4, 0.3)], seed=1)
    return formula_classifier().timeline(
        np.stack([left, right]), sampling_rate=RATE, channel="each"
    )


def spoken(timeline):
    return [segment for segment in timeline.segments if segment.kind != "silence"]


@pytest.mark.parametrize(("notation", "method"), [("srt", "to_srt"), ("vtt", "to_webvtt")])
def test_pysubs2_reads_the_subtitles(timeline, notation, method):
    pysubs2 = pytest.importorskip("pysubs2")
    cues = pysubs2.SSAFile.from_string(getattr(timeline, method)(), format_=notation)
    assert len(cues) == len(spoken(timeline)) > 1
    for cue, segment in zip(cues, spoken(timeline), strict=True):
        assert (cue.start, cue.end) == (round(segment.start * 1000), round(segment.end * 1000))
        assert cue.plaintext.split()[0] == segment.name


def test_webvtt_py_reads_the_subtitles(timeline):
    webvtt = pytest.importorskip("webvtt")
    cues = list(webvtt.from_string(timeline.to_webvtt()))
    assert [cue.text.split()[0] for cue in cues] == [item.name for item in spoken(timeline)]
    assert cues[0].start_in_seconds == int(spoken(timeline)[0].start)


def test_hostile_labels_stay_inside_their_cue():
    pysubs2 = pytest.importorskip("pysubs2")
    segments = [Segment(0, 1, "emotion", HOSTILE, 0.5, {HOSTILE: 0.5}), Segment(1, 2, "uncertain")]
    for text, notation in ((write_srt(segments), "srt"), (write_webvtt(segments), "vtt")):
        assert len(pysubs2.SSAFile.from_string(text, format_=notation)) == 2
    assert "<i>" not in write_webvtt(segments)
    (first, _) = write_rttm(segments, name="a b").splitlines()
    assert len(first.split()) == 10


def test_rttm_says_what_pyannote_would_write(timeline):
    core = pytest.importorskip("pyannote.core")
    annotation = core.Annotation(uri="call")
    for segment in spoken(timeline):
        annotation[core.Segment(segment.start, segment.end)] = segment.name
    ours = write_rttm(timeline.segments, name="call").splitlines()
    theirs = annotation.to_rttm().splitlines()
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        own, other = own.split(), other.split()
        assert own[:3] + own[5:8] == other[:3] + other[5:8]
        assert [float(own[3]), float(own[4])] == pytest.approx(
            [float(other[3]), float(other[4])], abs=2e-3
        )


def test_rttm_numbers_channels_from_one(stereo):
    channels = {line.split()[2] for line in stereo.to_rttm().splitlines()}
    assert channels == {"1", "2"}
    assert PurePath(stereo.source).stem.split()[0] in stereo.to_rttm()


def test_praatio_reads_the_textgrid(timeline, stereo, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    for item, tiers in ((timeline, ("emotion",)), (stereo, ("channel 0", "channel 1"))):
        file = tmp_path / "a.TextGrid"
        file.write_text(item.to_textgrid(), encoding="utf-8")
        grid = textgrid.openTextgrid(str(file), includeEmptyIntervals=True)
        assert grid.tierNames == tiers
        for name, part in zip(tiers, item.per_channel(), strict=True):
            entries = grid.getTier(name).entries
            assert [entry.label for entry in entries] == [s.name for s in part.segments]
            assert entries[0].start == 0
            assert entries[-1].end == pytest.approx(item.duration, abs=1e-5)


def test_textgrid_reads_a_quotation_mark(tmp_path):
    textgrid = pytest.importorskip("textgrid")
    file = tmp_path / "a.TextGrid"
    segments = [Segment(0, 1, "emotion", 'so "sad"', 0.5, {'so "sad"': 0.5})]
    file.write_text(write_textgrid(segments, duration=1.0), encoding="utf-8")
    assert textgrid.TextGrid.fromFile(str(file))[0][0].mark == 'so "sad"'


def test_audacity_labels_are_three_columns(timeline):
    rows = [line.split("\t") for line in timeline.to_audacity().splitlines()]
    assert [float(row[0]) for row in rows] == [item.start for item in timeline.segments]
    assert [row[2].split()[0] for row in rows] == [item.name for item in timeline.segments]


def test_the_table_can_be_read_back_and_holds_no_formula(timeline):
    rows = list(csv.DictReader(io.StringIO(timeline.to_csv())))
    assert [row["kind"] for row in rows] == [item.kind for item in timeline.segments]
    assert float(rows[0]["score"]) == pytest.approx(timeline.segments[0].score, abs=1e-6)
    text = write_csv([Segment(0, 1, "emotion", "=1+1", 0.5, {"=1+1": 0.5})], labels=["=1+1"])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["label"] == "'=1+1"
    assert row["'=1+1"] == "0.500000"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1, "joy"), "kind is 'joy'"),
        ((0, 1, "emotion"), "has the label None"),
        ((2, 1, "silence"), "does not exist"),
    ],
    ids=["kind", "label", "times"],
)
def test_impossible_segments_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Segment(*values)
