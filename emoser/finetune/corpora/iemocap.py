"""IEMOCAP (Busso et al. 2008), the four classes of the literature: 5,531 utterances.

Labels come from `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`, recordings from
`Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav`. Excited counts as happy. The
speaker is the last `_F` or `_M` of the turn's name; the letter before `_impro` or `_script`
names who wore the markers. Valence, arousal (activation) and dominance are the means of the
annotators, from 1 to 5; all turns have them, also those without one of the four classes. The counts
per session and class are checked.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from emoser.finetune.data.utterance import Utterance
from emoser.finetune.settings import AUTO
from emoser.labels import DIMENSIONS
from emoser.text import shorten

EVALUATION = re.compile(
    r"^\[[\d.]+ - [\d.]+\]\t(?P<turn>Ses\d\d[FM]_\S+)\t(?P<emotion>\w+)\t"
    r"(?:\[(?P<valence>[\d.]+), (?P<arousal>[\d.]+), (?P<dominance>[\d.]+)\])?",
    re.MULTILINE,
)
SCALE = (1.0, 5.0)
TURN = re.compile(r"Ses(0[1-5])[FM]_((impro|script)\w+)_([FM])(\w*\d+)")
EMOTIONS: Mapping[str, str] = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "ang": "angry",
    "sad": "sad",
}
LABELS = ("neutral", "happy", "angry", "sad")
COUNTS: Mapping[str, tuple[int, int, int, int]] = {  # in the order of LABELS
    "1": (384, 278, 229, 194),
    "2": (362, 327, 137, 197),
    "3": (320, 286, 240, 305),
    "4": (258, 303, 327, 143),
    "5": (384, 442, 170, 245),
}
SPEAKERS = ("name", "upstream")


def read(
    root: str | Path, *, speakers: str = "name", complete: bool = True, targets: str = AUTO
) -> list[Utterance]:
    """The utterances of the five sessions, scripted and improvised.

    Args:
        root: The folder that holds `Session1` to `Session5`.
        speakers: "name" (who speaks), or "upstream": the assignment of the authors' code, which
            reads a fixed position of the turn's name and so takes 65 turns of women for their
            partner's.
        complete: Whether counts that differ from the literature's are refused.
        targets: With "dimensions" all turns with ratings, else those of the four classes.

    Raises:
        ValueError: If the counts differ, or `speakers` is unknown.
        FileNotFoundError: If there are no labels, or recordings are missing; all in one message.
    """
    if speakers not in SPEAKERS:
        raise ValueError(f"speakers is {speakers!r}, allowed are {', '.join(SPEAKERS)}")
    folder = Path(root)
    utterances = [
        _read_turn(session, line, speakers)
        for session in (folder / f"Session{number}" for number in COUNTS)
        for line in _read_lines(session)
        if (line["valence"] if targets == "dimensions" else line["emotion"] in EMOTIONS)
    ]
    if not utterances:
        raise FileNotFoundError(
            f"{folder} holds no Session1/dialog/EmoEvaluation/*.txt with labels; "
            "name the folder that holds Session1 to Session5"
        )
    missing = [item.path for item in utterances if not Path(item.path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(utterances)} recordings are missing: {shorten(missing)}"
        )
    if complete:
        _check_counts(utterances)
    return utterances


def _check_counts(utterances: list[Utterance]) -> None:
    """Refuse a set that is not the 5,531 utterances of the literature."""
    found = Counter((item.session, item.label) for item in utterances)
    faults = [
        f"session {session} has {found[session, label]} {label}, the literature {expected}"
        for session, counts in COUNTS.items()
        for label, expected in zip(LABELS, counts, strict=True)
        if found[session, label] != expected
    ]
    if faults:
        raise ValueError(
            f"{'; '.join(faults)}; a result on these would not be comparable: complete the "
            "corpus, or pass complete=False and say so"
        )


def upstream_sex(turn: str) -> str:
    """The sex that the authors' code reads from a turn's name, wrong where it has a suffix.

    Example:
        >>> upstream_sex("Ses03M_impro05_F000"), upstream_sex("Ses03M_impro05a_F000")
        ('f', 'm')
    """
    position = 18 if turn[7] == "s" else 15
    return "f" if turn[position] == "F" else "m"


def _read_lines(session: Path) -> list[re.Match[str]]:
    files = sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return [match for text in texts for match in EVALUATION.finditer(text)]


def _read_turn(session: Path, line: re.Match[str], speakers: str) -> Utterance:
    turn = line["turn"]
    match = TURN.fullmatch(turn)
    if match is None:
        raise ValueError(f"{session} names the turn {turn!r}, which no turn of IEMOCAP is called")
    number, dialogue, kind, speaker, _ = match.groups()
    sex = speaker.lower() if speakers == "name" else upstream_sex(turn)
    index = str(int(number))
    path = session / "sentences" / "wav" / f"{turn[:6]}_{dialogue}" / f"{turn}.wav"
    return Utterance(
        str(path),
        EMOTIONS.get(line["emotion"], ""),
        speaker=str(2 * int(number) - (sex == "f")),
        corpus="iemocap",
        sex=sex,
        session=index,
        style="improvised" if kind == "impro" else "scripted",
        sentence=dialogue if kind == "script" else None,
        dimensions={name: float(line[name]) for name in DIMENSIONS if line[name]},
        scale=SCALE,
    )
