"""The figures of a run for TensorBoard, in `tensorboard/` beside the log.

An epoch that is already there is not written again, so that a resumed run continues the same
curves.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoser.errors import missing_extra, writes_to

EVENTS = "tensorboard"
FIGURES = ("loss", "training_accuracy", "accuracy", "uar", "seconds", "peak_bytes")
LANDMARK = "loss"  # written for every epoch


def require_tensorboard() -> None:
    """Check that TensorBoard is installed before a run starts.

    Raises:
        DependencyError: If tensorboard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise missing_extra("the TensorBoard log", "tensorboard") from error


def write_events(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the records of epochs that are not in the event files yet, by the number of updates."""
    from torch.utils.tensorboard import SummaryWriter

    known = _last_step(folder / EVENTS)
    fresh = [record for record in records if record["step"] > known]
    if not fresh:
        return
    with writes_to(folder / EVENTS), SummaryWriter(str(folder / EVENTS)) as writer:
        for record in fresh:
            for name, value in _scalars(record):
                writer.add_scalar(name, value, record["step"])


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of an epoch; each corpus and learning rate has its own curve."""
    yield from ((name, record[name]) for name in FIGURES)
    yield from ((f"uar/{name}", val) for name, val in record["uar_per_corpus"].items() if name)
    yield from ((f"rate/{name}", value) for name, value in record["rates"].items())


def _last_step(folder: Path) -> int:
    if not folder.is_dir():
        return -1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    if LANDMARK not in events.Tags()["scalars"]:
        return -1
    return max(int(event.step) for event in events.Scalars(LANDMARK))
