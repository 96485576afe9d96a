"""One's own recordings to a model of one's own: `finetune(...)`, from utterances to a report.

Chooses a split that can be trusted, refuses what would make the figures a lie, trains, fits the
temperature, tests once, and writes report and card. Knows nothing of command lines.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emoser.checkpoints.save import save_model
from emoser.finetune.config import Augmentation, FinetuneConfig
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.cross_validation import order_labels
from emoser.finetune.experiments.start import build_start
from emoser.finetune.protocols import (
    Split,
    check_split,
    drop_duplicates,
    split_groups,
    split_randomly,
)
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.evaluation import predict_logits
from emoser.finetune.scoring.leakage import describe_contact
from emoser.finetune.scoring.provenance import describe_training
from emoser.finetune.scoring.report import Evaluation, assess, write_report
from emoser.finetune.training.distributed import Processes
from emoser.finetune.training.freezing import merge_lora
from emoser.finetune.training.run import BEST, train
from emoser.models.model import EmotionModel

SPLITS = ("auto", "speakers", "column", "random")
NUM_FOLDS = 5  # one tested, one validated on, three learned from
FEWEST_CLIPS = 5  # of a class in training
SIDES = {"train": 0, "training": 0, "validation": 1, "valid": 1, "dev": 1, "test": 2}
PROBE_CLIPS, PROBE_EPOCHS, PROBE_LEARNED = 32, 40, 0.9


@dataclass(frozen=True)
class FinetuneResult:
    """What came out.

    Attributes:
        folder: The checkpoint, for `EmotionClassifier.from_pretrained` and for transformers.
        best_epoch: The epoch that the validation set chose.
        temperature: Fitted on the validation set, and part of the checkpoint.
        evaluation: The test figures with their protocol.
    """

    folder: Path
    best_epoch: int
    temperature: float
    evaluation: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def finetune(
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    output: str | Path,
    split: str = "auto",
    device: str = "auto",
) -> FinetuneResult:
    """Fine-tune `config.base` on one's own recordings, or continue doing so.

    Args:
        utterances: All of them; see `split`.
        config: All settings.
        output: Folder of the run: `best/` (the checkpoint with its card), `report.md`,
            `report.json`, `result.json`, `confusion.png`, `log.jsonl`.
        split: "column" (the split that the utterances carry), "speakers" (whole speakers, three
            fifths learned from), "random" (speakers on all sides), or "auto": the first of
            these that the utterances allow, but "random" only where no speaker is known.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: If the utterances do not allow the split, a class has too few clips, or the
            same audio has two labels or speakers.
        AudioError: If a recording cannot be decoded.
        CheckpointError: If the folder holds another run.

    Example:
        >>> import tempfile
        >>> calls = [  # thirty pieces of one recording stand in for as many calls
        ...     Utterance(
        ...         "examples/audio/slow.ogg",
        ...         ("sad", "happy")[number % 2],
        ...         speaker=str(number // 10),
        ...         start=number / 10,
        ...         end=number / 10 + 1,
        ...     )
        ...     for number in range(30)
        ... ]
        >>> config = FinetuneConfig("emoser-tiny", mode="frozen", epochs=1, masking=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     result = finetune(calls, config=config, output=f"{place}/run")
        >>> print(result.evaluation.protocol)
        speaker-independent: tested on speakers that were neither trained nor validated on
    """
    kept, dropped = drop_duplicates(utterances)
    divided = choose_split(kept, split, seed=config.run.seed)
    labels = order_labels(kept)
    check_classes(divided, labels)
    folder = Path(output)
    model = build_start(config, labels)
    trained = train(
        divided.training,
        divided.validation,
        model=model,
        config=config,
        output=folder,
        device=device,
        share_speakers=True,
    )
    place = Processes(device).device
    validation = predict_logits(model, Recordings(divided.validation), device=place)
    truth = np.array([labels.index(item.label) for item in divided.validation])
    temperature = fit_temperature(validation, truth)
    notes = [f"{len(dropped)} duplicate recordings were left out"] if dropped else []
    if divided.speaker_independent:
        notes += describe_contact(config.base, divided.test)
    logits = predict_logits(model, Recordings(divided.test), device=place) / np.float32(temperature)
    evaluation = assess(logits, divided.test, labels, protocol=divided.protocol, notes=notes)
    result = FinetuneResult(folder / BEST, trained.best_epoch, temperature, evaluation)
    training = describe_training(config, divided, evaluation)
    model.config = replace(model.config, temperature=temperature, training=training)
    Processes(device).write(lambda: _write(model, result, folder))
    return result


def choose_split(utterances: Sequence[Utterance], split: str, *, seed: int = 0) -> Split:
    """Who is learned from, validated on, and tested.

    Raises:
        ValueError: If the utterances do not allow what was asked for, or the split leaks.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, allowed are {', '.join(SPLITS)}")
    if split == "auto":
        split = _first_possible(utterances)
    if split == "column":
        divided = _split_by_column(utterances, seed)
        check_split(divided)
    elif split == "speakers":
        divided = split_groups(utterances, num_folds=_count_folds(utterances), seed=seed)[0]
        divided = replace(
            divided,
            name="held-out speakers",
            protocol="speaker-independent: tested on speakers that were neither trained nor "
            "validated on",
        )
        check_split(divided)
    else:
        divided = split_randomly(utterances, seed=seed)
        check_split(divided, speakers=False)
    return divided


def check_classes(split: Split, labels: Sequence[str]) -> None:
    """Refuse classes that cannot be learned or tested.

    Raises:
        ValueError: Naming every class with too few clips, and where.
    """
    faults = []
    for name, side, fewest in (
        ("training", split.training, FEWEST_CLIPS),
        ("validation", split.validation, 1),
        ("test", split.test, 1),
    ):
        counts = Counter(item.label for item in side)
        faults += [
            f"{label} has {counts[label]} clips in {name}, at least {fewest} are needed"
            for label in labels
            if counts[label] < fewest
        ]
    if faults:
        raise ValueError(f"{'; '.join(faults)}; add recordings or leave the class out")


def probe(
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    output: str | Path,
    device: str = "auto",
) -> tuple[bool, float]:
    """Whether the model can learn a few clips by heart, and the accuracy it reaches on them.

    A sanity check of labels, recordings and learning rate: it says nothing about other clips.

    Args:
        utterances: 32 of them are taken, every class alike as far as possible.
        config: The settings to try; epochs, augmentation and speed are those of the check.
        output: Folder for its working files.
        device: "auto", "cpu" or "cuda".
    """
    by_label = {label: [item for item in utterances if item.label == label]
                for label in order_labels(utterances)}  # fmt: skip
    turns = max(len(members) for members in by_label.values())
    dealt = [members[turn] for turn in range(turns) for members in by_label.values()
             if turn < len(members)]  # fmt: skip
    chosen = dealt[:PROBE_CLIPS]
    config = replace(
        config,
        epochs=PROBE_EPOCHS,
        batch_size=min(config.data.batch_size, 8),
        augmentation=Augmentation.off(),
        schedule="constant",
        label_smoothing=0.0,
        ema_decay=0.0,
        selection="accuracy",
    )
    model = build_start(config, order_labels(chosen))
    result = train(
        chosen,
        chosen,
        model=model,
        config=config,
        output=output,
        device=device,
        share_speakers=True,
    )
    return result.report.accuracy >= PROBE_LEARNED, result.report.accuracy


def _write(model: EmotionModel, result: FinetuneResult, folder: Path) -> None:
    """Write report, result, and the checkpoint with its card."""
    write_report(result.evaluation, folder, title=folder.name)
    text = json.dumps(result.to_dict(), indent=2) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8")
    save_model(merge_lora(model), folder / BEST, overwrite=True, name=folder.name)


def _first_possible(utterances: Sequence[Utterance]) -> str:
    sides = {SIDES.get((item.split or "").lower()) for item in utterances}
    if {0, 1, 2} <= sides:
        return "column"
    known = {item.voice for item in utterances} - {None}
    if not known:
        return "random"
    if len(known) < 3 or any(item.voice is None for item in utterances):
        raise ValueError(
            f"{len(known)} speakers are known, and not of every recording or fewer than three; "
            "complete the column speaker, or ask for split='random' and have the report say so"
        )
    return "speakers"


def _split_by_column(utterances: Sequence[Utterance], seed: int) -> Split:
    sides: list[list[Utterance]] = [[], [], []]
    strange = set()
    for item in utterances:
        side = SIDES.get((item.split or "").lower())
        if side is None:
            strange.add(item.split or "nothing")
            continue
        sides[side].append(item)
    if strange:
        raise ValueError(
            f"the column split says {', '.join(sorted(strange))}; allowed are {', '.join(SIDES)}"
        )
    known = all(item.voice is not None for item in utterances)
    kind = "speaker-independent" if known else "speakers not known"
    protocol = f"{kind}: the split that the table gives"
    training, validation, test = (tuple(side) for side in sides)
    return Split("given split", protocol, training, validation, test, seed)


def _count_folds(utterances: Sequence[Utterance]) -> int:
    return min(NUM_FOLDS, len({item.voice for item in utterances}))
