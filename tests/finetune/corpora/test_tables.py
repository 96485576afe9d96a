"""Tables as people and programs write them; pandas, pyarrow and Python's codecs wrote these."""

import bz2
import gzip
import json
import lzma
import sys
import unicodedata

import numpy as np
import pytest
import soundfile

from emoser.errors import DependencyError
from emoser.finetune import Utterance, read_corpus
from emoser.finetune.corpora.columns import MISSING
from emoser.labels import canonical_label

SECONDS = 4.0
PLAIN = "path,label,speaker\na.wav,ANGER,7\nb.wav,sad,8\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("calls")
    (place / "clips").mkdir()
    for name in ("a", "b", "größe", "clips/c"):
        soundfile.write(place / f"{name}.wav", np.zeros(round(SECONDS * 8000)), 8000)
    return place


@pytest.fixture
def read(folder):
    """Rows of a table with this content: path, label, speaker, start and end."""

    def read_content(content, name="table.csv", *, encoding="utf-8"):
        data = content if isinstance(content, bytes) else content.encode(encoding)
        (folder / name).write_bytes(data)
        return [
            (item.path.removeprefix(f"{folder}/"), item.label, item.speaker, item.start, item.end)
            for item in read_corpus(folder / name)
        ]

    return read_content


EXPECTED = [("a.wav", "angry", "7", None, None), ("b.wav", "sad", "8", None, None)]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.txt", "table"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=["comma", "semi", "tab", "bar"])
def test_every_delimiter_is_found_whatever_the_file_is_called(read, delimiter, name):
    assert read(PLAIN.replace(",", delimiter), name) == EXPECTED


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("before", ["", "\n\n", "sep=,\n"], ids=["plain", "blank", "sep"])
def test_line_ends_and_blank_lines_do_not_matter(read, before, end):
    assert read((before + PLAIN.replace("\n", "\n\n")).replace("\n", end)) == EXPECTED


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_every_unicode_encoding_is_read(read, encoding):
    text = PLAIN.replace("7", "Zoë’s")
    assert read(text, encoding=encoding)[0] == ("a.wav", "angry", "Zoë’s", None, None)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso8859-15"])
def test_western_tables_name_their_files(read, encoding):
    assert read("path,label\ngröße.wav,sad\n", encoding=encoding)[0][0] == "größe.wav"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    "text", [PLAIN, '{"path": "a.wav", "label": "sad"}\n'], ids=["csv", "json"]
)
def test_packed_tables_are_unpacked(read, pack, text):
    assert read(pack(text.encode()), "table.gz") == read(text)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_of_either_form_find_the_file(read, form):
    text = unicodedata.normalize(form, "path,label\ngröße.wav,sad\n")
    assert read(text)[0][0] == "größe.wav"


@pytest.mark.parametrize(
    "path", ["clips/c.wav", "clips\\c.wav", ".\\clips\\c.wav", " clips/c.wav "]
)
def test_paths_may_have_backslashes_and_spaces(read, folder, path):
    (found,) = read(f"path,label\n{path},sad\n")
    assert (folder / found[0]).samefile(folder / "clips" / "c.wav")


@pytest.mark.parametrize(
    "header",
    ["PATH,LABEL", " Path , Label ", "File Name,Emotion", "file,label", "filename,label",
     "audio,label", "audio_filepath,label", "file_path,emotion", '"path","label"'],
)  # fmt: skip
def test_headers_in_any_case_with_spaces_and_other_names_are_understood(read, header):
    assert read(f"{header}\na.wav,sad\n") == [("a.wav", "sad", None, None, None)]


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("start,end", "1.5,2"), ("start,duration", "1.5,0.5"), ("offset,duration", "1.5,0.5"),
        ("offset,end", "1.5,2"), ("Start Time,End Time", "1.5,2"),
        ("start_ms,end_ms", "1500,2000"), ("Start (s),Duration (ms)", "1.5,500"),
        ("begin,stop", "1.5,2"), ("start,end,duration", "1.5,2,0.5"),
        ("segment_start,dur", "1.5,.5"), ("onset,offset", "1.5,2"),
        ("offset_ms,onset_ms", "2000,1500"), ("onset,duration", "1.5,0.5"),
    ],
)  # fmt: skip
def test_a_piece_is_read_from_whatever_names_its_times(read, header, cells):
    assert read(f"path,label,{header}\na.wav,sad,{cells}\n")[0][3:] == (1.5, 2.0)


@pytest.mark.parametrize("header", ["start,offset", "onset,offset,end", "begin,offset,duration"])
def test_an_offset_that_could_be_a_start_or_an_end_is_refused(read, header):
    cells = ",".join("1" for _ in header.split(","))
    with pytest.raises(ValueError, match=r"'offset' beside .* could be a start or an end; rename"):
        read(f"path,label,{header}\na.wav,sad,{cells}\n")


