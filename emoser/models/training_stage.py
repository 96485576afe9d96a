"""What one training used, as salted hashes: no recording and no name is stored in them.

Whoever has a recording, or guesses a name, can find it; that is what they are for. A hash has 48
bits: among 10,000 recordings, one that was not trained on is taken for one that was with a
probability of 4e-11.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

Voice: TypeAlias = tuple[str | None, str]
"""Corpus, None if it is not known, and name of a speaker."""

HASH_BYTES = 6
SALT_BYTES = 8


@dataclass(frozen=True)
class TrainingStage:
    """The training and validation recordings of one training.

    Attributes:
        salt: Goes into every hash, and is another one for other recordings.
        recordings: Hashes of their sound, sorted and joined.
        speakers: Hashes of corpus and name, likewise.
        corpora: Hashes of the names, likewise.

    Example:
        >>> stage = TrainingStage.of([b"sound of a clip"], [("calls", "Anna")])
        >>> stage.find_speakers([("Calls", "anna"), ("calls", "bert"), (None, "anna")])
        {('Calls', 'anna')}
        >>> TrainingStage.from_dict(stage.to_dict()).find_recordings([b"sound of a clip", b"x"])
        {b'sound of a clip'}
    """

    salt: bytes
    recordings: bytes
    speakers: bytes
    corpora: bytes

    @classmethod
    def of(cls, contents: Iterable[bytes], voices: Iterable[Voice]) -> "TrainingStage":
        """The stage of recordings, given by hashes of their sound, and of their speakers."""
        contents, people = sorted(set(contents)), sorted(set(map(_voice_key, voices)))
        salt = blake2b(b"\n".join([*contents, *people]), digest_size=SALT_BYTES).digest()
        corpora = {person.split(b"\0")[0] for person in people} - {b""}
        kinds = (contents, people, corpora)
        return cls(salt, *(b"".join(sorted(_hash(salt, item) for item in kind)) for kind in kinds))

    def find_recordings(self, contents: Iterable[bytes]) -> set[bytes]:
        """Those of the hashes of sound that are among the recordings."""
        known = _split(self.recordings)
        return {content for content in contents if _hash(self.salt, content) in known}

    def find_speakers(self, voices: Iterable[Voice]) -> set[Voice]:
        """Those of the speakers that are among its speakers, by name."""
        known = _split(self.speakers)
        return {voice for voice in voices if _hash(self.salt, _voice_key(voice)) in known}

    def find_corpora(self, names: Iterable[str]) -> set[str]:
        """Those of the corpora that are among its corpora, by name."""
        known = _split(self.corpora)
        return {name for name in names if _hash(self.salt, _plain(name)) in known}

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return {name: b64encode(value).decode() for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingStage":
        """The stage that `to_dict` wrote.

        Raises:
            KeyError: If a value is missing.
            ValueError: If one is damaged.
        """
        return cls(**{name: b64decode(values[name]) for name in cls.__dataclass_fields__})


def _hash(salt: bytes, content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES, salt=salt).digest()


def _split(joined: bytes) -> set[bytes]:
    return {joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)}


def _voice_key(voice: Voice) -> bytes:
    corpus, speaker = voice
    return _plain(corpus or "") + b"\0" + _plain(speaker)


def _plain(name: str) -> bytes:
    """A name without what tables write differently: case, and zeros before a number."""
    word = " ".join(name.casefold().split())
    return (str(int(word)) if word.isdecimal() else word).encode()
