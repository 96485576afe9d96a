"""Whether a model was trained on the recordings or speakers that it is to be tested on.

A split that keeps speakers apart does not help if the encoder has learned their emotions before.
Checkpoints of emoser state what they, their bases and their teachers were trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emoser.errors import LeakageError
from emoser.finetune.data.content import hash_recordings
from emoser.finetune.data.utterance import Utterance
from emoser.models.training_stage import TrainingStage
from emoser.text import counted

OWN = "own recordings"  # instead of the name of a corpus


@dataclass(frozen=True)
class Overlap:
    """What a model was trained on of a test set.

    Attributes:
        name: The model.
        recordings: How many of the recordings; pieces of a file count as that file.
        of_recordings: The number of recordings.
        speakers: How many of the known speakers, by name.
        of_speakers: The number of known speakers.
        corpora: Corpora of those speakers.
        unnamed: Recordings without speaker, of corpora that the model was trained on.
        unknown: Recordings without speaker or corpus.
        stated: Whether the model states what it was trained on.
    """

    name: str
    recordings: int
    of_recordings: int
    speakers: int
    of_speakers: int
    corpora: tuple[str, ...] = ()
    unnamed: int = 0
    unknown: int = 0
    stated: bool = True

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.recordings or self.speakers)

    def __str__(self) -> str:
        """The counts in a sentence; empty without any overlap."""
        if not self:
            return ""
        named = f" ({', '.join(self.corpora)})" if self.corpora else ""
        parts = [f"{self.recordings:,} of the {counted(self.of_recordings, 'tested recording')}"]
        if self.of_speakers:
            of = counted(self.of_speakers, "tested speaker")
            parts.append(f"{self.speakers:,} of the {of}{named}")
        return f"{self.name} was trained on {' and '.join(parts)}"

    def describe(self) -> str:
        """The protocol that follows from what the model states."""
        if not self.stated:
            return "not stated: whether the model was trained on these speakers is not known"
        if self:
            return f"not independent: {self}"
        if self.unnamed:
            return (
                f"{self.name} states that it was trained on none of these recordings, but on the "
                f"corpus of {self.unnamed:,} of them, whose speakers are not known"
            )
        tested = "recordings and known speakers" if self.of_speakers else "recordings"
        stated = f"{self.name} states that it was trained on none of these {tested}"
        if not self.unknown:
            return stated
        return (
            f"{stated}; speaker or corpus of {counted(self.unknown, 'recording')} is not known, so "
            "other copies of what it was trained on may be among them"
        )


def find_overlap(
    name: str, stages: Sequence[TrainingStage], utterances: Sequence[Utterance]
) -> Overlap:
    """What a model was trained on of a test set, by the sound of files and the names of speakers.

    Args:
        name: Name of the model.
        stages: Its trainings, and those of its bases and teachers.
        utterances: The test set.

    Example:
        >>> stage = TrainingStage.of([], [("calls", "anna")])
        >>> people = [Utterance("x.wav", "sad", who, "calls") for who in ("anna", "bo")]
        >>> print(find_overlap("this", [stage], people))
        this was trained on 0 of the 2 tested recordings and 1 of the 2 tested speakers (calls)
    """
    voices = {item.voice for item in utterances if item.voice}
    if not stages:
        return Overlap(name, 0, len(utterances), 0, len(voices), stated=False)
    contents = {}
    if any(stage.recordings for stage in stages):
        contents = hash_recordings(item.path for item in utterances)
    learned = {content for stage in stages for content in stage.find_recordings(contents.values())}
    met = {voice for stage in stages for voice in stage.find_speakers(voices)}
    unnamed = [item.corpus for item in utterances if item.corpus and item.voice is None]
    corpora = {corpus for stage in stages for corpus in stage.find_corpora(unnamed)}
    return Overlap(
        name,
        sum(contents.get(item.path) in learned for item in utterances),
        len(utterances),
        len(met),
        len(voices),
        tuple(sorted({corpus or OWN for corpus, _ in met})),
        sum(corpus in corpora for corpus in unnamed),
        sum(None in (item.corpus, item.speaker) for item in utterances),
    )


def refuse_overlap(overlaps: Sequence[Overlap], *, allowed: bool) -> str:
    """The sentence that belongs beside the figures of these models; empty without any overlap.

    Raises:
        LeakageError: If there is an overlap and it is not allowed.
    """
    found = "; ".join(dict.fromkeys(str(overlap) for overlap in overlaps if overlap))
    if found and not allowed:
        raise LeakageError(
            f"{found}, so the figures would not hold for others; leave these out, or get figures "
            "that say so with allow_trained_on=True (--allow-trained-on)"
        )
    return found
