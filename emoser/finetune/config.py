"""Every setting of a training run and its default, in two frozen dataclasses.

Plain values that are saved as JSON beside the weights. Knows nothing of torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MODES = ("entire", "partial", "frozen")
SCHEDULES = ("cosine", "constant")
SAMPLINGS = ("shuffled", "sorted", "balanced")


@dataclass(frozen=True)
class Augmentation:
    """How training clips are varied; a probability of 0 turns a variation off.

    Attributes:
        gain_decibels: The level changes by up to this much either way.
        speed_probability: How often speed and pitch change together.
        speed_change: Largest change of the speed, as a part of it.
        noise_probability: How often noise is added, of any colour from white to brown.
        noise_decibels: Lowest and highest ratio of clip to noise.
        tilt_probability: How often the spectrum is tilted.
        tilt_decibels: Largest tilt per octave, either way.
        telephone_probability: How often the clip goes through a telephone line (band and mu-law);
            needs torchaudio.
        reverb_probability: How often the clip is put into a synthetic room.
        reverb_seconds: Shortest and longest decay by 60 dB of such a room.
    """

    gain_decibels: float = 6.0
    speed_probability: float = 0.5
    speed_change: float = 0.1
    noise_probability: float = 0.5
    noise_decibels: tuple[float, float] = (8.0, 35.0)
    tilt_probability: float = 0.0
    tilt_decibels: float = 3.0
    telephone_probability: float = 0.0
    reverb_probability: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        values = asdict(self)
        faults = [
            f"{name} is {value}, a probability is between 0 and 1"
            for name, value in values.items()
            if name.endswith("_probability") and not 0.0 <= value <= 1.0
        ]
        for name in ("noise_decibels", "reverb_seconds"):
            object.__setattr__(self, name, tuple(values[name]))
            low, high = values[name]
            faults += [f"{name} is {values[name]}, from low to high"] if low > high else []
        if not 0.0 <= self.speed_change < 1.0:
            faults.append(f"speed_change is {self.speed_change}, allowed is 0 to below 1")
        if self.gain_decibels < 0.0 or self.tilt_decibels < 0.0 or self.reverb_seconds[0] <= 0.0:
            faults.append("gain_decibels and tilt_decibels are at least 0, reverb_seconds above 0")
        if faults:
            raise ValueError("; ".join(faults))

    @classmethod
    def off(cls) -> "Augmentation":
        """No variation at all."""
        return cls(gain_decibels=0.0, speed_probability=0.0, noise_probability=0.0)


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is trained.

    Attributes:
        epochs: How often the training set is gone through; validation follows each.
        batch_size: Clips in a step.
        epoch_clips: Clips in an epoch where that is not the size of the training set.
        encoder_learning_rate: Highest rate of the encoder's weights.
        head_learning_rate: Highest rate of all other weights.
        weight_decay: Of AdamW, on matrices alone.
        betas: Of AdamW.
        schedule: "cosine" (to zero at the end) or "constant", both after the warm-up.
        warmup: Part of all steps in which the rates rise from zero.
        max_grad_norm: Gradients are shortened to this norm.
        mode: What learns of the encoder: "entire", "partial" (all but the convolutions) or
            "frozen" (nothing, and without dropout). Weights that do not require a gradient
            when the training begins stay as they are in every mode.
        sampling: "shuffled", "sorted" (shuffled, with batches of like length), or "balanced"
            (every corpus by its weight and every class of it equally often).
        corpus_weights: How often "balanced" draws from each corpus, relative to the others;
            empty for all alike.
        restricted_labels: For a corpus that has only some of the labels: its softmax in the
            loss runs over these alone.
        label_smoothing: Part of the target that is spread over the labels.
        statistics_weight: Weight of a second task, dropped after the training: to predict the
            acoustic statistics of the clip from the embedding.
        crop_seconds: Longest clip in training; of longer ones a piece drawn at random.
        augmentation: How clips are varied.
        evaluation_labels: The labels that validation decides between, empty for all.
        ema_decay: Decay per step of the moving average of the weights, which is then what is
            validated and saved; 0 for no average.
        save_every_steps: How often the state of the run is saved, beside the ends of epochs.
        seed: Makes the order, the crops, the variations and the dropout.
    """

    epochs: int = 10
    batch_size: int = 16
    epoch_clips: int | None = None
    encoder_learning_rate: float = 1e-5
    head_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: str = "cosine"
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    mode: str = "partial"
    sampling: str = "shuffled"
    corpus_weights: Mapping[str, float] = field(default_factory=dict)
    restricted_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label_smoothing: float = 0.0
    statistics_weight: float = 0.0
    crop_seconds: float = 8.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluation_labels: tuple[str, ...] = ()
    ema_decay: float = 0.0
    save_every_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse contradictory settings.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = [
            f"{name} is {value!r}, allowed are {', '.join(allowed)}"
            for name, value, allowed in (
                ("mode", self.mode, MODES),
                ("schedule", self.schedule, SCHEDULES),
                ("sampling", self.sampling, SAMPLINGS),
            )
            if value not in allowed
        ]
        positive = ("epochs", "batch_size", "crop_seconds", "max_grad_norm", "save_every_steps")
        faults += [f"{name} must be above 0" for name in positive if not getattr(self, name) > 0]
        parts = ("warmup", "ema_decay", "label_smoothing")
        faults += [
            f"{name} must be at least 0 and below 1"
            for name in parts
            if not 0.0 <= getattr(self, name) < 1.0
        ]
        rates = ("encoder_learning_rate", "head_learning_rate", "weight_decay", "statistics_weight")
        faults += [f"{name} must be at least 0" for name in rates if not getattr(self, name) >= 0]
        if self.epoch_clips is not None and self.epoch_clips < 1:
            faults.append("epoch_clips must be above 0 or None")
        if any(not weight > 0 for weight in self.corpus_weights.values()):
            faults.append("corpus_weights must be above 0; leave a corpus out of the training set")
        if faults:
            raise ValueError("; ".join(faults))
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "evaluation_labels", tuple(self.evaluation_labels))
        restricted = {key: tuple(names) for key, names in self.restricted_labels.items()}
        object.__setattr__(self, "restricted_labels", restricted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FinetuneConfig":
        """The configuration that `to_dict` wrote, also after a way through JSON."""
        plain = dict(values)
        augmentation = Augmentation(**plain.pop("augmentation", {}))
        return cls(**plain, augmentation=augmentation)
