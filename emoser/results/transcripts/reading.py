"""Read turns from a file, whose content decides its format, or from the object of a library."""

import codecs
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from emoser.errors import TurnsError
from emoser.results.transcripts.elan import parse_elan
from emoser.results.transcripts.objects import (
    AnnotationLike,
    from_annotation,
    from_items,
    turn_rows,
)
from emoser.results.transcripts.rttm import is_rttm, parse_rttm
from emoser.results.transcripts.subtitles import ARROW, parse_cues
from emoser.results.transcripts.tables import parse_json_turns, parse_table
from emoser.results.transcripts.textgrid import parse_textgrid
from emoser.results.turns import Turn

Turns: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any] | AnnotationLike

MAX_BYTES = 64 * 2**20
BOMS: Mapping[bytes, str] = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_turns(turns: Turns, *, recording: str = "") -> tuple[Turn, ...]:
    """Turns from a file or an object, in its order.

    Args:
        turns: As for `EmotionClassifier.predict_turns`.
        recording: The name of the recording, by which its turns are found in an RTTM of several.

    Raises:
        TurnsError: If they cannot be read, or a file holds none; it names the file and the line.
        OSError: If the file cannot be opened.

    Example:
        >>> read_turns([(0.0, 1.5, "anna", "well"), {"start": 2, "end": 3, "speaker": "ben"}])[1]
        Turn(start=2.0, end=3.0, speaker='ben', text=None, channel=None, prediction=None, ...)
    """
    if isinstance(turns, str | os.PathLike):
        path = Path(turns)
        return parse_turns(_read_bytes(path), name=str(turns), recording=recording)
    annotation = getattr(turns, "speaker_diarization", turns)  # of a pipeline of pyannote.audio 4
    if isinstance(annotation, AnnotationLike):
        return tuple(from_annotation(annotation))
    return tuple(from_items(turn_rows(turns), "turns"))


def parse_turns(content: bytes, *, name: str, recording: str = "") -> tuple[Turn, ...]:
    """Turns from the content of a file, called `name` in messages.

    Raises:
        TurnsError: As `read_turns`.
    """
    try:
        text = _decode(content)
        turns = _choose_parser(text)(text, PurePath(recording).stem)
    except TurnsError as error:
        raise TurnsError(f"{name}: {error}") from error
    except ValueError as error:
        raise TurnsError(f"{name}: {error}; correct the file") from error
    if not turns:
        raise TurnsError(f"{name} holds no turns; pass another file")
    return tuple(turns)


def _choose_parser(text: str) -> Callable[[str, str], list[Turn]]:
    start = text.lstrip()[:400]
    if start[:1] in ("{", "["):
        return lambda text, _: parse_json_turns(text)
    if start.startswith("<"):
        return lambda text, _: parse_elan(text)
    if "ooTextFile" in start:
        return lambda text, _: parse_textgrid(text)
    if start.startswith("WEBVTT") or ARROW.search(text):
        return lambda text, _: parse_cues(text)
    if is_rttm(text):
        return parse_rttm
    return lambda text, _: parse_table(text)


def _decode(content: bytes) -> str:
    encoding = next((name for mark, name in BOMS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TurnsError(f"it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise TurnsError(f"{path} is larger than {MAX_BYTES:,} bytes; split it")
    return content
