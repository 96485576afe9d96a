"""The five groups of `FinetuneConfig`: every setting of a training run and its default.

All of them are frozen dataclasses of plain values.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MODES = ("entire", "partial", "frozen", "lora", "last-k")
OPTIMIZERS = ("adamw", "adam", "muon")
DECAYS = ("cosine", "constant", "newbob")
CLIPPINGS = ("joint", "separate")
SELECTIONS = ("uar", "accuracy", "last")
SAMPLINGS = ("shuffled", "sorted", "balanced")
PADDINGS = ("exact", "paper", "today")
PRECISIONS = ("float32", "bfloat16", "float16")
CACHES = ("off", "float32", "bfloat16", "float16")
HEADS = ("linear", "statistics", "projector", "attention")
NORMALIZATIONS = ("usual", "level")


@dataclass(frozen=True)
class Augmentation:
    """Random variations of training clips; a probability of 0 turns a variation off.

    Attributes:
        gain_decibels: Largest change of the level, up or down.
        speed_probability: Probability that speed and pitch change together.
        speed_change: Largest change of the speed, as a fraction.
        noise_probability: Probability that noise is added, of a random colour from white to brown.
        noise_decibels: Lowest and highest signal-to-noise ratio.
        tilt_probability: Probability that the spectrum is tilted.
        tilt_decibels: Largest tilt per octave, up or down.
        telephone_probability: Probability of a telephone line (band limits and mu-law coding);
            needs torchaudio.
        reverb_probability: Probability of a synthetic room.
        reverb_seconds: Shortest and longest decay by 60 dB of such a room.
        trim_probability: Probability that the silence around the speech is trimmed. Corpora
            differ in the silence they leave, which a network would otherwise learn as a cue.
        trim_seconds: Largest silence that remains at either end; drawn at random each time.
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
        """Check all values.

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
            faults += [f"{name} is {values[name]}, must be (low, high)"] if low > high else []
        if not 0.0 <= self.speed_change < 1.0:
            faults.append(f"speed_change is {self.speed_change}, allowed is 0 to below 1")
        if self.gain_decibels < 0.0 or self.tilt_decibels < 0.0 or self.reverb_seconds[0] <= 0.0:
            faults.append(
                "gain_decibels and tilt_decibels must be at least 0, reverb_seconds above 0"
            )
        if self.trim_seconds < 0.0:
            faults.append(f"trim_seconds is {self.trim_seconds}, must be at least 0")
        refuse(faults)

    @classmethod
    def off(cls) -> "Augmentation":
        """No variation at all."""
        return cls(gain_decibels=0.0, speed_probability=0.0, noise_probability=0.0)


@dataclass(frozen=True)
class ModelSettings:
    """What is built around the encoder, and which parts are trained.

    Attributes:
        num_layers: How many of the encoder's layers are used, from the first; None for all.
        final_norm: Whether Whisper's final layer norm follows the last layer used.
        normalization: Of the samples: "usual" (as the base was trained), or "level" (every clip
            scaled to a root mean square of -25 dBFS).
        head: "linear" (masked mean, one linear layer), "statistics" (masked mean and standard
            deviation, one linear layer), "projector" (256 features in between, as
            in SUPERB), or "attention" (attentive mean and deviation).
        head_bias: Whether the last linear layer has a bias; the authors' code has none.
        keep_head: Whether the rows of the base's own linear head are kept for the labels that it
            has; all other rows are initialised at random.
        output_norm: Whether one layer norm over all frames of a clip precedes pooling.
        layer_mix: Whether a learned weighted sum of all layers is pooled instead of the last one.
        masking: Whether the encoder masks spans of its features in training (SpecAugment).
        padding: "exact" (every clip as if it were alone), or the treatment of padding in the
            authors' code: "paper" (October 2021: norms over the whole batch, no mask) or "today"
            (since 2023: norms over padded clips, with a mask). Flat name: `wrapper`.
        mode: What of the encoder is trained: "entire", "partial" (all but the convolutions),
            "frozen" (nothing, and no dropout), "last-k" (the last layers), or "lora" (low-rank
            adapters of the attention, merged when the model is saved). Weights that do not
            require a gradient at the start stay as they are in every mode.
        last_layers: Number of layers trained in "last-k".
        lora_rank: Rank of the adapters in "lora".
    """

    num_layers: int | None = None
    final_norm: bool = True
    normalization: str = "usual"
    head: str = "linear"
    head_bias: bool = True
    keep_head: bool = False
    output_norm: bool = False
    layer_mix: bool = False
    masking: bool = True
    padding: str = "exact"
    mode: str = "partial"
    last_layers: int = 4
    lora_rank: int = 8

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: Naming every field that is out of range or contradicts another.
        """
        faults = _check_choices(
            self, head=HEADS, padding=PADDINGS, mode=MODES, normalization=NORMALIZATIONS
        )
        if self.num_layers is not None and self.num_layers < 1:
            faults.append("num_layers must be above 0 or None")
        if self.normalization != "usual" and self.output_norm:
            faults.append("normalization 'level' and output_norm exclude each other")
        faults += _check_positive(self, "last_layers", "lora_rank")
        if self.padding != "exact" and (self.head != "linear" or self.layer_mix):
            faults.append(f"padding {self.padding!r} needs a linear head on the last layer")
        if self.keep_head and (self.head != "linear" or self.layer_mix or self.output_norm):
            faults.append("keep_head needs a linear head on the last layer, without output_norm")
        if self.layer_mix and self.output_norm:
            faults.append("layer_mix and output_norm exclude each other")
        refuse(faults)


