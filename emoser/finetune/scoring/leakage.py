"""Whether an encoder has met the speakers that it is about to be tested on.

A checkpoint of emoser says which corpora it was trained on and whom it never heard; a split that
keeps speakers apart is worth nothing where the encoder had learned their emotions before. Reads
what a checkpoint says of itself; knows nothing of models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.resolve import find_checkpoint
from emoser.finetune.data.utterance import Utterance


def describe_leakage(
    base: str, utterances: Sequence[Utterance], *, files: CheckpointFiles | None = None
) -> list[str]:
    """A sentence about the tested speakers that the encoder was trained on, or nothing.

    Args:
        base: Bundled name, folder or Hub id of the encoder.
        utterances: What is tested.
        files: The checkpoint of the encoder, if the caller has found it.

    Example:
        >>> tested = [Utterance("x", "sad", speaker=who, corpus="nemo") for who in ("EB0", "KS0")]
        >>> describe_leakage("emoser-tiny", tested)[0][:60]
        'emoser-tiny itself was trained on 1 of the 2 tested speakers'
    """
    stated = (files or find_checkpoint(base)).config.get("emoser")
    training = stated.get("training") if isinstance(stated, Mapping) else None
    if not isinstance(training, Mapping):
        return []
    corpora, held_out = _read_training(training)
    voices = {item.voice for item in utterances if item.corpus in corpora and item.voice}
    met = {
        (corpus, speaker)
        for corpus, speaker in voices
        if speaker not in held_out.get(corpus or "", ())
    }
    if not met:
        return []
    tested = len({item.voice for item in utterances if item.voice})
    names = ", ".join(sorted({str(corpus) for corpus, _ in met}))
    return [
        f"{base} itself was trained on {len(met)} of the {tested} tested speakers ({names}), "
        "with their labels: the figures are not speaker-independent"
    ]


def _read_training(training: Mapping[str, Any]) -> tuple[set[str], Mapping[str, Sequence[str]]]:
    """The corpora that a checkpoint was trained on, and the speakers of each that it was not."""
    held_out = training.get("held_out")
    corpora: set[str] = set()
    for stage in training.get("configs") or [training.get("config")]:
        weights = stage.get("corpus_weights") if isinstance(stage, Mapping) else None
        corpora.update(weights if isinstance(weights, Mapping) else ())
    return corpora, held_out if isinstance(held_out, Mapping) else {}
