"""Find the recordings of a corpus in a folder and tell in one message what is missing or extra.

Readers give the pattern of their file names and what the parts mean. Never decodes audio.
"""

import csv
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoser.finetune.data.utterance import Utterance
from emoser.text import shorten

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".mkv", ".webm")
)

logger = logging.getLogger(__name__)


def find_audio(root: str | Path) -> dict[str, Path]:
    """Audio files below a folder by their name without suffix; of equal names the first path.

    Raises:
        NotADirectoryError: If the root is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; name the folder of the corpus")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, path)
    return found


def read_names(
    root: str | Path,
    *,
    corpus: str,
    pattern: re.Pattern[str],
    parse: Callable[[re.Match[str]], Mapping[str, Any] | None],
    speakers: Collection[str],
    num_complete: int,
) -> list[Utterance]:
    """Utterances of a corpus whose file names say everything.

    Args:
        root: Folder of the corpus.
        corpus: Its name.
        pattern: Matches the whole name of a recording, without suffix.
        parse: From the match to the fields of an utterance, or None for a recording that the
            corpus has and this reader leaves out.
        speakers: All speakers of the complete corpus.
        num_complete: How many recordings the reader gives of the complete corpus.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If no recording has such a name.
    """
    utterances, strange = [], []
    for name, path in find_audio(root).items():
        match = pattern.fullmatch(name)
        if match is None:
            strange.append(path.name)
            continue
        fields = parse(match)
        if fields is not None:
            utterances.append(Utterance(str(path), corpus=corpus, **fields))
    absent = sorted(set(speakers) - {item.speaker for item in utterances})
    report_tree(
        root,
        utterances,
        corpus=corpus,
        num_complete=num_complete,
        missing=[f"speaker {name}" for name in absent],
        extra=strange,
    )
    return utterances


def report_tree(
    root: str | Path,
    utterances: Sequence[Utterance],
    *,
    corpus: str,
    num_complete: int,
    missing: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> None:
    """Log one warning about what a tree has less or more than the complete corpus.

    Raises:
        FileNotFoundError: If there is no utterance at all.
    """
    if not utterances:
        raise FileNotFoundError(
            f"{root} holds no recording with a name of {corpus}; "
            f"audio files with other names: {shorten(extra) or 'none'}"
        )
    faults = []
    if len(utterances) != num_complete:
        faults.append(f"{len(utterances)} recordings, the complete corpus has {num_complete}")
    faults += [f"missing: {shorten(missing)}"] if missing else []
    faults += [f"not of this corpus: {shorten(extra)}"] if extra else []
    if faults:
        logger.warning("%s in %s: %s", corpus, root, "; ".join(faults))


def read_table(path: Path, columns: Collection[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file that has at least these columns.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If a column is missing.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        absent = sorted(set(columns) - set(reader.fieldnames or ()))
        if absent:
            raise ValueError(f"{path} has no column {', '.join(absent)}")
        yield from reader
