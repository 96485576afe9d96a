"""Whether an encoder was trained on speakers that it is about to be tested on.

A split that keeps speakers apart does not help if the encoder has learned their emotions before.
Checkpoints of emoser state what they and their bases were trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.resolve import bundled_names, find_checkpoint
from emoser.finetune.data.utterance import Utterance

OWN = "own recordings"  # instead of the name of a corpus


def describe_leakage(
    base: str, utterances: Sequence[Utterance], *, files: CheckpointFiles | None = None
) -> list[str]:
    """A sentence about the tested speakers that the encoder was trained on, or nothing.

    Args:
        base: Bundled name, folder or Hub id of the encoder.
        utterances: The test set.
        files: The checkpoint of the encoder, if the caller has found it.

    Example:
        >>> tested = [Utterance("x", "sad", speaker=who, corpus="nemo") for who in ("EB0", "KS0")]
        >>> describe_leakage("emoser-tiny", tested)[0][:60]
        'emoser-tiny itself was trained on 1 of the 2 tested speakers'
    """
    stages = list_stages(files or find_checkpoint(base))
    voices = {item.voice for item in utterances if item.voice}
    known = {voice for voice in voices if any(_includes(stage, *voice) for stage in stages)}
    if not known:
        return []
    corpora = ", ".join(sorted({corpus or OWN for corpus, _ in known}))
    return [
        f"{base} itself was trained on {len(known)} of the {len(voices)} tested speakers "
        f"({corpora}), with their labels: the figures are not speaker-independent"
    ]


def list_stages(files: CheckpointFiles) -> list[Mapping[str, Any]]:
    """What a checkpoint and its bases were trained on, the last training first.

    A stage has the `speakers` of each corpus, or, where a checkpoint does not state them, its
    `corpora` and the speakers `held_out` of each.
    """
    training = _mapping(_mapping(files.config.get("emoser")).get("training"))
    if "trained_on" in training:
        return [_mapping(stage) for stage in training["trained_on"]]
    settings = training.get("configs") or [training.get("config") or training.get("settings")]
    weights = [_mapping(_mapping(stage).get("corpus_weights")) for stage in settings]
    stage = {
        "corpora": sorted({corpus for corpora in weights for corpus in corpora}),
        "held_out": _mapping(training.get("held_out")),
    }
    base = training.get("base")
    return [stage, *(list_stages(find_checkpoint(base)) if base in bundled_names() else [])]


def _includes(stage: Mapping[str, Any], corpus: str | None, speaker: str) -> bool:
    if "speakers" in stage:
        return speaker in stage["speakers"].get(corpus or "", ())
    return corpus in stage["corpora"] and speaker not in stage["held_out"].get(corpus, ())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
