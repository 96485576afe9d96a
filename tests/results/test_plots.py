"""Pictures are drawn without a window, without a trace, and without a dependency in notebooks."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from support.fakes import formula_classifier, voice_and_pauses

from emoser import Prediction
from emoser.errors import DependencyError
from emoser.labels import CANONICAL_LABELS
from emoser.results.plots import plot_confusion, plot_timeline
from emoser.results.segments import Segment, TimelineWindow
from emoser.results.svg import COLOURS, colours_of
from emoser.results.timeline import Timeline

RATE = 16_000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def timeline():
    left = voice_and_pauses([(4, 0.1), (5, 0.0), (3, 0.3)])
    right = voice_and_pauses([(5, 0.0), (7, 0.2)], seed=1)
    return formula_classifier().timeline(
        np.stack([left, right]), sampling_rate=RATE, channel="each"
    )


@pytest.fixture(scope="module")
def prediction():
    scores = {"angry": 0.7, "<b>bold</b>": 0.3}
    return Prediction.from_scores(scores, duration=2.0, dimensions={"arousal": 0.4})


def parse(text):
    start, end = text.index("<svg"), text.index("</svg>") + len("</svg>")
    return ElementTree.fromstring(text[start:end])


def test_a_prediction_shows_a_bar_for_every_score(prediction):
    picture = parse(prediction._repr_html_())
    names = [text.text for text in picture.iter(f"{SVG}text")][::2]
    assert names == ["angry", "<b>bold</b>", "arousal"]
    widths = [float(bar.get("width")) for bar in picture.iter(f"{SVG}rect")]
    assert widths[0] / widths[1] == pytest.approx(0.7 / 0.3, rel=0.01)
    assert "<b>" not in prediction._repr_html_()


def test_a_timeline_shows_every_segment_where_it_is(timeline):
    picture = parse(timeline._repr_html_())
    tips = [tip.text for tip in picture.iter(f"{SVG}title")]
    assert sorted(tips) == sorted(map(str, timeline.segments))
    assert len(list(picture.iter(f"{SVG}polygon"))) == 2
    wide = picture.get("viewBox").split()[2]
    lines = [line for line in picture.iter(f"{SVG}line") if line.find(f"{SVG}title") is not None]
    silence = next(item for item in timeline.per_channel()[0].segments if item.kind == "silence")
    assert float(lines[0].get("x2")) == pytest.approx(
        silence.end / timeline.duration * float(wide), abs=0.1
    )


def test_hostile_labels_cannot_leave_the_picture():
    label = "</title><script>alert(1)</script>"
    segments = (Segment(0.0, 9.0, "emotion", label, 0.9, {label: 0.9}),)
    text = Timeline((), segments, duration=9.0, labels=(label,))._repr_html_()
    assert "<script>" not in text
    assert parse(text) is not None


def test_every_emotion_has_a_colour_of_its_own():
    assert set(COLOURS) <= set(CANONICAL_LABELS)
    ekman = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
    assert len(set(colours_of(ekman).values())) == len(ekman)
    unknown = colours_of(["bored", "sleepy", "angry"])
    assert len(set(unknown.values())) == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_are_written(timeline, tmp_path, theme):
    pytest.importorskip("matplotlib")
    from emoser.results import plots

    figures = {
        "confusion": plots.plot_confusion(np.eye(4) * 9, list("abcd"), theme=theme),
        "timeline": plots.plot_timeline(timeline, theme=theme),
    }
    for name, figure in figures.items():
        plots.save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    timeline.plot(tmp_path / "timeline.svg", theme=theme)
    ElementTree.parse(tmp_path / "timeline.svg")


def test_drawing_changes_no_setting_and_opens_no_window(tmp_path):
    pytest.importorskip("matplotlib")
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams)\n"
        "from emoser.results.plots import plot_confusion, save_figure\n"
        "save_figure(plot_confusion([[1]], ['sad']), sys.argv[1])\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "from matplotlib import pyplot\nassert pyplot.get_fignums() == []\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_nonsense_is_refused(timeline, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from emoser.results import plots

    with pytest.raises(ValueError, match="theme is 'sepia'"):
        timeline.plot(tmp_path / "a.png", theme="sepia")
    with pytest.raises(ValueError, match="does not fit 2 labels"):
        plots.plot_confusion(np.eye(3), ["a", "b"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"emoser\[plot\]"):
        timeline.plot(tmp_path / "a.png")


def test_independent_scores_are_lines_and_not_stacked():
    patches = pytest.importorskip("matplotlib.patches")
    windows = [TimelineWindow(0, 3, {"a": 0.9, "b": 0.8}), TimelineWindow(3, 6, {})]
    drawn = plot_timeline(Timeline(tuple(windows), (), duration=6.0, labels=("a", "b")))
    steps = [patch for patch in drawn.axes[2].patches if isinstance(patch, patches.StepPatch)]
    assert [patch.get_data().values.tolist() for patch in steps] == [[0.9, 0.0], [0.8, 0.0]]
    assert all(patch.get_data().baseline is None for patch in steps)


def test_the_channels_have_the_names_of_the_option(timeline):
    figure = plot_timeline(timeline)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["channel 0 (left)", "channel 1 (right)"]
    texts = [text.text for text in parse(timeline._repr_html_()).iter(f"{SVG}text")]
    assert [text for text in texts if text.startswith("channel")] == titles


def test_a_long_call_is_wider_and_its_steps_are_means_of_windows():
    windows = tuple(
        TimelineWindow(float(start), start + 1.0, {"sad": start % 2, "happy": 1 - start % 2})
        for start in range(600)
    )
    segments = (Segment(0.0, 600.0, "emotion", "sad", 0.5, {"sad": 0.5}),)
    timeline = Timeline(windows, segments, duration=600.0, labels=("sad", "happy"))
    figure = plot_timeline(timeline)
    assert figure.get_figwidth() > plot_timeline(replace(timeline, duration=20.0)).get_figwidth()
    (sad, _) = (patch for patch in figure.axes[2].patches if hasattr(patch, "get_data"))
    values, edges, _ = sad.get_data()
    assert np.allclose(values, 0.5)
    assert (len(values), edges[-1]) == (300, 600.0)


def test_the_figure_is_returned_with_and_without_a_file(timeline, tmp_path):
    figure = timeline.plot()
    assert timeline.plot(tmp_path / "picture.png").axes
    data, size = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] == pytest.approx(8 * 96, rel=0.2)


def test_the_axes_of_a_confusion_picture_are_true_and_predicted():
    axes = plot_confusion([[1, 0], [0, 1]], ["sad", "happy"]).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")


CELL = """
from emoser.results.segments import Segment, TimelineWindow
from emoser.results.timeline import Timeline
window = TimelineWindow(0.0, 2.0, {"sad": 1.0})
segment = Segment(0.0, 2.0, "emotion", "sad", 1.0, {"sad": 1.0})
Timeline((window,), (segment,), duration=2.0, labels=("sad",)).plot()
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "import matplotlib.pyplot\n%matplotlib inline\n"])
def test_a_notebook_shows_the_picture_exactly_once(before):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(before + CELL)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    pictures = [
        output for output in notebook.cells[0].outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