def test_a_manifest_of_nemo_is_read_with_its_pieces(read):
    rows = [
        {"audio_filepath": "a.wav", "offset": 1.25, "duration": 0.5, "label": "sad", "text": "x"},
        {"audio_filepath": "b.wav", "duration": 4.004, "emotion": "happy"},  # its length, rounded
        {"audio_filepath": "b.wav", "duration": 1.5, "emotion": "happy"},
    ]
    for name in ("manifest.json", "manifest.jsonl"):
        found = read("\n".join(map(json.dumps, rows)), name)
        assert [item[3:] for item in found] == [(1.25, 1.75), (None, None), (None, 1.5)]
    assert read(json.dumps(rows, indent=2), "manifest.json") == found


def test_semicolons_allow_decimal_commas(read):
    assert read("path;label;start;end\na.wav;sad;0,5;1.25\n")[0][3:] == (0.5, 1.25)
    with pytest.raises(ValueError, match="start is '0,5', not a number of seconds"):
        read('path,label,start\na.wav,sad,"0,5"\n')


def test_an_infinite_end_is_the_end_of_the_file(read):
    assert read("path,label,start,end\na.wav,sad,1,inf\n")[0][3:] == (1.0, None)
    assert Utterance("a.wav", "sad", end=float("inf")).end is None


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("start,end", "-1,2", "from -1.0 to 2.0 seconds is empty"),
        ("start,end", "3,2", "from 3.0 to 2.0 seconds is empty"),
        ("start,end", "2,2", "from 2.0 to 2.0 seconds is empty"),
        ("start,end", "inf,2", "from inf to 2.0 seconds is empty"),
        ("start,end", "-inf,inf", "from -inf to None seconds is empty"),
        ("start,end", "0:05,9", "start is '0:05', not a number of seconds"),
        ("start,duration", "1,-2", "duration is -2 seconds"),
        ("start,duration", "1,0", "duration is 0 seconds"),
        ("start,end,duration", "1,2,3", "end is 2, but start and duration give 4"),
        ("start_sample,end_sample", "0,9", "'start_sample' is not in seconds"),
        ("label", "sad", "the columns 'label' and 'label' are the same"),
        ("Label", "sad", "the columns 'label' and 'Label' are the same"),
    ],
)
def test_times_and_columns_that_make_no_sense_are_refused(read, header, cells, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(f"path,label,{header}\na.wav,sad,{cells}\n")
    assert "table.csv" in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_utterance_refuses_such_starts(value):
    with pytest.raises(ValueError, match="seconds is empty"):
        Utterance("a.wav", "sad", start=value)


def spellings():
    """What pandas takes for missing by default, and more."""
    pandas = pytest.importorskip("pandas._libs.parsers")
    return {*pandas.STR_NA_VALUES, *MISSING, "NaN", "Null", "None", "-"}


def test_missing_values_of_every_spelling_are_missing(read, caplog):
    for value in sorted(spellings()):
        rows = f'path,label,speaker,start,end\na.wav,sad,"{value}",{value},{value}\n'
        rows += f"b.wav,{value},x,,\n"
        caplog.clear()
        assert read(rows) == [("a.wav", "sad", None, None, None)], value
        assert "1 row of 2 left out, without a label" in caplog.text
    rows = [{"path": "a.wav", "label": "sad", "speaker": None, "start": float("nan")}]
    assert read(json.dumps(rows), "t.json") == [("a.wav", "sad", None, None, None)]


@pytest.mark.parametrize(
    "label", ["unhappy", "not angry", "happy/sad", "sad (mild)", "no-fear", "happy sad", "sadder"]
)
def test_a_part_of_a_label_is_never_taken_for_it(read, label):
    (found,) = read(f"path,label\na.wav,{label}\n")
    assert found[1] == label.replace("-", " ")


def test_an_alias_in_full_is_translated_and_letters_of_an_unknown_code_are_not(read):
    assert [item[1] for item in read("path,label\na.wav,Happiness\nb.wav,ang\n")] == [
        "happy",
        "angry",
    ]
    assert [item[1] for item in read("path,label\na.wav,N\nb.wav,h\n")] == ["neutral", "happy"]
    assert [item[1] for item in read("path,label\na.wav,A\nb.wav,W\n")] == ["a", "w"]  # EmoDB
    assert canonical_label("生气/angry") == "angry"


def test_sexes_and_unknown_speakers_are_understood(folder):
    (folder / "t.csv").write_text("path,label,Gender,speaker_id\na.wav,sad,Female,Unknown\n")
    (found,) = read_corpus(folder / "t.csv")
    assert (found.sex, found.speaker) == ("f", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,label\n"a.wav,sad\nb.wav,sad\n', r"row 3 is not valid CSV \(unexpected end"),
        ("path,label\na,b.wav,sad\n", "row 2 has 3 cells and the header 2"),
        ("path,label\na.wav," + "x" * 200_000, "field larger than field limit"),
        (b"path,label\na\0.wav,sad\n", "is not a table of text"),
        (b"PK\x03\x04 a spreadsheet", "spreadsheet or an archive; save the table as CSV"),
        (b"\x1f\x8b cut short", "is damaged"),
        (b"PAR1 cut short PAR1", "is damaged"),
        ("", "has the columns none; it needs path"),
        ("a.wav,sad\n", "has the columns a.wav, sad; it needs path"),
        ('[{"path": "a.wav", "label": ["sad"]}]', "item 1: label holds list"),
        ('[1, {"path": "a.wav"}]', "item 1: no JSON object"),
        ('{"path": "a.wav",\n"label": "sad"}', "line 1: no JSON object"),
    ],
    ids=["quote", "cells", "huge", "nul", "xlsx", "gzip", "parquet", "empty", "headless", "list",
         "number", "pretty"],
)  # fmt: skip
def test_what_is_not_a_table_is_refused_in_one_sentence_with_its_name(read, content, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(content)
    assert "table.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_audio_as_a_table_is_refused(folder):
    with pytest.raises(ValueError, match=r"a\.wav is not a table of text"):
        read_corpus(folder / "a.wav")


def test_parquet_and_csv_of_pandas_are_read_alike(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="the extra parquet")
    rows = {
        "path": ["a.wav", "b.wav"], "label": ["sad", "fear"], "speaker": [7, None],
        "start": [None, 1.5], "end": [2.0, float("inf")],
    }  # fmt: skip
    frame = pandas.DataFrame(rows).astype({"label": "category"})
    frame.to_parquet(folder / "calls.parquet")
    frame.to_csv(folder / "calls.csv")
    frame.to_csv(folder / "calls.csv.gz", sep=";", encoding="utf-16", index=False)
    frame.to_json(folder / "calls.jsonl", orient="records", lines=True)
    frame.to_json(folder / "calls.json", orient="records")
    expected = [
        Utterance(str(folder / "a.wav"), "sad", speaker="7", end=2.0),
        Utterance(str(folder / "b.wav"), "fear", start=1.5),
    ]
    for name in ("calls.parquet", "calls.csv", "calls.csv.gz", "calls.jsonl", "calls.json"):
        assert read_corpus(folder / name) == expected, name


def test_parquet_of_datasets_holds_audio_and_class_names(folder, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra datasets")
    sound = (folder / "a.wav").read_bytes()
    features = datasets.Features(
        {
            "recording": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["anger", "joy"]),
        }
    )
    rows = {"recording": [{"bytes": sound, "path": "x.wav"}], "label": [1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "t.parquet"))
    (found,) = read_corpus(tmp_path / "t.parquet", root=tmp_path / "audio")
    assert found.label == "happy"
    assert (tmp_path / "audio" / found.path).read_bytes() == sound


def test_parquet_without_the_package_names_what_to_install(folder, monkeypatch):
    (folder / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"emoser\[parquet\]"):
        read_corpus(folder / "x.parquet")


VALUES = "path,Arousal,valence,label\na.wav,1.5,7,sad\nb.wav,4,2.25,happy\n"


def test_dimensions_are_read_beside_a_label(folder):
    (folder / "values.csv").write_text(VALUES)
    found = read_corpus(folder / "values.csv", scale=(1, 7))
    assert [item.label for item in found] == ["sad", "happy"]
    assert [dict(item.dimensions) for item in found] == [
        {"arousal": 1.5, "valence": 7.0},
        {"arousal": 4.0, "valence": 2.25},
    ]
    assert [item.value("valence") for item in found] == [1.0, (2.25 - 1) / 6]


def test_dimensions_need_no_label_and_may_have_decimal_commas(folder):
    (folder / "values.csv").write_text("path;activation\na.wav;0,25\nb.wav;\n")
    (found,) = read_corpus(folder / "values.csv")
    assert (found.label, dict(found.dimensions), found.scale) == ("", {"arousal": 0.25}, None)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", "row 3: arousal is empty"),
        ("NaN", "row 3: arousal is empty"),
        ("high", "row 3: arousal is 'high', not a number"),
        ("inf", "row 3: arousal is 'inf', not a number"),
        ("8", "row 3: arousal is 8, outside the scale from 1 to 7"),
    ],
    ids=["empty", "nan", "word", "infinite", "outside"],
)
def test_a_value_that_is_none_is_named_with_file_and_row(folder, cell, fault):
    (folder / "values.csv").write_text(VALUES.replace("b.wav,4", f"b.wav,{cell}"))
    with pytest.raises(ValueError, match=r"values\.csv") as caught:
        read_corpus(folder / "values.csv", scale=(1, 7))
    assert fault in str(caught.value)


