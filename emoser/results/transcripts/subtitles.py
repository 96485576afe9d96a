"""Turns from subtitles: SubRip (SRT) and WebVTT, with speakers as prefix or as voice."""

import html
import re

from emoser.results.transcripts.times import parse_seconds
from emoser.results.turns import Turn

TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
ARROW = re.compile(rf"^[ \t]*({TIME})[ \t]*-->[ \t]*({TIME})", re.M)
VOICE = re.compile(r"<v(?:\.[^\s>]{0,99})?[ \t]+([^<>]{1,200})>")
TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<\d[\d:.]{0,20}>|\{\\[^{}]{0,200}\}")
BRACKETED = re.compile(r"-?\s*[\[(]([^\])]{1,60})[\])]\s*:\s*(.*)", re.S)
# Up to four words without punctuation, of which the first begins like a name.
PREFIXED = re.compile(r"-?\s*([^\W_a-z][^\s:.,;!?]*(?: [^\s:.,;!?]+){0,3}):\s+(.*)", re.S)


def parse_cues(text: str) -> list[Turn]:
    r"""A turn for each cue; its speaker is a `<v Speaker>`, or what stands before a colon.

    Example:
        >>> parse_cues("1\n00:00:01,000 --> 00:00:02,500\n[SPEAKER_01]: oh\n")[0].speaker
        'SPEAKER_01'
        >>> parse_cues("WEBVTT\n\n00:01.0 --> 00:02.0\n<v Al>hi")[0].text
        'hi'
    """
    turns = []
    lines = text.splitlines()
    starts = [place for place, line in enumerate(lines) if ARROW.match(line)]
    for number, place in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else len(lines)
        content = _content(lines[place + 1 : following], last=following == len(lines))
        found = ARROW.match(lines[place])
        if found is not None:
            start, end = (parse_seconds(time, f"line {place + 1}") for time in found.groups())
            turns.append(Turn(start, end, *_split(content)))
    return turns


def _content(lines: list[str], *, last: bool) -> str:
    """The lines of a cue up to the empty line after it."""
    kept: list[str] = []
    for line in lines:
        if not line.strip():
            return "\n".join(kept)
        kept.append(line)
    # Without an empty line before it, the number or name of the next cue stands at the end.
    if not last and kept and kept[-1].strip().isdigit():
        kept.pop()
    return "\n".join(kept)


def _split(content: str) -> tuple[str | None, str | None]:
    """Speaker and text of a cue; the speakers of a cue with several are joined."""
    voices = list(dict.fromkeys(html.unescape(name).strip() for name in VOICE.findall(content)))
    text = html.unescape(TAG.sub("", content)).strip()
    if not voices:
        parts = [_prefix(line) for line in text.split("\n")]
        voices = list(dict.fromkeys(name for name, _ in parts if name))
        text = "\n".join(rest for _, rest in parts)
    joined = " ".join(text.split())
    return " & ".join(voices) or None, joined or None


def _prefix(line: str) -> tuple[str | None, str]:
    found = BRACKETED.match(line) or PREFIXED.match(line)
    return (found[1].strip(), found[2]) if found else (None, line)
