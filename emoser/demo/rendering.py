"""A recording and a model in; what the page shows about it out, as HTML.

Knows nothing of Gradio. Everything that a visitor or a checkpoint wrote is escaped; downloads
are inside the page, so that nothing is stored for them.
"""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from emoser.demo.uploads import CountedFile, Report
from emoser.results.prediction import Prediction
from emoser.results.segments import Segment, clock
from emoser.results.svg import draw_scores, draw_track
from emoser.results.timeline import Timeline

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

# Pictures are drawn narrower than they are shown, and so their letters of 11 pixels grow.
SCORES_WIDTH = 260
NARROW_WIDTH = 270  # on a telephone
WIDE_WIDTH = 640
PREDICTION_SHARE = 0.25  # of the time; a timeline hears everything about three times
FILES = "gradio_api/file="  # where the page's server hands out what visitors sent
MAX_ROWS = 500  # of the table; the downloads hold all
QUALITY: Mapping[str, str] = {
    "silence": "It is silent: whatever is answered means nothing.",
    "clipped": "It is clipped: its loudest parts are cut off.",
    "dc": "Its waveform lies off the zero line.",
    "narrow-band": "It sounds like a telephone: there is nothing in it above about 4 kHz.",
    "short": "It is shorter than half a second, too short to tell an emotion.",
    "truncated": "It ends before its header says: part of it is missing.",
}
"""What each flag of a recording means."""


class Answer(NamedTuple):
    """What a model says about a recording."""

    prediction: Prediction
    timeline: Timeline


def hear_file(path: Path, classifier: "EmotionClassifier", report: Report) -> Answer:
    """The answer of a model about a whole file and along its time, in constant memory.

    Args:
        path: A file of any kind; its content decides.
        classifier: What hears.
        report: Called with the share that is done; on False the answer is about what was heard
            until then.

    Raises:
        AudioError: If the file cannot be decoded, is empty, or holds NaN.
    """
    rest = 1 - PREDICTION_SHARE
    with (  # both at once: what is open stays readable when it is deleted
        CountedFile(path, lambda share: report(share * PREDICTION_SHARE)) as whole,
        CountedFile(path, lambda share: report(PREDICTION_SHARE + share * rest)) as along,
    ):
        return Answer(classifier.predict(whole), classifier.timeline(along))


def show_answer(answer: Answer, path: Path) -> str:
    """The page's part about a recording: label, scores, flags, waveform, segments, downloads.

    Args:
        answer: What is said about it.
        path: The file that is heard when the visitor plays it.
    """
    prediction, timeline = answer
    facts = f"{prediction.source}, {clock(prediction.duration)}, heard by {prediction.model}"
    return _guard(
        f'<section class="emoser-answer" aria-label="Answer">{_headline(prediction)}'
        f'<p class="emoser-facts">{html.escape(facts)}</p>{_scores(prediction)}'
        f"{_flags(prediction)}<h3>Along its time</h3>{_player(path)}"
        f"{_picture(timeline)}{_table(timeline)}{_downloads(answer)}</section>"
    )


def show_fault(error: Exception) -> str:
    """One sentence that says what is wrong, read aloud by screen readers."""
    return _guard(f'<p class="emoser-fault" role="alert">{html.escape(str(error))}</p>')


def show_live(live: Prediction | None, segments: tuple[Segment, ...], seconds: float) -> str:
    """The page's part about a live voice: what is heard now, and the segments that ended.

    Args:
        live: The last window; None while there is none.
        segments: Those that ended, in their order.
        seconds: How much has been heard.
    """
    rows = "".join(f"<li>{html.escape(str(segment))}</li>" for segment in reversed(segments))
    ended = f'<ol class="emoser-segments" role="log" reversed>{rows}</ol>' if rows else ""
    now = '<p class="emoser-label">listening</p>'
    if live is not None:
        spoken = bool(live.scores or live.dimensions)
        now = _headline(live) + (_scores(live) if spoken else "")
    return _guard(
        f'<section class="emoser-answer" aria-label="Live">{now}'
        f'<p class="emoser-facts">{clock(seconds)} heard</p>{ended}</section>'
    )


def _headline(prediction: Prediction) -> str:
    if prediction.label is None:
        values = ", ".join(f"{k} {v:.2f}" for k, v in (prediction.dimensions or {}).items())
        return f'<p class="emoser-label">{html.escape(values) or "silence"}</p>'
    name = html.escape(prediction.label)
    return f'<p class="emoser-label" role="status"><b>{name}</b> {prediction.score:.2f}</p>'


def _scores(prediction: Prediction) -> str:
    return f'<div class="emoser-scores">{draw_scores(prediction, width=SCORES_WIDTH)}</div>'


def _player(path: Path) -> str:
    address = html.escape(f"{FILES}{quote(str(path))}")
    return f'<audio controls preload="metadata" src="{address}" aria-label="The recording"></audio>'


def _flags(prediction: Prediction) -> str:
    rows = "".join(f"<li>{html.escape(QUALITY[flag])}</li>" for flag in prediction.quality)
    return f'<ul class="emoser-flags" aria-label="About this recording">{rows}</ul>' if rows else ""


def _picture(timeline: Timeline) -> str:
    """Twice, for wide and for narrow pages; the page shows the one that fits."""
    return (
        f'<div class="emoser-wide">{draw_track(timeline, width=WIDE_WIDTH)}</div>'
        f'<div class="emoser-narrow">{draw_track(timeline, width=NARROW_WIDTH)}</div>'
    )


def _table(timeline: Timeline) -> str:
    rows = "".join(
        f"<tr><td>{clock(item.start)}</td><td>{clock(item.end)}</td>"
        f"<td>{html.escape(item.name)}</td>"
        f"<td>{'' if item.score is None else f'{item.score:.2f}'}</td></tr>"
        for item in timeline.segments[:MAX_ROWS]
    )
    count = len(timeline.segments)
    more = f"<p>{count - MAX_ROWS} more are in the downloads.</p>" if count > MAX_ROWS else ""
    return (
        f"<details><summary>The segments as a table ({count})</summary><table><thead><tr>"
        '<th scope="col">from</th><th scope="col">to</th><th scope="col">what</th>'
        f'<th scope="col">score</th></tr></thead><tbody>{rows}</tbody></table>{more}</details>'
    )


def _downloads(answer: Answer) -> str:
    stem = PurePath(answer.prediction.source).stem or "recording"
    whole = {name: value.to_dict() for name, value in answer._asdict().items()}
    links = [_link(f"{stem}.json", "application/json", json.dumps(whole, indent=1), "JSON")]
    subtitles = answer.timeline.to_srt()
    if subtitles:
        links.append(_link(f"{stem}.srt", "application/x-subrip", subtitles, "subtitles (SRT)"))
    return f'<p class="emoser-downloads">{"".join(links)}</p>'


def _link(name: str, kind: str, text: str, shown: str) -> str:
    content = base64.b64encode(text.encode()).decode()
    return (
        f'<a download="{html.escape(name)}" href="data:{kind};charset=utf-8;base64,{content}">'
        f"Download {shown}</a>"
    )


def _guard(page: str) -> str:
    """HTML that no template language takes for its own."""
    for character in "{}$`":
        page = page.replace(character, f"&#{ord(character)};")
    return page
