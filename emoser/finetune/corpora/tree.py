"""Recordings of a corpus in a folder, and one message about what is missing or extra.

Readers give a pattern of their file names and tables of its codes. No audio is decoded.
"""

import csv
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from emoser.audio.folders import explain_unreadable, is_recording, walk_files
from emoser.finetune.data.utterance import Utterance
from emoser.text import shorten

Parts: TypeAlias = dict[str, str | None]

logger = logging.getLogger(__name__)


def list_audio(root: str | Path) -> list[Path]:
    """Audio files below a folder, sorted.

    Raises:
        NotADirectoryError: If the root is not a folder.
        OSError: If it or a folder in it cannot be read.
    """
    return sorted(filter(is_recording, list_files(root)))


def list_files(root: str | Path) -> list[Path]:
    """All files below a folder, sorted.

    Raises:
        NotADirectoryError: If the root is not a folder.
        OSError: If it or a folder in it cannot be read.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; name the folder of the corpus")
    found = []
    for path, error in walk_files(str(folder)):
        if error is not None:
            raise explain_unreadable(error, path)
        found.append(Path(path))
    return sorted(found)


def find_audio(root: str | Path) -> dict[str, Path]:
    """Audio files below a folder by their name without suffix; of equal names the first path.

    Raises:
        NotADirectoryError: If the root is not a folder.
    """
    return {path.stem: path for path in reversed(list_audio(root))}


def read_names(
    root: str | Path,
    *,
    corpus: str,
    pattern: str,
    labels: Mapping[str, str],
    speakers: Mapping[str, str | None],
    num_complete: int,
    convert: Callable[[Parts], Parts] = dict,
) -> list[Utterance]:
    """Utterances of a corpus whose file names hold all facts.

    Equal file names of a speaker are one recording.

    Args:
        root: Folder of the corpus.
        corpus: Its name.
        pattern: Regular expression of the end of a path without suffix, from the beginning of a
            name on. Its groups are `label`, `speaker`, and other fields of `Utterance`.
        labels: Label of each code; recordings with other codes are left out.
        speakers: All speakers of the complete corpus, and the sex of each where known.
        num_complete: Number of utterances of the complete corpus.
        convert: Changes the groups before the codes are looked up.

    Raises:
        NotADirectoryError: If the root is not a folder.
        FileNotFoundError: If no recording has such a name.
    """
    found: dict[tuple[str | None, str], Utterance] = {}
    strange = []
    for path in list_audio(root):
        match = re.fullmatch(f"(?s:.*/)?(?:{pattern})", path.with_suffix("").as_posix())
        if match is None:
            strange.append(path.name)
            continue
        parts = convert(match.groupdict())
        label = labels.get(parts.pop("label") or "")
        if label is not None:
            speaker = parts["speaker"]
            sex = speakers.get(speaker or "")
            item = Utterance(str(path), label, corpus=corpus, sex=sex, **parts)  # type: ignore[arg-type]
            found.setdefault((speaker, path.stem), item)
    absent = sorted(speakers.keys() - {item.speaker for item in found.values()})
    utterances = list(found.values())
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
    """Log one warning about what a tree lacks, or has beyond the complete corpus.

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
