"""Text of strangers is harmless at every exit, and different names stay different."""

import csv
import io
import unicodedata

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoser.labels import find_label_faults, map_labels
from emoser.text import as_unicode, csv_line, guard_cell, markdown_text, printable

NAMES = st.text(
    st.one_of(st.sampled_from("\\'=udcff8\r\n;,\"\t\udcff\udc80"), st.characters()), max_size=12
)
HIDDEN = ("Cc", "Zl", "Zp", "Cs")


@given(NAMES, NAMES)
def test_different_names_are_different_cells_of_valid_unicode(one, other):
    for write in (as_unicode, guard_cell):
        write(one).encode()
        assert (write(one) == write(other)) == (one == other)


@given(st.lists(NAMES, min_size=2, max_size=4))
def test_a_line_of_csv_is_read_as_it_was_written(cells):
    guarded = [guard_cell(cell) for cell in cells]
    line = csv_line(guarded)
    assert list(csv.reader(io.StringIO(line, newline=""))) == [guarded]
    for separator in ";|\t":  # programs of other countries split at these
        assert next(iter(csv.reader([csv_line([f"a{separator}=b"])], delimiter=separator))) != [
            "a",
            "=b",
        ]


def test_pandas_reads_names_with_any_line_end():
    names = ["a\rb.wav", "c\r\nd.wav", "e\nf.wav", "g\x85h.wav", "i\u2028j.wav", 'k"l.wav']
    lines = csv_line(["source", "label"]) + "".join(csv_line([name, "sad"]) for name in names)
    read = pandas.read_csv(io.StringIO(lines, newline=""))
    assert read["source"].tolist() == names
    assert set(read["label"]) == {"sad"}


@given(st.text(st.characters(codec=None)))
def test_nothing_printed_controls_a_terminal(text):
    shown = printable(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in HIDDEN]
    assert not [letter for letter in shown if unicodedata.bidirectional(letter) in BIDI]


BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_joiners_of_emoji_and_persian_are_kept():
    for name in ("\U0001f468\u200d\U0001f469", "\u062e\u0648\u0634\u200c\u062d\u0627\u0644"):
        assert printable(name) == name
        assert find_label_faults([name]) == []


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\x9b2J", "a\u202eb", "a\ud800", "../../a", "a\0"])
def test_no_label_hides_a_control_character_or_a_path(name):
    assert "control or path" in find_label_faults([name])[0]
    with pytest.raises(ValueError, match="control or path"):
        map_labels(("sad",), {"sad": name})


def test_markdown_shows_text_as_it_is():
    from markdown_it import MarkdownIt

    hostile = "<img src=x>|![a](http://b)`c` [d](e)\n# f"
    page = MarkdownIt("commonmark").enable("table").render(markdown_text(hostile))
    assert page.count("<") == 2  # the paragraph
    assert "&lt;img src=x&gt;|![a](http://b)`c` [d](e)" in page