@dataclass(frozen=True)
class DataSettings:
    """Which clips make a batch, and how they are varied.

    Attributes:
        batch_size: Clips per update.
        epoch_clips: Clips per epoch; None for the size of the training set.
        sampling: "shuffled", "sorted" (shuffled, with batches of similar length), or "balanced"
            (every corpus by its weight, and all classes of a corpus equally often).
        corpus_weights: How often "balanced" draws from each corpus, relative to the others;
            empty for equal weights.
        restricted_labels: For corpora that have only some of the labels: the labels that the
            softmax in the loss runs over.
        crop_seconds: Longest training clip; longer ones are cropped at random. None for whole
            clips.
        augmentation: Random variations of training clips.
        evaluation_labels: Labels that validation decides between; empty for all.
        frozen_copies: For a frozen encoder: number of varied copies of every training clip whose
            pooled layers are computed once and kept beside those of the clip itself. An update
            draws one of them for each clip. 0 varies the clips anew in every epoch, which runs
            the encoder each time.
        cache: Data type in which the outputs of frozen parts are kept if clips are not varied:
            features of frozen convolutions on disk, pooled layers of a frozen encoder in memory.
            "off" computes them every time.
    """

    batch_size: int = 16
    epoch_clips: int | None = None
    sampling: str = "shuffled"
    corpus_weights: Mapping[str, float] = field(default_factory=dict)
    restricted_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    crop_seconds: float | None = 8.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluation_labels: tuple[str, ...] = ()
    frozen_copies: int = 0
    cache: str = "float32"

    def __post_init__(self) -> None:
        """Check all values; plain values from JSON become tuples and `Augmentation`.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = _check_choices(self, sampling=SAMPLINGS, cache=CACHES)
        faults += _check_positive(self, "batch_size")
        if self.epoch_clips is not None and self.epoch_clips < 1:
            faults.append("epoch_clips must be above 0 or None")
        if self.crop_seconds is not None and not self.crop_seconds > 0:
            faults.append("crop_seconds must be above 0 or None")
        if self.frozen_copies < 0:
            faults.append("frozen_copies must be at least 0")
        if any(not weight > 0 for weight in self.corpus_weights.values()):
            faults.append("corpus_weights must be above 0; leave a corpus out of the training set")
        refuse(faults)
        if isinstance(self.augmentation, Mapping):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        object.__setattr__(self, "evaluation_labels", tuple(self.evaluation_labels))
        restricted = {key: tuple(names) for key, names in self.restricted_labels.items()}
        object.__setattr__(self, "restricted_labels", restricted)


@dataclass(frozen=True)
class OptimisationSettings:
    """The loss, and how the weights follow its gradient.

    Attributes:
        encoder_learning_rate: Highest learning rate of the encoder.
        head_learning_rate: Highest learning rate of all other weights.
        layer_decay: Factor of the encoder's learning rate from each layer to the one before it;
            the last layer has `encoder_learning_rate`, and what comes before the first layer one
            factor less than it.
        optimizer: "adamw", "adam" (without weight decay, as in the paper), or "muon" for encoders
            trained from scratch: orthogonal updates of the encoder's matrices and convolution
            kernels at 2.5 times the rate, and AdamW for all other weights.
        weight_decay: Weight decay of AdamW and Muon, on matrices and kernels only.
        betas: Betas of Adam and AdamW.
        max_grad_norm: Largest norm of the gradients; larger ones are scaled down.
        clipping: "joint" (one norm over all weights), or "separate" (encoder and head).
        class_weights: Whether classes are weighted in the loss by 1 over their frequency.
        label_smoothing: Part of the target that is spread over all labels.
        statistics_weight: Weight of an auxiliary task, dropped after the training: predicting
            acoustic statistics of the clip from the embedding.
        distillation_weight: Part of the loss that follows the teachers, if `train` is given any;
            the rest follows the labels.
        distillation_temperature: Temperature of teachers and student in that part.
    """

    encoder_learning_rate: float = 1e-5
    head_learning_rate: float = 1e-4
    layer_decay: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    clipping: str = "joint"
    class_weights: bool = False
    label_smoothing: float = 0.0
    statistics_weight: float = 0.0
    distillation_weight: float = 0.7
    distillation_temperature: float = 2.0

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = _check_choices(self, optimizer=OPTIMIZERS, clipping=CLIPPINGS)
        faults += _check_positive(self, "max_grad_norm", "distillation_temperature")
        faults += _check_fractions(self, "label_smoothing")
        rates = ("encoder_learning_rate", "head_learning_rate", "weight_decay", "statistics_weight")
        faults += [f"{name} must be at least 0" for name in rates if not getattr(self, name) >= 0]
        if not 0.0 < self.layer_decay <= 1.0:
            faults.append("layer_decay must be above 0 and at most 1")
        if not 0.0 <= self.distillation_weight <= 1.0:
            faults.append("distillation_weight must be between 0 and 1")
        refuse(faults)
        object.__setattr__(self, "betas", tuple(self.betas))


@dataclass(frozen=True)
class ScheduleSettings:
    """How long the training lasts, and which weights it ends with.

    Attributes:
        epochs: Passes over the training set, each followed by validation.
        decay: Decay of the learning rates after the warm-up: "cosine" (to zero at the end),
            "constant" (none), or "newbob" (times 0.9 after each epoch whose validation error is
            not at least 0.25 % below that of the epoch before). Flat name: `schedule`.
        warmup: Part of all updates in which the learning rates rise from zero.
        ema_decay: Decay per update of the moving average of the weights, which is then validated
            and saved; 0 for no average.
        pretrained_share: Share of the pretrained weights in the encoder that is validated and
            saved: 0 for the trained weights alone, 0.5 for the middle between both.
        selection: Validation figure that chooses the best epoch: "uar" or "accuracy"; or "last"
            for the last epoch, so that nothing is chosen by validation speakers.
    """

    epochs: int = 10
    decay: str = "cosine"
    warmup: float = 0.1
    ema_decay: float = 0.0
    pretrained_share: float = 0.0
    selection: str = "uar"

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = _check_choices(self, decay=DECAYS, selection=SELECTIONS)
        faults += _check_positive(self, "epochs")
        faults += _check_fractions(self, "warmup", "ema_decay", "pretrained_share")
        refuse(faults)


@dataclass(frozen=True)
class RunSettings:
    """How a run is computed and recorded.

    Attributes:
        precision: "float32", or the type that matrix products are computed in.
        accumulation: Parts that a batch is computed in to save memory; the update is the same.
        recompute: Whether activations are recomputed for the gradients to save memory.
        save_every_steps: Updates between saved states; a state is also saved after each epoch.
        tensorboard: Whether the figures of the epochs are also written for TensorBoard.
        seed: Seed of the head, the order, the crops, the variations and the dropout.
    """

    precision: str = "float32"
    accumulation: int = 1
    recompute: bool = False
    save_every_steps: int = 200
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ValueError: Naming every field that is out of range.
        """
        faults = _check_choices(self, precision=PRECISIONS)
        refuse([*faults, *_check_positive(self, "accumulation", "save_every_steps")])


def _check_choices(group: Any, **allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{name} is {getattr(group, name)!r}, allowed are {', '.join(choices)}"
        for name, choices in allowed.items()
        if getattr(group, name) not in choices
    ]


def _check_positive(group: Any, *names: str) -> list[str]:
    return [f"{name} must be above 0" for name in names if not getattr(group, name) > 0]


def _check_fractions(group: Any, *names: str) -> list[str]:
    return [
        f"{name} must be at least 0 and below 1"
        for name in names
        if not 0.0 <= getattr(group, name) < 1.0
    ]


def refuse(faults: list[str]) -> None:
    """Raise a `ValueError` that names all faults, if there are any."""
    if faults:
        raise ValueError("; ".join(faults))
