"""Turns in the formats of other programs: subtitles, annotation tools, tables.

Names and texts come from other programs, so each format escapes what would break it.
"""

import html
from collections.abc import Iterable, Iterator, Sequence

from emoser.results.formats import decimal, timestamp, word
from emoser.results.segments import SILENCE
from emoser.results.turns import Turn
from emoser.text import csv_line, guard_cell, printable

FIELDS = ("start", "end", "speaker", "text", "channel", "label", "score")


def write_turn_csv(turns: Iterable[Turn], columns: Sequence[str]) -> str:
    """A table with one row per turn and one column per label and dimension."""
    lines = [csv_line([*FIELDS, *map(guard_cell, columns), "quality", "error"])]
    for turn in turns:
        values = {**turn.scores, **turn.dimensions}
        lines.append(
            csv_line(
                [
                    f"{turn.start:.3f}",
                    f"{turn.end:.3f}",
                    guard_cell(turn.speaker or ""),
                    guard_cell(turn.text or ""),
                    "" if turn.channel is None else str(turn.channel),
                    guard_cell(turn.label or ""),
                    decimal(turn.score),
                    *(decimal(values.get(name)) for name in columns),
                    " ".join(turn.quality),
                    guard_cell("" if turn.error is None else str(turn.error)),
                ]
            )
        )
    return "".join(lines)


def write_turn_srt(turns: Iterable[Turn]) -> str:
    r"""SubRip subtitles in the order of time.

    Example:
        >>> write_turn_srt([Turn(0.5, 2.0, "anna", "oh")])
        '1\n00:00:00,500 --> 00:00:02,000\n[anna]: oh\n'
    """
    cues = []
    for number, (times, turn) in enumerate(_cues(turns, ","), start=1):
        speaker = f"[{_one_line(turn.speaker)}]: " if turn.speaker else ""
        cues.append(f"{number}\n{times}\n{speaker}{_content(turn)}\n")
    return "\n".join(cues)


def write_turn_webvtt(turns: Iterable[Turn]) -> str:
    r"""Subtitles for the web (WebVTT) in the order of time.

    Example:
        >>> write_turn_webvtt([Turn(0.5, 2.0, "anna", "oh")])
        'WEBVTT\n\n00:00:00.500 --> 00:00:02.000\n<v anna>oh</v>\n'
    """
    cues = []
    for times, turn in _cues(turns, "."):
        text = html.escape(_content(turn), quote=False)
        if turn.speaker:
            text = f"<v {html.escape(_one_line(turn.speaker), quote=False)}>{text}</v>"
        cues.append(f"\n{times}\n{text}\n")
    return "WEBVTT\n" + "".join(cues)


def write_turn_rttm(turns: Iterable[Turn], *, name: str) -> str:
    r"""Rich Transcription Time Marked: the emotion in the field of the speaker's type.

    Example:
        >>> write_turn_rttm([Turn(0.5, 2.0, "anna")], name="a call")
        'SPEAKER a_call 1 0.500 1.500 <NA> <NA> anna <NA> <NA>\n'
    """
    lines = []
    for turn in turns:
        if turn.end > turn.start:
            emotion = "<NA>" if turn.label is None else word(turn.label)
            score = "<NA>" if turn.score is None else f"{turn.score:.3f}"
            times = f"{max(turn.start, 0.0):.3f} {turn.end - max(turn.start, 0.0):.3f}"
            head = f"SPEAKER {word(name)} {(turn.channel or 0) + 1} {times} <NA> {emotion}"
            lines.append(f"{head} {word(turn.speaker or 'unknown')} {score} <NA>\n")
    return "".join(lines)


def write_turn_textgrid(turns: Sequence[Turn], *, duration: float, unknown: str) -> str:
    """A Praat TextGrid: for each speaker a tier with the text and one with the emotion.

    Turns of a speaker that overlap, which a tier cannot hold, go to further tiers.
    """
    tiers: list[tuple[str, list[Turn]]] = []
    for speaker, own in _by_speaker(turns, unknown).items():
        for number, row in enumerate(_without_overlap(own)):
            tiers.append((f"{speaker} {number + 1}" if number else speaker, row))
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {duration:.6f}", "tiers? <exists>", f"size = {2 * len(tiers)}", "item []:"]
    for place, (name, row) in enumerate(tiers):
        texts = [_one_line(turn.text or "") for turn in row]
        labels = ["" if turn.prediction is None else turn.answer for turn in row]
        lines += [f"    item [{2 * place + 1}]:", *_tier(name, row, texts, duration)]
        lines += [f"    item [{2 * place + 2}]:"]
        lines += _tier(f"{name}{EMOTION_TIER}", row, labels, duration)
    return "\n".join(lines) + "\n"


EMOTION_TIER = " (emotion)"


def _by_speaker(turns: Sequence[Turn], unknown: str) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {}
    for turn in sorted(turns, key=lambda turn: turn.start):
        if turn.end > max(turn.start, 0.0):
            found.setdefault(turn.speaker or unknown, []).append(turn)
    return found


def _without_overlap(turns: Iterable[Turn]) -> list[list[Turn]]:
    """Rows of turns, sorted by their start, that do not overlap within a row."""
    rows: list[list[Turn]] = []
    for turn in turns:
        free = next((row for row in rows if row[-1].end <= turn.start), None)
        if free is None:
            rows.append([turn])
        else:
            free.append(turn)
    return rows


def _tier(name: str, turns: Sequence[Turn], texts: Sequence[str], duration: float) -> Iterator[str]:
    intervals: list[tuple[float, float, str]] = []
    position = 0.0
    for turn, text in zip(turns, texts, strict=True):
        start = max(turn.start, 0.0)
        if start > position:
            intervals.append((position, start, ""))
        intervals.append((start, turn.end, text))
        position = turn.end
    if duration > position:
        intervals.append((position, duration, ""))
    yield '        class = "IntervalTier"'
    yield f'        name = "{_quoted(_one_line(name))}"'
    yield "        xmin = 0"
    yield f"        xmax = {duration:.6f}"
    yield f"        intervals: size = {len(intervals)}"
    for number, (start, end, text) in enumerate(intervals, start=1):
        yield f"        intervals [{number}]:"
        yield f"            xmin = {start:.6f}"
        yield f"            xmax = {end:.6f}"
        yield f'            text = "{_quoted(text)}"'


def _cues(turns: Iterable[Turn], point: str) -> Iterator[tuple[str, Turn]]:
    """The times of each turn that lasts at least a millisecond, in order."""
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        start, end = round(max(turn.start, 0.0) * 1000), round(turn.end * 1000)
        if end > start:
            yield f"{timestamp(start, point)} --> {timestamp(end, point)}", turn


def _content(turn: Turn) -> str:
    """The emotion in parentheses, then the text, on one line."""
    emotion = ""
    if turn.prediction is not None:
        emotion = turn.answer
        if turn.label not in (None, SILENCE):
            emotion = f"{turn.label} {turn.score:.0%}".replace("%", " %")
    parts = (f"({_one_line(emotion)})" if emotion else "", _one_line(turn.text))
    return " ".join(filter(None, parts)) or "..."


def _one_line(text: str | None) -> str:
    """Text without line ends, control characters, and the arrow of subtitles."""
    return printable(" ".join((text or "").split())).replace("-->", "->")


def _quoted(text: str) -> str:
    return text.replace('"', '""')