def test_a_table_is_read_for_its_targets_alone(folder, caplog):
    rows = ["path,label,arousal,valence", "a.wav,sad,,3", "b.wav,,2,4", "clips/c.wav,,,"]
    (folder / "part.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="row 2: arousal is empty"):
        read_corpus(folder / "part.csv")
    (labelled,) = read_corpus(folder / "part.csv", targets="labels")
    assert (labelled.label, dict(labelled.dimensions)) == ("sad", {})
    (folder / "part.csv").write_text("\n".join([*rows[:1], "a.wav,sad,1,3", *rows[2:]]))
    rated = read_corpus(folder / "part.csv", targets="dimensions")
    assert [(item.label, item.dimensions["valence"]) for item in rated] == [("", 3), ("", 4)]
    assert "1 row of 3 left out, without arousal and valence" in caplog.text
    (folder / "part.csv").write_text("path,label\na.wav,sad\n")
    with pytest.raises(
        ValueError, match=r"path \(or file_name\) and arousal, dominance or valence"
    ):
        read_corpus(folder / "part.csv", targets="dimensions")


def test_a_scale_that_does_not_rise_is_refused(folder):
    (folder / "values.csv").write_text(VALUES)
    with pytest.raises(ValueError, match="lowest, highest"):
        read_corpus(folder / "values.csv", scale=(7, 1))


@pytest.mark.parametrize(
    ("table", "votes"),
    [
        ("path,label_1,label_2,label_3\na.wav,ANGER,sad,angry\n", {"angry": 2, "sad": 1}),
        ("path,emotion1,emotion2\na.wav,sad,\n", {"sad": 1}),
        ("path,Happiness,sad\na.wav,3,0\n", {"happy": 3, "sad": 0}),
        ("path;happy;sad\na.wav;0,25;0,75\n", {"happy": 0.25, "sad": 0.75}),
        ("path,votes_bored,votes_other\na.wav,1,2\n", {"bored": 1, "other": 2}),
    ],
    ids=["annotators", "missing vote", "counts", "shares", "prefix"],
)
def test_votes_are_read_and_the_most_of_them_are_the_label(folder, table, votes):
    (folder / "votes.csv").write_text(table)
    (found,) = read_corpus(folder / "votes.csv")
    assert dict(found.votes) == votes
    assert found.label == max(votes, key=votes.get)


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ("-1,2", "row 2: happy is -1; votes and shares are 0 or more"),
        ("0.5,0.3", "row 2: the shares of happy, sad sum to 0.8, not to 1"),
        ("0,0", "row 2: happy, sad are all 0; nobody voted"),
        (",3", "row 2: happy is empty; write 0"),
        ("many,3", "row 2: happy is 'many', not a number"),
    ],
    ids=["negative", "sum", "none", "empty", "word"],
)
def test_votes_that_are_none_are_named_with_file_and_row(folder, cells, fault):
    (folder / "votes.csv").write_text(f"path,happy,sad\na.wav,{cells}\n")
    with pytest.raises(ValueError, match=r"votes\.csv") as caught:
        read_corpus(folder / "votes.csv")
    assert fault in str(caught.value)


