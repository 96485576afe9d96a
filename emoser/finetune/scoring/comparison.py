"""Two models on the same recordings: `compare(...)` -> `Comparison`."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.dimensions import pair_values
from emoser.finetune.scoring.figures import choose_metrics, decide, select_labels
from emoser.metrics import concordance, difference_interval, name_interval
from emoser.text import counted


@dataclass(frozen=True)
class Comparison:
    """Two models on the same recordings.

    The figures of labels are NaN and 0 where only dimensions are compared.

    Attributes:
        names: The two models.
        uars: UAR of each.
        difference: UAR of the first minus that of the second.
        interval: 95 % interval of the difference.
        drawn: Unit of the interval: "speakers", or "recordings" if there is one speaker.
        num_speakers: Number of known speakers.
        only_first: Number of recordings that only the first one recognised.
        only_second: Number of recordings that only the second one recognised.
        p_value: Exact McNemar test of these two numbers.
        trained_on: What the models were trained on of these recordings; empty if nothing is known.
        dimensions: For each dimension the CCC of both models, and the 95 % interval of the first
            minus the second.
    """

    names: tuple[str, str]
    uars: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    drawn: str
    num_speakers: int
    only_first: int
    only_second: int
    p_value: float
    trained_on: str = ""
    dimensions: Mapping[str, tuple[float, float, tuple[float, float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The comparison in a sentence for the labels, and one for each dimension."""
        first, second = self.names
        lines = [] if math.isnan(self.difference) else [self._describe_labels()]
        for name, (ours, theirs, (low, high)) in self.dimensions.items():
            figures = f"CCC of {name} {ours:.3f} ({first}) against {theirs:.3f} ({second})"
            interval = f"{name_interval(self.num_speakers)} {low:+.3f} to {high:+.3f}"
            ending = f"; {self.trained_on}" * bool(self.trained_on)
            lines.append(f"{figures}: {ours - theirs:+.3f}, {interval}{ending}")
        return "\n".join(lines)

    def _describe_labels(self) -> str:
        first, second = self.names
        low, high = self.interval
        return (
            f"UAR {100 * self.uars[0]:.1f} % ({first}) against {100 * self.uars[1]:.1f} % "
            f"({second}): {100 * self.difference:+.1f} points, "
            f"{name_interval(self.num_speakers)} "
            f"{100 * low:+.1f} to {100 * high:+.1f}; {counted(self.only_first, 'recording')} only "
            f"{first} recognised, {self.only_second} only {second} "
            f"(McNemar p = {self.p_value:.3g})" + f"; {self.trained_on}" * bool(self.trained_on)
        )


def compare(
    logits: Sequence[NDArray[np.float32]],
    columns: Sequence[Sequence[str]],
    utterances: Sequence[Utterance],
    *,
    names: Sequence[str],
    labels: Sequence[str],
    dimensions: Sequence[str] = (),
) -> Comparison:
    """Two models on the same recordings, choosing from the same labels."""
    groups = group_speakers(utterances)
    num_speakers = len({item.voice for item in utterances} - {None})
    figures: dict[str, Any] = {
        "uars": (math.nan, math.nan), "difference": math.nan, "interval": (math.nan, math.nan),
        "only_first": 0, "only_second": 0, "p_value": math.nan,
    }  # fmt: skip
    if labels:
        truth, chosen = select_labels(logits[0], utterances, columns[0], labels)
        first = decide(truth, chosen)
        second = decide(truth, select_labels(logits[1], utterances, columns[1], labels)[1])
        *uars, interval = _contrast(truth, first, second, choose_metrics(truth)[1], groups)
        ours, theirs = (
            (found == truth).reshape(len(truth), -1).all(axis=1) for found in (first, second)
        )
        only_first, only_second = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        figures = {
            "uars": tuple(uars), "difference": uars[0] - uars[1], "interval": interval,
            "only_first": only_first, "only_second": only_second,
            "p_value": mcnemar(only_first, only_second),
        }  # fmt: skip
    pairs, others = (
        pair_values(rows, utterances, outputs, dimensions)
        for rows, outputs in zip(logits, columns, strict=True)
    )
    return Comparison(
        (names[0], names[1]),
        drawn="speakers" if num_speakers > 1 else "recordings",
        num_speakers=num_speakers,
        dimensions={
            name: _contrast(*pairs[name], others[name][1], concordance, groups)
            for name in dimensions
        },
        **figures,
    )


def _contrast(
    truth: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    metric: Callable[[Any, Any], float],
    groups: Sequence[Hashable],
) -> tuple[float, float, tuple[float, float]]:
    """A metric of both, and the 95 % interval of the first minus the second."""
    interval = difference_interval(truth, first, second, groups, metric)
    return metric(truth, first), metric(truth, second), interval


def mcnemar(first: int, second: int) -> float:
    """The p-value of the exact McNemar test: two counts at least as unequal by chance.

    Example:
        >>> mcnemar(0, 5), mcnemar(3, 3)
        (0.0625, 1.0)
    """
    total, fewer = first + second, min(first, second)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**total))


def group_speakers(utterances: Sequence[Utterance]) -> list[Hashable]:
    """The speaker of each recording, or the recording where the speaker is not known."""
    return [item.voice or index for index, item in enumerate(utterances)]
