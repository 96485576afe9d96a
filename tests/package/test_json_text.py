"""One reader and one writer of JSON, held against the standard library and pandas."""

import ast
import io
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emoser
from emoser.json_text import MAX_DEPTH, format_json, parse_json, read_json

PACKAGE = Path(emoser.__file__).parent
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
PRINTS_PROTOCOL = {"bench/worker.py", "bench/__init__.py"}  # lines between two processes of emoser
PACKAGED = {"checkpoints/catalog.py"}  # reads a file of the package


@settings(max_examples=30)
@given(st.dictionaries(st.text(), VALUES))
def test_what_the_standard_library_writes_is_read(value):
    assert parse_json(json.dumps(value).encode(), dict) == json.loads(json.dumps(value))


@given(st.text())
def test_text_is_json_here_only_where_it_is_for_the_standard_library(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match="not valid JSON"):
            parse_json(text, object)
    else:
        assert parse_json(text, object) == expected or expected != expected


@pytest.mark.parametrize(
    ("content", "kind", "fault"),
    [
        (b"[]", dict, "holds a list, not a dict"),
        (b"{", dict, "not valid JSON"),
        (b"\xff{}", dict, "not valid JSON"),
        (b"9" * 5_000, int, "not valid JSON"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, list, None),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), list, "nested more than 64 levels"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, dict, "nested more than 64 levels"),
        (b"[" * 1_000_000, list, "nested more than 64 levels"),
        (b"\xef\xbb\xbf{}", dict, None),  # as some editors save
    ],
)
def test_depth_size_and_kind_are_checked(content, kind, fault):
    if fault is None:
        assert isinstance(parse_json(content, kind), kind)
        return
    with pytest.raises(ValueError, match=fault):
        parse_json(content, kind)


def test_no_more_of_a_file_is_read_than_allowed(tmp_path):
    file = tmp_path / "large.json"
    with file.open("wb") as opened:
        opened.truncate(2**40)  # a hole: a terabyte without taking space
    with pytest.raises(ValueError, match="up to 1,000 are read"):
        read_json(file, dict, max_bytes=1_000)


def test_numbers_that_are_none_become_null():
    rows = [{"uar": float("nan"), "loss": float("inf"), "own": np.float64("nan"), "n": 1}]
    text = format_json(rows)
    table = pandas.read_json(io.StringIO(text))
    assert table.isna().to_numpy().tolist() == [[True, True, True, False]]
    assert "NaN" not in text
    assert "Infinity" not in text


def test_no_module_reads_or_prints_json_in_another_way():
    strange = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "json"
        }
        reads = calls & {"load", "loads"} and name not in PRINTS_PROTOCOL | PACKAGED
        prints = calls and name.startswith("cli/")
        if (reads or prints) and name != "json_text.py":
            strange.append(name)
    assert strange == []
