"""Results as HTML for the page of the demo.

All text from visitors and checkpoints is escaped. Downloads are embedded in the page as data
URLs, so that no files are stored for them.
"""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from emoser.demo.uploads import ProgressFile, ReportProgress
from emoser.results.prediction import Prediction
from emoser.results.segments import Segment, TimelineWindow, clock
from emoser.results.svg import draw_scores, draw_track
from emoser.results.timeline import Timeline

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

# Pictures are drawn narrower than they are displayed, which enlarges their 11-pixel font.
SCORES_WIDTH = 260
NARROW_WIDTH = 270  # on a phone
WIDE_WIDTH = 640
PREDICTION_SHARE = 0.25  # of the time; the windows of a timeline overlap about threefold
FILES = "gradio_api/file="  # URL of the uploads on the server
MAX_ROWS = 500  # in the table; the downloads contain all
QUALITY: Mapping[str, str] = {
    "silence": "Nobody speaks in this recording; its scores mean nothing.",
    "clipped": "The recording is clipped: its loudest parts are cut off.",
    "dc": "The waveform has a DC offset.",
    "narrow-band": "The recording has telephone bandwidth: no content above about 4 kHz.",
    "short": "The recording is shorter than half a second, too short for a reliable result.",
    "truncated": "The file is truncated: part of the recording is missing or was not decoded.",
}
"""Explanation of each quality flag."""


def analyse_file(
    path: Path, classifier: "EmotionClassifier", report: ReportProgress
) -> tuple[Prediction, Timeline]:
    """Predict a file as a whole and over time, in constant memory.

    `report` gets the completed share; if it returns False, the results are those of the part read
    so far.
    """
    rest = 1 - PREDICTION_SHARE
    with (  # both are opened now, since an open file can be read after its deletion
        ProgressFile(path, lambda share: report(share * PREDICTION_SHARE)) as whole,
        ProgressFile(path, lambda share: report(PREDICTION_SHARE + share * rest)) as windows,
    ):
        return classifier.predict(whole), classifier.timeline(windows)


def render_analysis(prediction: Prediction, timeline: Timeline, path: Path) -> str:
    """Label, scores, flags, player, waveform, segments and downloads of a recording."""
    facts = f"{prediction.source}, {clock(prediction.duration)}, model {prediction.model}"
    address = html.escape(f"{FILES}{quote(str(path))}")
    return _guard(
        f'<section class="emoser-result" aria-label="Result">{_headline(prediction)}'
        f'<p class="emoser-facts">{html.escape(facts)}</p>{_scores(prediction)}'
        f"{_flags(prediction)}<h3>Over time</h3>"
        f'<audio controls preload="metadata" src="{address}" aria-label="The recording"></audio>'
        f"{_picture(timeline)}{_table(timeline)}{_downloads(prediction, timeline)}</section>"
    )


def render_error(error: Exception) -> str:
    """The message of an error, announced by screen readers."""
    return _guard(f'<p class="emoser-error" role="alert">{html.escape(str(error))}</p>')


def render_live(
    window: TimelineWindow | None, segments: tuple[Segment, ...], seconds: float
) -> str:
    """The last window of a live session, its finished segments, and its duration so far."""
    rows = "".join(f"<li>{html.escape(str(segment))}</li>" for segment in reversed(segments))
    finished = f'<ol class="emoser-segments" role="log" reversed>{rows}</ol>' if rows else ""
    now = f'<p class="emoser-label">{"listening" if window is None else "silence"}</p>'
    if window is not None and (window.scores or window.dimensions):
        live = Prediction.from_scores(
            window.scores, duration=window.end - window.start, dimensions=window.dimensions
        )
        now = _headline(live) + _scores(live)
    return _guard(
        f'<section class="emoser-result" aria-label="Live">{now}'
        f'<p class="emoser-facts">{clock(seconds)} analysed</p>{finished}</section>'
    )


def _headline(prediction: Prediction) -> str:
    if prediction.label is None:
        values = ", ".join(f"{k} {v:.2f}" for k, v in (prediction.dimensions or {}).items())
        return f'<p class="emoser-label">{html.escape(values)}</p>'
    name = html.escape(prediction.label)
    score = "" if prediction.score is None else f" {prediction.score:.2f}"
    return f'<p class="emoser-label" role="status"><b>{name}</b>{score}</p>'


def _scores(prediction: Prediction) -> str:
    return f'<div class="emoser-scores">{draw_scores(prediction, width=SCORES_WIDTH)}</div>'


def _flags(prediction: Prediction) -> str:
    rows = "".join(f"<li>{html.escape(QUALITY[flag])}</li>" for flag in prediction.quality)
    return f'<ul class="emoser-flags" aria-label="About this recording">{rows}</ul>' if rows else ""


def _picture(timeline: Timeline) -> str:
    """Two widths, of which the style sheet displays one."""
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
    more = f"<p>{count - MAX_ROWS} more in the downloads.</p>" if count > MAX_ROWS else ""
    return (
        f"<details><summary>Segments as a table ({count})</summary><table><thead><tr>"
        '<th scope="col">start</th><th scope="col">end</th><th scope="col">label</th>'
        f'<th scope="col">score</th></tr></thead><tbody>{rows}</tbody></table>{more}</details>'
    )


def _downloads(prediction: Prediction, timeline: Timeline) -> str:
    stem = PurePath(prediction.source).stem or "recording"
    whole = {"prediction": prediction.to_dict(), "timeline": timeline.to_dict()}
    links = [_link(f"{stem}.json", "application/json", json.dumps(whole, indent=1), "JSON")]
    if subtitles := timeline.to_srt():
        links.append(_link(f"{stem}.srt", "application/x-subrip", subtitles, "subtitles (SRT)"))
    return f'<p class="emoser-downloads">{"".join(links)}</p>'


def _link(name: str, kind: str, text: str, shown: str) -> str:
    content = base64.b64encode(text.encode()).decode()
    return (
        f'<a download="{html.escape(name)}" href="data:{kind};charset=utf-8;base64,{content}">'
        f"Download {shown}</a>"
    )


def _guard(page: str) -> str:
    """Escape the characters that template languages would interpret."""
    return page.translate({ord(character): f"&#{ord(character)};" for character in "{}$`"})
