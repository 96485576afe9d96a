"""Every setting of a training run and its default, in two frozen dataclasses.

Plain values that are saved as JSON beside the weights. Knows nothing of torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MODES = ("entire", "partial", "frozen", "lora", "last-k")
OPTIMIZERS = ("adamw", "adam", "muon")
SCHEDULES = ("cosine", "constant", "newbob")
CLIPPINGS = ("joint", "separate")
SELECTIONS = ("uar", "accuracy", "last")
SAMPLINGS = ("shuffled", "sorted", "balanced")
WRAPPERS = ("exact", "paper", "today")
PRECISIONS = ("float32", "bfloat16", "float16")
CACHES = ("off", "float32", "bfloat16", "float16")
HEADS = ("linear", "projector", "attention")
WITHOUT_EFFECT = ("save_every_steps", "tensorboard")  # on the weights that a run ends with
TEACHING = ("distillation_weight", "distillation_temperature")  # of effect with teachers alone


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
        trim_probability: How often the quiet before and behind the voice is cut off. Corpora
            differ in how much of it they leave, and a network takes that for a part of the emotion.
        trim_seconds: At most so much of it stays at either end, another part each time.
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
    trim_probability: float = 0.0
    trim_seconds: float = 0.25

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
        if self.trim_seconds < 0.0:
            faults.append(f"trim_seconds is {self.trim_seconds}, at least 0 is allowed")
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
        base: Where the encoder comes from: a Hub id, a folder or a bundled name; empty where
            `train` is given a model.
        head: What is put on it: "linear" (masked mean, one linear layer), "projector" (256
            features between, as in SUPERB), or "attention" (attentive mean and deviation).
        head_bias: Whether the last linear layer has a bias; the authors' code has none.
        keep_head: Whether the base's own head, where it has a linear one, gives the rows of the
            labels that it knows; all other rows, and all without it, are drawn at random.
        output_norm: Whether all frames of a clip pass one layer norm before they are pooled.
        layer_mix: Whether a learned weighted sum of all layers is pooled, not the last.
        masking: Whether the encoder masks pieces of its features in training (SpecAugment).
        epochs: How often the training set is gone through; validation follows each.
        batch_size: Clips in a step.
        epoch_clips: Clips in an epoch where that is not the size of the training set.
        encoder_learning_rate: Highest rate of the encoder's weights.
        head_learning_rate: Highest rate of all other weights.
        optimizer: "adamw", "adam" without decay as in the paper, or "muon" for encoders that
            learn from nothing: orthogonal steps for the encoder's matrices and convolution kernels,
            2.5 times as fast, and AdamW for all else.
        weight_decay: Of AdamW and Muon, on matrices and kernels alone.
        betas: Of the optimizer.
        schedule: "cosine" (to zero at the end) or "constant", both after the warm-up, or
            "newbob" (times 0.9 after an epoch whose validation error is not at least 0.25 %
            below that of the epoch before).
        warmup: Part of all steps in which the rates rise from zero.
        max_grad_norm: Gradients are shortened to this norm.
        clipping: "joint" (one norm over all weights), or "separate" (encoder and head).
        selection: The validation figure that the best epoch has: "uar" or "accuracy"; or "last"
            for the last epoch, so that validation speakers choose nothing.
        mode: What learns of the encoder: "entire", "partial" (all but the convolutions),
            "frozen" (nothing, and without dropout), "last-k" (the last layers), or "lora" (low
            rank additions to the attention, merged when the model is saved). Weights that do
            not require a gradient when the training begins stay as they are in every mode.
        last_layers: How many layers learn in "last-k".
        lora_rank: Rank of the additions in "lora".
        wrapper: "exact" (every clip as if it were alone), or what the authors' code does with
            the padding of a batch: "paper" (October 2021: norms over the whole batch, no
            mask) or "today" (since 2023: norms over padded clips, a mask).
        sampling: "shuffled", "sorted" (shuffled, with batches of like length), or "balanced"
            (every corpus by its weight and every class of it equally often).
        corpus_weights: How often "balanced" draws from each corpus, relative to the others;
            empty for all alike.
        restricted_labels: For a corpus that has only some of the labels: its softmax in the
            loss runs over these alone.
        class_weights: Whether rare classes count more in the loss, by 1 over their frequency.
        label_smoothing: Part of the target that is spread over the labels.
        statistics_weight: Weight of a second task, dropped after the training: to predict the
            acoustic statistics of the clip from the embedding.
        distillation_weight: Where `train` is given teachers: part of the loss that follows their
            answers; the rest follows the labels.
        distillation_temperature: Of the teachers' answers and of the model's beside them.
        crop_seconds: Longest clip in training; of longer ones a piece drawn at random. None
            for whole clips.
        augmentation: How clips are varied.
        evaluation_labels: The labels that validation decides between, empty for all.
        ema_decay: Decay per step of the moving average of the weights, which is then what is
            validated and saved; 0 for no average.
        precision: "float32", or the type that matrix products are computed in.
        accumulation: In how many parts a batch is computed, to save memory: the same update.
        recompute: Whether activations are computed again for the gradients, to save memory.
        cache: Type in which what frozen parts compute is kept, where nothing is varied: the
            features of frozen convolutions on disk, the pooled layers of a frozen encoder in
            memory; "off" to compute them every time.
        save_every_steps: How often the state of the run is saved, beside the ends of epochs.
        tensorboard: Whether the figures of the epochs are written for TensorBoard too.
        seed: Makes the order, the crops, the variations and the dropout.

    Example:
        >>> from dataclasses import replace
        >>> config = FinetuneConfig("emoser-tiny", epochs=3)
        >>> replace(config, mode="frozen").epochs
        3
    """

    base: str = ""
    head: str = "linear"
    head_bias: bool = True
    keep_head: bool = False
    output_norm: bool = False
    layer_mix: bool = False
    masking: bool = True
    epochs: int = 10
    batch_size: int = 16
    epoch_clips: int | None = None
    encoder_learning_rate: float = 1e-5
    head_learning_rate: float = 1e-4
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: str = "cosine"
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    clipping: str = "joint"
    selection: str = "uar"
    mode: str = "partial"
    last_layers: int = 4
    lora_rank: int = 8
    wrapper: str = "exact"
    sampling: str = "shuffled"
    corpus_weights: Mapping[str, float] = field(default_factory=dict)
    restricted_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_weights: bool = False
    label_smoothing: float = 0.0
    statistics_weight: float = 0.0
    distillation_weight: float = 0.7
    distillation_temperature: float = 2.0
    crop_seconds: float | None = 8.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluation_labels: tuple[str, ...] = ()
    ema_decay: float = 0.0
    precision: str = "float32"
    accumulation: int = 1
    recompute: bool = False
    cache: str = "float32"
    save_every_steps: int = 200
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse contradictory settings.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = self._faults_of_choices()
        positive = (
            "epochs", "batch_size", "max_grad_norm", "save_every_steps", "accumulation",
            "last_layers", "lora_rank", "distillation_temperature",
        )  # fmt: skip
        faults += [f"{name} must be above 0" for name in positive if not getattr(self, name) > 0]
        parts = ("warmup", "ema_decay", "label_smoothing")
        faults += [
            f"{name} must be at least 0 and below 1"
            for name in parts
            if not 0.0 <= getattr(self, name) < 1.0
        ]
        rates = ("encoder_learning_rate", "head_learning_rate", "weight_decay", "statistics_weight")
        faults += [f"{name} must be at least 0" for name in rates if not getattr(self, name) >= 0]
        if not 0.0 <= self.distillation_weight <= 1.0:
            faults.append("distillation_weight must be between 0 and 1")
        if self.crop_seconds is not None and not self.crop_seconds > 0:
            faults.append("crop_seconds must be above 0 or None")
        if self.wrapper != "exact" and (self.head != "linear" or self.layer_mix):
            faults.append(f"wrapper {self.wrapper!r} goes with a linear head on the last layer")
        if self.keep_head and (self.head != "linear" or self.layer_mix or self.output_norm):
            faults.append("keep_head goes with a linear head on the last layer, without norm")
        if self.layer_mix and self.output_norm:
            faults.append("layer_mix and output_norm exclude each other")
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

    def _faults_of_choices(self) -> list[str]:
        choices = (
            ("head", HEADS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES),
            ("clipping", CLIPPINGS), ("selection", SELECTIONS), ("mode", MODES),
            ("wrapper", WRAPPERS), ("sampling", SAMPLINGS), ("precision", PRECISIONS),
            ("cache", CACHES),
        )  # fmt: skip
        return [
            f"{name} is {getattr(self, name)!r}, allowed are {', '.join(allowed)}"
            for name, allowed in choices
            if getattr(self, name) not in allowed
        ]

    @property
    def varies(self) -> bool:
        """Whether training clips are varied or cut, so that nothing about them can be kept."""
        return self.augmentation != Augmentation.off() or self.crop_seconds is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Example:
            >>> FinetuneConfig("emoser-tiny").to_dict()["base"]
            'emoser-tiny'
        """
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """The values that decide which weights a run without teachers ends with.

        Example:
            >>> "epochs" in FinetuneConfig("emoser-tiny").identity()
            True
        """
        others = (*WITHOUT_EFFECT, *TEACHING)
        return {name: val for name, val in self.to_dict().items() if name not in others}

    def teaching(self) -> dict[str, Any]:
        """The values that decide how teachers are followed.

        Example:
            >>> FinetuneConfig("emoser-tiny").teaching()["distillation_temperature"]
            2.0
        """
        return {name: getattr(self, name) for name in TEACHING}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FinetuneConfig":
        """The configuration that `to_dict` wrote, also after a way through JSON.

        Example:
            >>> config = FinetuneConfig("emoser-tiny", epochs=3)
            >>> FinetuneConfig.from_dict(config.to_dict()) == config
            True
        """
        plain = dict(values)
        augmentation = Augmentation(**plain.pop("augmentation", {}))
        return cls(**plain, augmentation=augmentation)
