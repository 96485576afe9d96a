"""`FinetuneConfig`: all settings of a training run, in the groups of `settings`.

Saved as JSON beside the weights.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.resolve import bundled_names
from emoser.finetune.settings import (
    AUTO,
    Augmentation,
    DataSettings,
    ModelSettings,
    OptimisationSettings,
    RunSettings,
    ScheduleSettings,
    Settings,
    auto_values,
    refuse,
)

if TYPE_CHECKING:
    from emoser.finetune.models import Named

__all__ = ["Augmentation", "FinetuneConfig"]

WITHOUT_EFFECT = ("save_every_steps", "tensorboard")  # on the weights that a run ends with
WITH_TEACHERS = ("distillation_weight", "distillation_temperature")
LATER = (
    "targets",
    "dimension_loss",
    "dimension_weight",
    "num_layers",
    "final_norm",
    "normalization",
    "layer_decay",
    "pretrained_share",
    "frozen_copies",
    "clipping_probability",
    "clipping_decibels",
)
"""Settings that saved states may lack: without influence on the identity at their defaults."""
GROUPS: Mapping[str, type[Settings]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "optimisation": OptimisationSettings,
    "schedule": ScheduleSettings,
    "run": RunSettings,
}
OTHER_NAMES = {"padding": "wrapper", "decay": "schedule"}  # flat names unlike those in the group
FLAT_NAMES: Mapping[str, tuple[str, str]] = {
    OTHER_NAMES.get(item.name, item.name): (group, item.name)
    for group, kind in GROUPS.items()
    for item in fields(kind)
}
"""Group and field of every setting by its flat name."""


@dataclass(frozen=True, init=False, repr=False)
class FinetuneConfig:
    """How a model is trained: the base and five groups of settings.

    A setting may be given without its group, by its flat name: `FinetuneConfig(epochs=3)` is
    `FinetuneConfig(schedule=ScheduleSettings(epochs=3))`, and a setting given so takes precedence
    over that of a group. `replace`, `dataclasses.replace` and saved JSON take both forms. Settings
    that are "auto" are chosen by the size of the base and by the mode, see `for_width`.

    Attributes:
        base: Hub id, folder or bundled name of the encoder; empty if `train` is given a model. Of
            an `EmotionClassifier` that is passed for it, the bundled name or the folder is kept.
        model: Head, padding, and which parts are trained.
        data: Batches, sampling, crops and augmentation.
        optimisation: Loss, optimizer and learning rates.
        run: Precision, memory, saved states and seed.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: Naming every setting that is out of range or contradicts another.

    Example:
        >>> config = FinetuneConfig("emoser-tiny", epochs=3)
        >>> config.schedule.epochs
        3
        >>> config.replace(mode="frozen")
        FinetuneConfig('emoser-tiny', mode='frozen', epochs=3)
    """

    base: str
    model: ModelSettings
    data: DataSettings
    optimisation: OptimisationSettings
    # Not called `schedule`, for dataclasses.replace(config, schedule="constant") has to keep it.
    _schedule: ScheduleSettings
    run: RunSettings

    def __init__(self, base: "Named" = "", **settings: Any) -> None:
        values: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        flat = {}
        for name in sorted(settings):  # `_schedule` comes before what replaces it
            value, group = settings[name], name.removeprefix("_")
            if group in GROUPS and isinstance(value, (GROUPS[group], Mapping)):
                values[group] |= value if isinstance(value, Mapping) else vars(value)
            else:
                flat[name] = value
        unknown = [name for name in flat if name not in FLAT_NAMES]
        unknown += [
            key
            for group, known in values.items()
            for key in known
            if key not in GROUPS[group].__dataclass_fields__
        ]
        if unknown:
            raise TypeError("; ".join(map(_describe_unknown, unknown)))
        for name, value in flat.items():
            group, key = FLAT_NAMES[name]
            values[group][key] = value
        object.__setattr__(self, "base", _name_base(base))
        faults = []
        for group, kind in GROUPS.items():
            try:
                built = kind(**values[group])
            except ValueError as error:
                faults.append(f"{group}: {error}")
            else:
                object.__setattr__(self, "_schedule" if group == "schedule" else group, built)
        refuse(faults)

    def __repr__(self) -> str:
        """The settings that differ from the defaults, by their flat names."""
        usual = type(self)(self.base).flat()
        shown = [f"{name}={value!r}" for name, value in self.flat().items() if value != usual[name]]
        return f"FinetuneConfig({', '.join([repr(self.base)] * bool(self.base) + shown)})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A setting by its flat name."""
            if name in GROUPS or name not in FLAT_NAMES:
                raise AttributeError(f"FinetuneConfig has no attribute {name!r}")
            group, key = FLAT_NAMES[name]
            return getattr(getattr(self, group), key)

    @property
    def schedule(self) -> ScheduleSettings:
        """Epochs, warm-up and decay of the learning rates, and the choice of the best epoch."""
        return self._schedule

    @property
    def varies(self) -> bool:
        """Whether training clips are varied or cropped, so that their features cannot be kept."""
        return self.data.augmentation != Augmentation.off() or self.data.crop_seconds is not None

    def for_width(self, width: int) -> "FinetuneConfig":
        """The same settings with the values that "auto" has for an encoder of `width` features.

        Example:
            >>> FinetuneConfig().for_width(768).schedule.epochs
            10
        """
        values = auto_values(width, self.model).items()
        chosen = {name: value for name, value in values if getattr(self, name) == AUTO}
        return self.replace(**chosen) if chosen else self

    def replace(self, **settings: Any) -> "FinetuneConfig":
        """A copy with other settings, by group or by flat name.

        Raises:
            TypeError: If a setting is unknown.
            ValueError: Naming every setting that is out of range or contradicts another.
        """
        return replace(self, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values in their groups, ready for JSON.

        Example:
            >>> FinetuneConfig("emoser-tiny").to_dict()["schedule"]["warmup"]
            0.1
        """
        return {"base": self.base, **{name: asdict(getattr(self, name)) for name in GROUPS}}

    def flat(self) -> dict[str, Any]:
        """Plain values by their flat names, ready for JSON.

        Example:
            >>> FinetuneConfig("emoser-tiny").flat()["epochs"]
            'auto'
        """
        plain = self.to_dict()
        settings = {name: plain[group][key] for name, (group, key) in FLAT_NAMES.items()}
        return {"base": self.base, **settings}

    def identity(self) -> dict[str, Any]:
        """The values that determine the weights at the end of a run without teachers.

        By their flat names, so that the states of older runs are recognised.

        Example:
            >>> "epochs" in FinetuneConfig("emoser-tiny").identity()
            True
        """
        ours, usual = self.flat(), type(self)().flat()
        if ours["augmentation"] != "auto":
            plain = type(self)(augmentation=Augmentation()).flat()["augmentation"]
            ours["augmentation"] = _without_later(ours["augmentation"], plain)
        ours = _without_later(ours, usual)
        left_out = {*WITHOUT_EFFECT, *WITH_TEACHERS}
        return {name: value for name, value in ours.items() if name not in left_out}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FinetuneConfig":
        """The configuration that `to_dict` or `flat` wrote, also after a round trip through JSON.

        Example:
            >>> config = FinetuneConfig("emoser-tiny", epochs=3)
            >>> FinetuneConfig.from_dict(config.to_dict()) == config
            True
            >>> FinetuneConfig.from_dict(config.flat()) == config
            True
        """
        return cls(**values)


def _without_later(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those of `LATER` that are at their defaults."""
    return {k: v for k, v in values.items() if k not in LATER or v != usual[k]}


def _name_base(base: "Named") -> str:
    """The name that finds a checkpoint again."""
    if isinstance(base, str | os.PathLike):
        return os.fspath(base)
    info = getattr(base, "info", None)
    if info is None:
        raise TypeError(
            f"base is a {type(base).__name__}; pass a bundled name, a folder, a Hub id or an "
            "EmotionClassifier"
        )
    return str(info.name if info.name in bundled_names() else info.path)


def _describe_unknown(name: str) -> str:
    near = get_close_matches(name, (*FLAT_NAMES, *GROUPS, *OTHER_NAMES), n=1)
    return f"no setting is called {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