def test_two_columns_of_an_emotion_are_refused_only_where_they_are_read(folder):
    (folder / "votes.csv").write_text("path,happy,joy\na.wav,1,0\n")
    with pytest.raises(ValueError, match="two columns have the votes for happy"):
        read_corpus(folder / "votes.csv")
    (folder / "votes.csv").write_text("path,happy,joy,label\na.wav,1,0,sad\n")
    assert [item.label for item in read_corpus(folder / "votes.csv")] == ["sad"]


def test_a_label_counts_before_votes_and_the_table_is_warned_of(folder, caplog):
    (folder / "votes.csv").write_text("path,label,happy,sad\na.wav,happy,0.2,0.8\n")
    (found,) = read_corpus(folder / "votes.csv")
    assert (found.label, dict(found.votes)) == ("happy", {})
    assert "the columns happy, sad are not read, for there is a column label" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", 'path,labels\na.wav,"joy; ANGER"\nb.wav,;\n'),
        ("table.jsonl", '{"path": "a.wav", "labels": ["joy", "ANGER"]}\n'
                        '{"path": "b.wav", "labels": []}\n'),
    ],
    ids=["text", "list"],
)  # fmt: skip
def test_several_labels_at_once_are_read(folder, name, content):
    (folder / name).write_text(content)
    found = read_corpus(folder / name)
    assert [item.labels for item in found] == [("happy", "angry"), ()]
    assert [item.label for item in found] == ["", ""]
