"""Evaluation protocols: training, validation and test sets of a corpus.

Each split carries a description of its protocol, for every report of its results.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from emoser.finetune.data.utterance import Utterance

SPLIT_PARTS = (0.8, 0.1)  # training and validation set of a random split; the rest is the test set
VALIDATION_PART = 0.2  # of the other sessions if one session is tested (SUPERB)
SHOWN = 5

Utterances = tuple[Utterance, ...]
Voice = tuple[str | None, str]


@dataclass(frozen=True)
class Split:
    """Training, validation and test set.

    Attributes:
        name: Its name in the protocol, such as "fold 3" or "seed 1".
        protocol: Description of the protocol, for reports.
        training: The training set.
        validation: The validation set, which selects the epoch.
        test: The test set, which is scored once.
        seed: Seed of the training run; in the speaker-dependent protocol, of the split too.
    """

    name: str
    protocol: str
    training: Utterances
    validation: Utterances
    test: Utterances
    seed: int = 0

    @property
    def speaker_independent(self) -> bool:
        """Whether all test speakers are known, and are in neither of the other sets."""
        known = all(item.voice for item in self.test)
        return known and not _shared((*self.training, *self.validation), self.test)

    @property
    def shared_sentences(self) -> float | None:
        """Share of the test clips whose text is in the training set; None without known texts."""
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
            (speaker-independent: with sessions of two speakers, as in IEMOCAP, test each speaker
            and validate on the other one of the session; without sessions as "groups"),
            "sessions" or "superb" (test each session, validate on a random fifth of the others),
            "speakers" (test each speaker, validate on the next one), or "groups" (k folds of
            whole speakers; test each fold, validate on the next one).
        seed: First seed.
        num_seeds: Number of splits of "sd".
        num_folds: Number of folds of "groups".

    Raises:
        ValueError: If the corpus does not fit the protocol, or a split is not valid (see
            `check_split`).

    Example:
        >>> calls = [Utterance(f"{i}.wav", "sad", speaker=str(i % 3)) for i in range(9)]
        >>> [split.name for split in build_splits(calls, "speakers")]
        ['speaker 0', 'speaker 1', 'speaker 2']
    """
    builders: Mapping[str, Callable[[], list[Split]]] = {
        "sd": lambda: [split_randomly(utterances, seed=seed + i) for i in range(num_seeds)],
        "si": lambda: (
            split_pairs(utterances, seed=seed)
            if all(item.session is not None for item in utterances)
            else split_groups(utterances, num_folds=num_folds, seed=seed)
        ),
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
    """A random 80/10/10 split that ignores speakers."""
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


def split_by_class(utterances: Sequence[Utterance], *, seed: int) -> Split:
    """A random 80/10/10 split of every class that ignores speakers; no side lacks a class."""
    generator = random.Random(seed)
    training: list[Utterance] = []
    validation: list[Utterance] = []
    test: list[Utterance] = []
    labels = sorted({item.label for item in utterances})
    of_classes = " of every class" * (labels != [""])
    for label in labels:
        members = [item for item in utterances if item.label == label]
        generator.shuffle(members)
        size = max(1, round(len(members) * SPLIT_PARTS[1]))
        test += members[:size]
        validation += members[size : 2 * size]
        training += members[2 * size :]
    return Split(
        f"seed {seed}",
        f"speaker-dependent: random 80/10/10 split{of_classes}, speakers on all sides",
        tuple(training),
        tuple(validation),
        tuple(test),
        seed,
    )


def split_pairs(utterances: Sequence[Utterance], *, seed: int) -> list[Split]:
    """Test each speaker, validate on the other one of the session, train on other sessions.

    Raises:
        ValueError: If a session does not have two speakers.
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
    """Test each session, validate on a random fifth of the others (SUPERB)."""
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
    """Test each speaker, validate on the next one."""
    groups = _by_voice(utterances)
    names = [f"speaker {'/'.join(filter(None, voice))}" for voice in groups]
    protocol = "speaker-independent: leave one speaker out, the next one validated on"
    return _rotate(list(groups.values()), names, protocol, seed)


def split_groups(utterances: Sequence[Utterance], *, num_folds: int, seed: int) -> list[Split]:
    """Test each fold of whole speakers, validate on the next one.

    The speakers of every corpus are spread over all folds.

    Raises:
        ValueError: If there are fewer than three folds, or fewer speakers than folds.
    """
    groups = _by_voice(utterances)
    if not 3 <= num_folds <= len(groups):
        raise ValueError(
            f"{num_folds} folds of {len(groups)} speakers; at least 3 folds (training, "
            "validation, test) and as many speakers are needed"
        )
    generator = random.Random(seed)
    voices: list[Voice] = []
    for _, members in groupby(groups, key=lambda voice: voice[0] or ""):
        shuffled = list(members)
        generator.shuffle(shuffled)
        voices += shuffled
    folds = [
        [item for voice in voices[fold::num_folds] for item in groups[voice]]
        for fold in range(num_folds)
    ]
    names = [f"fold {index + 1}" for index in range(num_folds)]
    protocol = f"speaker-independent: {num_folds} folds of whole speakers, the next validated on"
    return _rotate(folds, names, protocol, seed)


def check_split(split: Split, *, speakers: bool = True) -> None:
    """Check that no set is empty and that no recording or test speaker leaks.

    Args:
        split: The split.
        speakers: Whether test speakers must not be in another set.

    Raises:
        ValueError: If a set is empty, an utterance is in two sets, or a test speaker is in the
            training or validation set.
    """
    sets = {"training": split.training, "validation": split.validation, "test": split.test}
    faults = [f"{name} is empty" for name, members in sets.items() if not members]
    pieces = [{(item.path, item.start, item.end) for item in members} for members in sets.values()]
    twice = sorted(path for (path, *_), count in Counter(chain(*pieces)).items() if count > 1)
    faults += [f"in two sets: {', '.join(twice[:SHOWN])}"] if twice else []
    shared = _shared((*split.training, *split.validation), split.test)
    if speakers and shared:
        faults.append(f"test speakers that are trained or validated on: {', '.join(shared)}")
    if faults:
        raise ValueError(f"{split.name} ({split.protocol}): {'; '.join(faults)}")


def check_sides(
    utterances: Sequence[Utterance],
    validation: Sequence[Utterance],
    *,
    share_speakers: bool = False,
) -> None:
    """Check that training and validation set are not empty and share no speakers.

    Args:
        utterances: The training set.
        validation: The validation set.
        share_speakers: Whether speakers may be in both sets.

    Raises:
        ValueError: If a set is empty, or a speaker is in both sets.
    """
    if not utterances or not validation:
        raise ValueError(
            f"{len(utterances)} utterances to train on and {len(validation)} to validate on; "
            "both need at least one"
        )
    shared = _shared(utterances, validation)
    if shared and not share_speakers:
        raise ValueError(
            f"the speakers {', '.join(shared)} are both trained and validated on; "
            "keep all recordings of a speaker in one set"
        )


def find_duplicates(utterances: Sequence[Utterance]) -> list[Utterances]:
    """Groups of utterances that are the same piece of files with the same bytes."""
    by_size: dict[tuple[object, ...], list[Utterance]] = defaultdict(list)
    for item in utterances:
        by_size[Path(item.path).stat().st_size, item.start, item.end].append(item)
    groups: dict[tuple[object, ...], list[Utterance]] = defaultdict(list)
    for key, members in by_size.items():
        for item in members if len(members) > 1 else ():
            groups[(*key, _hash_file(item.path))].append(item)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def drop_duplicates(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """The utterances without duplicates, and the duplicates that were dropped.

    Raises:
        ValueError: If duplicates have different labels or speakers.
    """
    groups = find_duplicates(utterances)
    conflicts = [
        " = ".join(f"{item.path} ({item.truth}, {item.speaker})" for item in group)
        for group in groups
        if len({(item.truth, item.voice) for item in group}) > 1
    ]
    if conflicts:
        raise ValueError(
            f"the same audio with different labels or speakers: {'; '.join(conflicts[:SHOWN])}; "
            "keep one of each"
        )
    dropped = [item for group in groups for item in group[1:]]
    gone = set(dropped) - {group[0] for group in groups}
    return list(dict.fromkeys(item for item in utterances if item not in gone)), dropped


def _rotate(
    groups: Sequence[Sequence[Utterance]], names: Sequence[str], protocol: str, seed: int
) -> list[Split]:
    """Test each group, validate on the next one."""
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
            raise ValueError(f"{item.path} has no session; this protocol needs all of them")
        sessions[item.session].append(item)
    return {name: sessions[name] for name in sorted(sessions, key=_number)}


def _by_voice(utterances: Sequence[Utterance]) -> dict[Voice, list[Utterance]]:
    """The utterances of each speaker, ordered by corpus and name."""
    groups: dict[Voice, list[Utterance]] = defaultdict(list)
    for item in utterances:
        if item.voice is None:
            raise ValueError(f"{item.path} has no speaker; this protocol needs all of them")
        groups[item.voice].append(item)
    return dict(sorted(groups.items(), key=lambda pair: (pair[0][0] or "", _number(pair[0][1]))))


def _shared(first: Sequence[Utterance], second: Sequence[Utterance]) -> list[str]:
    """Names of the speakers in both sets."""
    voices = {item.voice for item in first} & {item.voice for item in second}
    return sorted("/".join(filter(None, voice)) for voice in voices if voice)


def _number(name: str) -> tuple[int, str]:
    """A key that sorts "2" before "10", and names after numbers."""
    return (int(name), "") if name.isdigit() else (1_000_000_000, name)


def _hash_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
