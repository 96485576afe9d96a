"""Results as HTML for the page of the demo.

All text from visitors and checkpoints is escaped. Downloads are embedded in the page as data
URLs, so that no files are stored for them.
"""

import base64
import html
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from emoser.demo.uploads import ProgressFile, ReportProgress
from emoser.json_text import format_json
from emoser.results.prediction import Prediction
from emoser.results.segments import SILENCE, Segment, TimelineWindow, channel_name, clock
from emoser.results.svg import draw_scores, draw_track
from emoser.results.timeline import Timeline
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

# Pictures are drawn narrower than they are displayed, which enlarges their 11-pixel font.
SCORES_WIDTH = 260
NARROW_WIDTH = 270  # on a phone
WIDE_WIDTH = 640
PREDICTION_SHARE = 0.25  # of the time; the windows of a timeline overlap about threefold
FILES = "gradio_api/file="  # URL of the uploads on the server
NOBODY = "No speech"
LEAST_SHARE = 0.01  # of silence that is mentioned
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
    path: Path, classifier: "EmotionClassifier", report: ReportProgress, *, separate: bool = False
) -> tuple[Prediction, Timeline]:
    """Predict a file as a whole and over time, in constant memory.

    The timeline has its channels mixed or, with `separate`, each of them on its own. `report`
    gets the completed share; if it returns False, the results are those of the part read so far.
    """
    rest = 1 - PREDICTION_SHARE
    with (  # both are opened now, since an open file can be read after its deletion
        ProgressFile(path, lambda share: report(share * PREDICTION_SHARE)) as whole,
        ProgressFile(path, lambda share: report(PREDICTION_SHARE + share * rest)) as windows,
    ):
        channel = "each" if separate else "mix"
        return classifier.predict(whole), classifier.timeline(windows, channel=channel)


def render_analysis(prediction: Prediction, timeline: Timeline, path: Path) -> str:
    """Headline, flags, player, waveform, segments and downloads of a recording.

    The headline of a short recording is its label. That of a recording which the model sees in
    several pieces, or of separate channels, is what the timeline says: the share of the speech
    that each emotion has.
    """
    over_time = bool(timeline.labels) and max(prediction.num_windows, len(timeline.channels)) > 1
    headline = _shares(timeline) if over_time else _headline(prediction) + _scores(prediction)
    facts = f"{prediction.source}, {clock(prediction.duration)}, model {prediction.model}"
    address = html.escape(f"{FILES}{quote(str(path))}")
    return _guard(
        f'<section class="emoser-result" aria-label="Result">{headline}'
        f'<p class="emoser-facts">{_text(facts)}</p>'
        f"{_flags(prediction)}<h3>Over time</h3>"
        f'<audio controls preload="metadata" src="{address}" aria-label="The recording"></audio>'
        f"{_picture(timeline)}{_table(timeline)}{_downloads(prediction, timeline)}</section>"
    )


def render_error(error: Exception) -> str:
    """The message of an error, announced by screen readers."""
    return _guard(f'<p class="emoser-error" role="alert">{_text(str(error))}</p>')


def render_live(
    window: TimelineWindow | None, segments: tuple[Segment, ...], seconds: float
) -> str:
    """The last window of a live session, its finished segments, and its duration so far."""
    rows = "".join(f"<li>{_text(str(segment))}</li>" for segment in reversed(segments))
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
    if prediction.label == SILENCE:
        return f'<p class="emoser-label" role="status">{NOBODY}</p>'
    if prediction.label is None:
        values = ", ".join(f"{k} {v:.2f}" for k, v in (prediction.dimensions or {}).items())
        return f'<p class="emoser-label">{_text(values)}</p>'
    return (
        f'<p class="emoser-label" role="status"><b>{_text(prediction.label)}</b> '
        f"{prediction.score:.2f}</p>"
    )


def _shares(timeline: Timeline) -> str:
    """A headline for each channel: the emotion with the largest share of the speech, the others."""
    names = [channel_name(channel, timeline.channels) for channel in timeline.channels]
    titles = [f"{name.capitalize()}: " for name in names] if len(names) > 1 else [""]
    return "".join(map(_share_line, timeline.per_channel(), titles))


def _share_line(part: Timeline, name: str) -> str:
    shares = dict(part.shares())
    silence = shares.pop(SILENCE, 0.0)
    speech = sum(shares.values())
    ranked = [(label, share / speech) for label, share in shares.items() if speech]
    if not ranked:
        return f'<p class="emoser-label" role="status">{name}{NOBODY}</p>'
    (first, share), *others = ranked
    rest = ", ".join(f"{_text(label)} {_percent(value)}" for label, value in others)
    pause = f"{_percent(silence)} of the recording is silence" if silence >= LEAST_SHARE else ""
    facts = "; ".join(filter(None, (rest, pause)))
    return (
        f'<p class="emoser-label" role="status">{name}<b>{_text(first)}</b> in '
        f'{_percent(share)} of the speech</p><p class="emoser-facts">{facts}</p>'
    )


def _scores(prediction: Prediction) -> str:
    if prediction.label == SILENCE:
        return ""  # they are in the downloads
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
        f"<tr>{'' if item.channel is None else f'<td>{item.channel}</td>'}"
        f"<td>{clock(item.start)}</td><td>{clock(item.end)}</td><td>{_text(item.name)}</td>"
        f"<td>{'' if item.score is None else f'{item.score:.2f}'}</td></tr>"
        for item in timeline.segments[:MAX_ROWS]
    )
    count = len(timeline.segments)
    channel = '<th scope="col">channel</th>' if timeline.channels else ""
    more = f"<p>{count - MAX_ROWS} more in the downloads.</p>" if count > MAX_ROWS else ""
    return (
        f"<details><summary>Segments as a table ({count})</summary><table><thead><tr>{channel}"
        '<th scope="col">start</th><th scope="col">end</th><th scope="col">label</th>'
        f'<th scope="col">score</th></tr></thead><tbody>{rows}</tbody></table>{more}</details>'
    )


def _downloads(prediction: Prediction, timeline: Timeline) -> str:
    stem = PurePath(prediction.source).stem or "recording"
    whole = {"prediction": prediction.to_dict(), "timeline": timeline.to_dict()}
    links = [_link(f"{stem}.json", "application/json", format_json(whole, indent=1), "JSON")]
    if subtitles := timeline.to_srt():
        links.append(_link(f"{stem}.srt", "application/x-subrip", subtitles, "subtitles (SRT)"))
    return f'<p class="emoser-downloads">{"".join(links)}</p>'


def _link(name: str, kind: str, text: str, shown: str) -> str:
    content = base64.b64encode(text.encode()).decode()
    return (
        f'<a download="{_text(name)}" href="data:{kind};charset=utf-8;base64,{content}">'
        f"Download {shown}</a>"
    )


def _text(text: str) -> str:
    """Text of strangers for a page: neither HTML nor characters that reorder what follows."""
    return html.escape(printable(text))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _guard(page: str) -> str:
    """Escape the characters that template languages would interpret."""
    return page.translate({ord(character): f"&#{ord(character)};" for character in "{}$`"})
