"""`finetune(...)`: from the user's own recordings to a checkpoint with its report.

Chooses a split, refuses data whose figures would be misleading, trains, fits the temperature,
tests once, and writes report and card.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from emoser.checkpoints.atomic import write_text
from emoser.finetune.config import Augmentation, FinetuneConfig
from emoser.finetune.data.annotations import choose_targets, find_outputs
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.split_run import (
    FinetuneResult,
    SplitSetup,
    run_split,
)
from emoser.finetune.experiments.start import (
    build_initial_model,
    compare_base,
    find_base,
    fit_settings,
    open_recordings,
)
from emoser.finetune.protocols import (
    Split,
    check_split,
    drop_duplicates,
    split_by_class,
    split_groups,
)
from emoser.finetune.scoring.record import TrainingRecord
from emoser.finetune.scoring.report import write_report
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.run import train
from emoser.json_text import format_json
from emoser.text import counted, shorten

SPLITS = ("auto", "speakers", "column", "random")
NUM_FOLDS = 5  # one for testing, one for validation, three for training
FEWEST_CLIPS = 5  # of a class in training
FEWEST_SPEAKERS = 3
SIDES = {"train": 0, "training": 0, "validation": 1, "valid": 1, "dev": 1, "test": 2}
PROBE_CLIPS, PROBE_EPOCHS, PROBE_LEARNED = 32, 40, 0.9


def finetune(
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    output: str | Path,
    split: str = "auto",
    device: str = "auto",
    skip_unreadable: bool = False,
) -> FinetuneResult:
    """Fine-tune `config.base` on the user's own recordings, or resume an interrupted run.

    Args:
        utterances: All recordings; `split` divides them.
        config: All settings.
        output: Folder of the run: `best/` (the checkpoint with its card), `report.md`,
            `report.json`, `result.json`, `confusion.png` or `dimensions.png`, `log.jsonl`.
        split: "column" (the split of the utterances' own column), "speakers" (by whole speakers,
            three fifths for training), "random" (a part of every class, speakers on all sides),
            or "auto": the first of these that the utterances allow, but "random" only if no
            speaker is known.
        device: "auto", "cpu" or "cuda".
        skip_unreadable: Whether to leave out recordings that are missing or cannot be decoded;
            the report names them.

    Raises:
        ValueError: If the utterances do not allow the split, there is one class only, a class has
            too few clips, or the same audio has two labels or speakers.
        AudioError: Naming all recordings that cannot be read, unless they are left out.
        CheckpointError: If the folder holds another run.

    Example:
        >>> import tempfile
        >>> file, labels = "examples/audio/slow.ogg", ("sad", "happy")
        >>> calls = [  # thirty pieces of one recording stand in for as many calls
        ...     Utterance(file, labels[n % 2], speaker=str(n // 10), start=n / 10, end=n / 10 + 1)
        ...     for n in range(30)
        ... ]
        >>> config = FinetuneConfig("emoser-tiny", mode="frozen", epochs=1, masking=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     result = finetune(calls, config=config, output=f"{place}/run")
        >>> print(result.evaluation.protocol)
        speaker-independent: tested on speakers that were neither trained nor validated on
    """
    folder, base = Path(output), find_base(config)
    config, recordings = fit_settings(config, base), open_recordings(base)
    readable, notes = recordings.read(utterances, skip_unreadable=skip_unreadable)
    kept, dropped = drop_duplicates(choose_targets(readable, config.model.targets))
    outputs = find_outputs(kept)
    divided = choose_split(kept, split, seed=config.run.seed)
    check_classes(divided, outputs.labels)
    notes += [f"{counted(len(dropped), 'duplicate')} left out"] if dropped else []
    overlap = compare_base(config, base, divided.test, speakers=divided.speaker_independent)
    setup = SplitSetup(config, base, outputs, ProcessGroup(device), recordings)
    result, _ = run_split(
        divided, setup, folder, name=folder.name, calibrate=True, notes=notes,
        trained_on=str(overlap),
    )  # fmt: skip
    record = TrainingRecord(config, divided, result.epochs)
    setup.processes.write(lambda: _write(result, record, folder))
    return result


def choose_split(utterances: Sequence[Utterance], split: str, *, seed: int = 0) -> Split:
    """Divide utterances into training, validation and test set.

    Raises:
        ValueError: If the utterances do not allow the split, or it leaks.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, allowed are {', '.join(SPLITS)}")
    if split == "auto":
        split = _first_possible(utterances)
    if split == "column":
        divided = _split_by_column(utterances, seed)
    elif split == "speakers":
        num_folds = min(NUM_FOLDS, len({item.voice for item in utterances}))
        divided = replace(
            split_groups(utterances, num_folds=num_folds, seed=seed)[0],
            name="held-out speakers",
            protocol="speaker-independent: tested on speakers that were neither trained nor "
            "validated on",
        )
    else:
        divided = split_by_class(utterances, seed=seed)
    check_split(divided, speakers=split != "random")
    return divided


def check_classes(split: Split, labels: Sequence[str]) -> None:
    """Refuse classes with too few clips to train or test.

    Raises:
        ValueError: Naming every class with too few clips, and the side.
    """
    faults = [
        f"{label} has {counted(count, 'clip')} in {name} and needs {fewest}"
        for name, fewest in (("training", FEWEST_CLIPS), ("validation", 1), ("test", 1))
        for label in labels
        if (count := sum(label in item.classes for item in getattr(split, name))) < fewest
    ]
    if faults:
        raise ValueError(f"{'; '.join(faults)}; add recordings or leave the class out")


def probe(
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    output: str | Path,
    device: str = "auto",
    skip_unreadable: bool = False,
) -> tuple[bool, float]:
    """Whether the model can overfit 32 clips, and its accuracy or CCC on them.

    A sanity check of labels, recordings and learning rates; no estimate for other clips. The
    clips are spread over the classes; the check has its own epochs and no augmentation.
    """
    kept = choose_targets(utterances, config.model.targets)
    labels = find_outputs(kept).labels or ("",)
    by_label = [[item for item in kept if (item.answers or ("",))[0] == label] for label in labels]
    chosen = [item for turn in zip_longest(*by_label) for item in turn if item][:PROBE_CLIPS]
    recordings = open_recordings(find_base(config))
    chosen, _ = recordings.read(chosen, skip_unreadable=skip_unreadable)
    config = config.replace(
        epochs=PROBE_EPOCHS,
        batch_size=min(config.data.batch_size, 8),
        augmentation=Augmentation.off(),
        schedule="constant",
        label_smoothing=0.0,
        ema_decay=0.0,
        selection="accuracy",
    )
    learned = train(
        chosen,
        chosen,
        model=build_initial_model(config, find_outputs(chosen)),
        config=config,
        output=output,
        device=device,
        share_speakers=True,
        recordings=recordings,
    ).report.figure("accuracy")
    return learned >= PROBE_LEARNED, learned


def _write(result: FinetuneResult, record: TrainingRecord, folder: Path) -> None:
    write_report(result.evaluation, folder, title=folder.name, training=record)
    text = format_json(result.to_dict(), indent=2) + "\n"
    write_text(folder / "result.json", text)


def _first_possible(utterances: Sequence[Utterance]) -> str:
    if {0, 1, 2} <= {_find_side(item) for item in utterances}:
        return "column"
    known = {item.voice for item in utterances} - {None}
    if not known:
        return "random"
    unnamed = [item.path for item in utterances if item.voice is None]
    if unnamed:
        raise ValueError(
            f"the speaker of {len(unnamed)} of {counted(len(utterances), 'recording')} is missing "
            f"({shorten(unnamed, 3)}); complete the column speaker, or divide every class with "
            "split='random' (--split random)"
        )
    if len(known) < FEWEST_SPEAKERS:
        raise ValueError(
            f"there {'is' if len(known) == 1 else 'are'} {counted(len(known), 'speaker')}, and a "
            "split by speakers needs three, to train, validate and test on; add recordings of "
            "others, or divide every class with split='random' (--split random)"
        )
    return "speakers"


def _split_by_column(utterances: Sequence[Utterance], seed: int) -> Split:
    sides = [_find_side(item) for item in utterances]
    pairs = list(zip(utterances, sides, strict=True))
    unknown = {item.split or "nothing" for item, side in pairs if side is None}
    if unknown:
        raise ValueError(
            f"the column split has {', '.join(sorted(unknown))}; allowed are {', '.join(SIDES)}"
        )
    known = all(item.voice is not None for item in utterances)
    kind = "speaker-independent" if known else "speakers not known"
    protocol = f"{kind}: the split that the table gives"
    training, validation, test = (
        tuple(item for item, side in pairs if side == wanted) for wanted in range(3)
    )
    return Split("given split", protocol, training, validation, test, seed)


def _find_side(utterance: Utterance) -> int | None:
    return SIDES.get((utterance.split or "").lower())
