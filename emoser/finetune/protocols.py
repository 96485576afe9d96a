"""Training, validation and test sets: utterances in, splits out.

Each split has a sentence that describes it, so that no figure is printed without its protocol.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoser.finetune.data.utterance import Utterance

SPLIT_PARTS = (0.8, 0.1)  # of a random split: training and validation; the rest is the test
VALIDATION_PART = 0.2  # of the training sessions, where a session is tested (SUPERB)
SHOWN = 5

Utterances = tuple[Utterance, ...]


@dataclass(frozen=True)
class Split:
    """One division of a corpus.

    Attributes:
        name: Such as "fold 3" or "seed 1".
        protocol: The sentence that belongs beside every figure of it.
        training: The training set.
        validation: Chooses the epoch; the test set never does.
        test: Scored once.
        seed: Of the model and, in the speaker-dependent protocol, of the split.
    """

    name: str
    protocol: str
    training: Utterances
    validation: Utterances
    test: Utterances
    seed: int = 0

    @property
    def speaker_independent(self) -> bool:
        """Whether all speakers are known and none is tested that was trained or validated on."""
        return None not in _voices(self.test) and not _shared(
            _voices(self.training) | _voices(self.validation), _voices(self.test)
        )

    @property
    def shared_sentences(self) -> float | None:
        """Part of the test clips whose text is also trained on; None where texts are unknown."""
        known = [(item.corpus, item.sentence) for item in self.test if item.sentence is not None]
        if not known:
            return None
        learned = {(item.corpus, item.sentence) for item in self.training}
        return sum(text in learned for text in known) / len(known)


def build_splits(
    utterances: Sequence[Utterance],
    setting: str,
    *,
    seed: int = 0,
    num_seeds: int = 5,
    num_folds: int = 5,
) -> list[Split]:
    """All splits of a protocol.

    Args:
        utterances: The whole corpus, without duplicates.
        setting: "sd" (speaker-dependent: random 80/10/10, one split per seed), "si"
            (speaker-independent: where each session has two speakers, as in IEMOCAP, ten folds
            that test one of them and validate on the other; elsewhere as "groups"), "sessions"
            (test each session, validate on a random fifth of the others; also "superb"),
            "speakers" (test each speaker, validate on the next one), or "groups" (k folds of
            whole speakers, validate on the next fold).
        seed: The first seed.
        num_seeds: Number of seeds of "sd".
        num_folds: Number of folds of "groups".

    Raises:
        ValueError: If the corpus does not fit the protocol, or a split leaks.

    Example:
        >>> calls = [Utterance(f"{i}.wav", "sad", speaker=str(i % 3)) for i in range(9)]
        >>> [split.name for split in build_splits(calls, "speakers")]
        ['speaker 0', 'speaker 1', 'speaker 2']
    """
    builders: Mapping[str, Callable[[], list[Split]]] = {
        "sd": lambda: [split_randomly(utterances, seed=seed + i) for i in range(num_seeds)],
        "si": lambda: _split_independently(utterances, seed=seed, num_folds=num_folds),
        "sessions": lambda: split_sessions(utterances, seed=seed),
        "superb": lambda: split_sessions(utterances, seed=seed),
        "speakers": lambda: split_speakers(utterances, seed=seed),
        "groups": lambda: split_groups(utterances, num_folds=num_folds, seed=seed),
    }
    if setting not in builders:
        raise ValueError(f"setting is {setting!r}, allowed are {', '.join(builders)}")
    splits = builders[setting]()
    for split in splits:
        check_split(split, speakers=setting != "sd")
    return splits


def split_randomly(utterances: Sequence[Utterance], *, seed: int) -> Split:
    """Shuffled and cut 80/10/10, with speakers on all sides."""
    shuffled = list(utterances)
    random.Random(seed).shuffle(shuffled)
    first = int(len(shuffled) * SPLIT_PARTS[0])
    second = first + int(len(shuffled) * SPLIT_PARTS[1])
    return Split(
        f"seed {seed}",
        "speaker-dependent: random 80/10/10 split, speakers on all sides",
        tuple(shuffled[:first]),
        tuple(shuffled[first:second]),
        tuple(shuffled[second:]),
        seed,
    )


def split_pairs(utterances: Sequence[Utterance], *, seed: int) -> list[Split]:
    """Test each speaker, validate on the partner in the session, train on the other sessions.

    Raises:
        ValueError: If a session has not two speakers.
    """
    sessions = _by_session(utterances)
    splits = []
    for members in sessions.values():
        voices = sorted({str(item.speaker) for item in members}, key=_number)
        if len(voices) != 2:
            raise ValueError(f"a session has the speakers {', '.join(voices)}; two are needed")
        others = tuple(item for item in utterances if item not in set(members))
        for tested in voices:
            splits.append(
                Split(
                    f"speaker {tested}",
                    f"speaker-independent: {2 * len(sessions)} folds, one speaker tested, the "
                    "other of the session validated on",
                    others,
                    tuple(item for item in members if item.speaker != tested),
                    tuple(item for item in members if item.speaker == tested),
                    seed,
                )
            )
    return splits


def split_sessions(utterances: Sequence[Utterance], *, seed: int) -> list[Split]:
    """Test each session, validate on a random fifth of the others (the SUPERB benchmark)."""
    splits = []
    for session, members in _by_session(utterances).items():
        others = [item for item in utterances if item not in set(members)]
        random.Random(seed).shuffle(others)
        size = int(len(others) * VALIDATION_PART)
        splits.append(
            Split(
                f"session {session}",
                "speaker-independent test: leave one session out, validated on a random 20 % of "
                "the other sessions",
                tuple(others[size:]),
                tuple(others[:size]),
                tuple(members),
                seed,
            )
        )
    return splits


def split_speakers(utterances: Sequence[Utterance], *, seed: int) -> list[Split]:
    """Test each speaker and validate on the next one."""
    groups = _by_voice(utterances)
    names = [f"speaker {'/'.join(filter(None, voice))}" for voice in groups]
    protocol = "speaker-independent: leave one speaker out, the next one validated on"
    return _rotate(list(groups.values()), names, protocol, seed)


def split_groups(utterances: Sequence[Utterance], *, num_folds: int, seed: int) -> list[Split]:
    """Folds of whole speakers, those of every corpus spread over all; validate on the next.

    Raises:
        ValueError: If there are fewer than three folds or fewer speakers than folds.
    """
    groups = _by_voice(utterances)
    if not 3 <= num_folds <= len(groups):
        raise ValueError(
            f"{num_folds} folds of {len(groups)} speakers; at least 3 folds (training, "
            "validation, test) and as many speakers are needed"
        )
    voices = sorted(groups, key=lambda voice: (voice[0] or "", _number(voice[1])))
    generator = random.Random(seed)
    by_corpus: dict[str, list[tuple[str | None, str]]] = defaultdict(list)
    for voice in voices:
        by_corpus[voice[0] or ""].append(voice)
    dealt: list[tuple[str | None, str]] = []
    for members in by_corpus.values():
        generator.shuffle(members)
        dealt += members
    folds: list[list[Utterance]] = [[] for _ in range(num_folds)]
    for index, voice in enumerate(dealt):
        folds[index % num_folds] += groups[voice]
    names = [f"fold {index + 1}" for index in range(num_folds)]
    protocol = f"speaker-independent: {num_folds} folds of whole speakers, the next validated on"
    return _rotate(folds, names, protocol, seed)


def check_split(split: Split, *, speakers: bool = True) -> None:
    """Refuse a split that leaks.

    Raises:
        ValueError: If a side is empty, an utterance is on two sides, or, with `speakers`, a
            tested speaker is trained or validated on.
    """
    sides = {"training": split.training, "validation": split.validation, "test": split.test}
    faults = [f"{name} is empty" for name, members in sides.items() if not members]
    places: dict[tuple[str, float | None, float | None], set[str]] = defaultdict(set)
    for name, members in sides.items():
        for item in members:
            places[item.path, item.start, item.end].add(name)
    twice = sorted(path for (path, _, _), names in places.items() if len(names) > 1)
    faults += [f"on two sides: {', '.join(twice[:SHOWN])}"] if twice else []
    if speakers:
        learned = _voices(split.training) | _voices(split.validation)
        shared = _shared(learned, _voices(split.test))
        faults += [f"tested speakers that were learned from: {', '.join(shared)}"] if shared else []
    if faults:
        raise ValueError(f"{split.name} ({split.protocol}): {'; '.join(faults)}")


def check_sides(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    *,
    share_speakers: bool = False,
) -> None:
    """Refuse an empty side and, unless `share_speakers`, speakers on both sides.

    Raises:
        ValueError: If a side is empty, or a speaker is on both sides.
    """
    if not utterances or not validation:
        raise ValueError(
            f"{len(utterances)} utterances to train on and {len(validation)} to validate on; "
            "both need at least one"
        )
    shared = _shared(_voices(utterances), _voices(validation))
    if shared and not share_speakers:
        raise ValueError(
            f"the speakers {', '.join(shared)} are trained and validated on; "
            "keep all recordings of a speaker on one side"
        )


def find_duplicates(utterances: Sequence[Utterance]) -> list[Utterances]:
    """Groups of utterances whose files hold the same bytes in the same piece."""
    by_size: dict[tuple[object, ...], list[Utterance]] = defaultdict(list)
    for item in utterances:
        by_size[Path(item.path).stat().st_size, item.start, item.end].append(item)
    groups: dict[tuple[object, ...], list[Utterance]] = defaultdict(list)
    for key, members in by_size.items():
        for item in members if len(members) > 1 else ():
            groups[(*key, _hash_file(item.path))].append(item)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def drop_duplicates(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """The utterances with one of each group of equal recordings, and those left out.

    Raises:
        ValueError: If equal recordings have different labels or speakers; all in one message.
    """
    groups = find_duplicates(utterances)
    torn = [
        " = ".join(f"{item.path} ({item.label}, {item.speaker})" for item in group)
        for group in groups
        if len({(item.label, item.voice) for item in group}) > 1
    ]
    if torn:
        raise ValueError(
            f"the same audio under different labels or speakers: {'; '.join(torn[:SHOWN])}; "
            "keep one of each"
        )
    dropped = [item for group in groups for item in group[1:]]
    gone = set(dropped)
    return [item for item in utterances if item not in gone], dropped


def _split_independently(
    utterances: Sequence[Utterance], *, seed: int, num_folds: int
) -> list[Split]:
    if all(item.session is not None for item in utterances):
        return split_pairs(utterances, seed=seed)
    return split_groups(utterances, num_folds=num_folds, seed=seed)


def _rotate(
    groups: Sequence[Sequence[Utterance]], names: Sequence[str], protocol: str, seed: int
) -> list[Split]:
    """Every group is the test once and the validation once."""
    splits = []
    for index, name in enumerate(names):
        following = (index + 1) % len(groups)
        rest = [group for place, group in enumerate(groups) if place not in (index, following)]
        training = tuple(item for group in rest for item in group)
        splits.append(
            Split(name, protocol, training, tuple(groups[following]), tuple(groups[index]), seed)
        )
    return splits


def _by_session(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    sessions: dict[str, list[Utterance]] = defaultdict(list)
    for item in utterances:
        if item.session is None:
            raise ValueError(f"{item.path} has no session; this protocol leaves sessions out")
        sessions[item.session].append(item)
    return dict(sorted(sessions.items(), key=lambda pair: _number(pair[0])))


def _by_voice(utterances: Sequence[Utterance]) -> dict[tuple[str | None, str], list[Utterance]]:
    groups: dict[tuple[str | None, str], list[Utterance]] = defaultdict(list)
    for item in utterances:
        if item.voice is None:
            raise ValueError(
                f"{item.path} has no speaker; a speaker-independent protocol needs all of them"
            )
        groups[item.voice].append(item)
    return dict(sorted(groups.items(), key=lambda pair: (pair[0][0] or "", _number(pair[0][1]))))


def _voices(utterances: Sequence[Utterance]) -> set[tuple[str | None, str] | None]:
    return {item.voice for item in utterances}


def _shared(
    first: set[tuple[str | None, str] | None], second: set[tuple[str | None, str] | None]
) -> list[str]:
    return sorted("/".join(filter(None, voice)) for voice in first & second if voice is not None)


def _number(name: str) -> tuple[int, str]:
    """Sorts "2" before "10", and names after numbers."""
    return (int(name), "") if name.isdigit() else (1_000_000_000, name)


def _hash_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
