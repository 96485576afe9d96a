"""Score checkpoints by name on labelled recordings, one alone or two against each other.

Knows nothing of training.
"""

from collections import Counter
from collections.abc import Sequence

from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.evaluation import check_labels, predict_logits
from emoser.finetune.scoring.report import Comparison, Evaluation, assess, compare


def score_models(
    names: Sequence[str],
    utterances: Sequence[Utterance],
    *,
    protocol: str,
    only_known: bool = False,
) -> tuple[Evaluation, Comparison | None]:
    """The figures of the first model, and how it compares with the second where there is one.

    Args:
        names: One or two bundled names, folders or Hub ids.
        utterances: What to score them on.
        protocol: The sentence that belongs beside every figure.
        only_known: Leave out recordings whose label a model has not, instead of refusing them.

    Raises:
        ValueError: If no recording is left, or a label is unknown.
        CheckpointError: If a model does not load.
        AudioError: If a recording cannot be decoded.
    """
    if not 1 <= len(names) <= 2:
        raise ValueError(f"{len(names)} models are named; name one, or two to compare")
    models = [load_model(find_checkpoint(name).folder) for name in names]
    columns = [model.config.labels for model in models]
    labels = [label for label in columns[0] if all(label in others for others in columns)]
    notes = []
    if only_known:
        strange = Counter(item.label for item in utterances if item.label not in labels)
        utterances = [item for item in utterances if item.label in labels]
        if strange:
            left = ", ".join(f"{count} {label}" for label, count in sorted(strange.items()))
            notes.append(f"left out, because a model has no such label: {left}")
    check_labels(utterances, labels)
    recordings = Recordings(utterances)
    logits = [predict_logits(model, recordings)[:, : len(model.config.labels)] for model in models]
    evaluation = assess(
        logits[0], utterances, columns[0], protocol=protocol, labels=labels, notes=notes
    )
    if len(models) == 1:
        return evaluation, None
    comparison = compare(
        (logits[0], logits[1]),
        (columns[0], columns[1]),
        utterances,
        names=(names[0], names[1]),
        labels=labels,
    )
    return evaluation, comparison
