"""The five groups of `FinetuneConfig`: every setting of a training run, its range and default.

All of them are frozen dataclasses of plain values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple

MODES = ("entire", "partial", "frozen", "lora", "last-k")
TARGETS = ("auto", "labels", "dimensions")
PADDINGS = ("exact", "paper", "today")
PRECISIONS = ("float32", "bfloat16", "float16")
CACHES = ("off", *PRECISIONS)
AUTO: Any = "auto"
SMALL_WIDTH = 512  # features; narrower encoders are small
FROZEN_EPOCHS = 100
CROP_SECONDS = 8.0
HEADS = ("linear", "statistics", "framewise", "projector", "attention")


class Rule(NamedTuple):
    """Which values a setting may have: a test, and their description after "must be"."""

    holds: Callable[[Any], bool]
    text: str


def one_of(*names: str) -> Rule:
    """The rule of a setting that is one of some names."""
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def or_auto(rule: Rule) -> Rule:
    """The rule of a setting that may be left to the base, see `auto_values`."""
    return Rule(
        lambda value: value == AUTO or (not isinstance(value, str) and rule.holds(value)),
        f"{rule.text}, or 'auto'",
    )


ABOVE_ZERO = Rule(lambda value: value > 0, "above 0")
ABOVE_ZERO_OR_NONE = Rule(lambda value: value is None or value > 0, "above 0 or None")
AT_LEAST_ZERO = Rule(lambda value: value >= 0, "at least 0")
BELOW_ONE = Rule(lambda value: 0 <= value < 1, "at least 0 and below 1")
UP_TO_ONE = Rule(lambda value: 0 < value <= 1, "above 0 and at most 1")
SHARE = Rule(lambda value: 0 <= value <= 1, "between 0 and 1")
RISING = Rule(lambda value: value[0] <= value[1], "(low, high)")
RISING_ABOVE_ZERO = Rule(lambda value: 0 < value[0] <= value[1], "(low, high), above 0")
EITHER = Rule(lambda value: isinstance(value, bool), "True or False")
VARIATIONS = Rule(lambda value: isinstance(value, Augmentation), "an Augmentation")
ALL_ABOVE_ZERO = Rule(
    lambda value: all(weight > 0 for weight in value.values()),
    "above 0 for every corpus; leave a corpus out of the training set",
)


@dataclass(frozen=True)
class Settings:
    """Settings that are checked by the rules in their annotations."""

    def __post_init__(self) -> None:
        """Check all values; lists from JSON become tuples.

        Raises:
            ValueError: Naming every setting that is out of range or contradicts another.
        """
        faults = []
        for item in fields(self):
            value = getattr(self, item.name)
            object.__setattr__(self, item.name, _freeze(value))
            rule = next(iter(getattr(item.type, "__metadata__", ())), None)
            if rule is not None and not rule.holds(value):
                faults.append(f"{item.name} is {value!r}, must be {rule.text}")
        refuse([*faults, *self.contradictions()])

    def contradictions(self) -> list[str]:
        """Settings that exclude each other, one sentence each."""
        return []


@dataclass(frozen=True)
class Augmentation(Settings):
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
        clipping_probability: Probability that the peaks are clipped, as by an overdriven input.
        clipping_decibels: Least and most that is cut off the highest peak, in dB.
        reverb_probability: Probability of a synthetic room.
        reverb_seconds: Shortest and longest decay by 60 dB of such a room.
        trim_probability: Probability that the silence around the speech is trimmed. Corpora
            differ in the silence they leave, which a network would otherwise learn as a cue.
        trim_seconds: Largest silence that remains at either end; drawn at random each time.
    """

    gain_decibels: Annotated[float, AT_LEAST_ZERO] = 6.0
    speed_probability: Annotated[float, SHARE] = 0.5
    speed_change: Annotated[float, BELOW_ONE] = 0.1
    noise_probability: Annotated[float, SHARE] = 0.5
    noise_decibels: Annotated[tuple[float, float], RISING] = (8.0, 35.0)
    tilt_probability: Annotated[float, SHARE] = 0.0
    tilt_decibels: Annotated[float, AT_LEAST_ZERO] = 3.0
    telephone_probability: Annotated[float, SHARE] = 0.0
    clipping_probability: Annotated[float, SHARE] = 0.0
    clipping_decibels: Annotated[tuple[float, float], RISING_ABOVE_ZERO] = (3.0, 20.0)
    reverb_probability: Annotated[float, SHARE] = 0.0
    reverb_seconds: Annotated[tuple[float, float], RISING_ABOVE_ZERO] = (0.1, 0.5)
    trim_probability: Annotated[float, SHARE] = 0.0
    trim_seconds: Annotated[float, AT_LEAST_ZERO] = 0.25

    @classmethod
    def off(cls) -> "Augmentation":
        """No variation at all."""
        return cls(gain_decibels=0.0, speed_probability=0.0, noise_probability=0.0)


@dataclass(frozen=True)
class ModelSettings(Settings):
    """What is built around the encoder, and which parts are trained.

    Attributes:
        targets: What is learned of the annotation: "labels", "dimensions" (arousal, dominance,
            valence), or "auto" for all that the recordings have.
        num_layers: How many of the encoder's layers are used, from the first; None for all.
        final_norm: Whether Whisper's final layer norm follows the last layer used.
        normalization: Of the samples: "usual" (as the base was trained), or "level" (every clip
            scaled to a root mean square of -25 dBFS).
        head: "linear" (masked mean, one linear layer), "statistics" (masked mean and standard
            deviation, one linear layer), "framewise" (a linear layer of 256 features and ReLU
            over every frame, and then as "statistics"), "projector" (256 features in between, as
            in SUPERB), or "attention" (attentive mean and deviation).
        head_bias: Whether the last linear layer has a bias; the authors' code has none.
        keep_head: Whether the rows of the base's own linear head are kept for the labels that it
            has; all other rows are initialised at random. "auto" keeps them where `head` is linear.
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

    targets: Annotated[str, one_of(*TARGETS)] = "auto"
    num_layers: Annotated[int | None, ABOVE_ZERO_OR_NONE] = None
    final_norm: bool = True
    normalization: Annotated[str, one_of("usual", "level")] = "usual"
    head: Annotated[str, one_of(*HEADS)] = "linear"
    head_bias: bool = True
    keep_head: Annotated[bool, or_auto(EITHER)] = AUTO
    output_norm: bool = False
    layer_mix: bool = False
    masking: bool = True
    padding: Annotated[str, one_of(*PADDINGS)] = "exact"
    mode: Annotated[str, one_of(*MODES)] = "partial"
    last_layers: Annotated[int, ABOVE_ZERO] = 4
    lora_rank: Annotated[int, ABOVE_ZERO] = 8

    def contradictions(self) -> list[str]:
        """Settings that exclude each other, one sentence each."""
        other_head = self.head != "linear" or self.layer_mix
        contradictions = {
            "normalization 'level' and output_norm exclude each other": (
                self.normalization == "level" and self.output_norm
            ),
            f"padding {self.padding!r} needs a linear head on the last layer": (
                self.padding != "exact" and other_head
            ),
            "keep_head needs a linear head on the last layer, without output_norm": (
                self.keep_head is True and (other_head or self.output_norm)
            ),
            "layer_mix and output_norm exclude each other": self.layer_mix and self.output_norm,
        }
        return [text for text, found in contradictions.items() if found]


@dataclass(frozen=True)
class DataSettings(Settings):
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
            clips; "auto" for 8 seconds, or for whole clips where the encoder is frozen.
        augmentation: Random variations of training clips; "auto" for those of `Augmentation()`,
            or for none where the encoder is frozen, which then computes every clip once.
        evaluation_labels: Labels that validation decides between; empty for all.
        frozen_copies: For a frozen encoder: number of varied copies of every training clip whose
            pooled layers are computed once and kept beside those of the clip itself. An update
            draws one of them for each clip. 0 varies the clips anew in every epoch, which runs
            the encoder each time.
        cache: Data type in which the outputs of frozen parts are kept if clips are not varied:
            features of frozen convolutions on disk, pooled layers of a frozen encoder in memory.
            "off" computes them every time.
    """

    batch_size: Annotated[int, ABOVE_ZERO] = 16
    epoch_clips: Annotated[int | None, ABOVE_ZERO_OR_NONE] = None
    sampling: Annotated[str, one_of("shuffled", "sorted", "balanced")] = "shuffled"
    corpus_weights: Annotated[Mapping[str, float], ALL_ABOVE_ZERO] = field(default_factory=dict)
    restricted_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    crop_seconds: Annotated[float | None, or_auto(ABOVE_ZERO_OR_NONE)] = AUTO
    augmentation: Annotated[Augmentation, or_auto(VARIATIONS)] = AUTO
    evaluation_labels: tuple[str, ...] = ()
    frozen_copies: Annotated[int, AT_LEAST_ZERO] = 0
    cache: Annotated[str, one_of(*CACHES)] = "float32"

    def __post_init__(self) -> None:
        if isinstance(self.augmentation, Mapping):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        super().__post_init__()


@dataclass(frozen=True)
class OptimisationSettings(Settings):
    """The loss, and how the weights follow its gradient.

    Attributes:
        encoder_learning_rate: Highest learning rate of the encoder; "auto" for 1e-4 if the encoder
            is small (fewer than 512 features), else 1e-5.
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
        dimension_loss: Loss of arousal, dominance and valence: "ccc" (1 minus the mean concordance
            of the batch) or "mse" (squared error), on a scale of 0 to 1.
        dimension_weight: Its weight beside that of the labels, which is 1.
        statistics_weight: Weight of an auxiliary task, dropped after the training: predicting
            acoustic statistics of the clip from the embedding.
        distillation_weight: Part of the loss that follows the teachers, if `train` is given any;
            the rest follows the labels.
        distillation_temperature: Temperature of teachers and student in that part.
    """

    encoder_learning_rate: Annotated[float, or_auto(AT_LEAST_ZERO)] = AUTO
    head_learning_rate: Annotated[float, AT_LEAST_ZERO] = 1e-3
    layer_decay: Annotated[float, UP_TO_ONE] = 1.0
    optimizer: Annotated[str, one_of("adamw", "adam", "muon")] = "adamw"
    weight_decay: Annotated[float, AT_LEAST_ZERO] = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: Annotated[float, ABOVE_ZERO] = 1.0
    clipping: Annotated[str, one_of("joint", "separate")] = "joint"
    class_weights: bool = False
    label_smoothing: Annotated[float, BELOW_ONE] = 0.0
    dimension_loss: Annotated[str, one_of("ccc", "mse")] = "ccc"
    dimension_weight: Annotated[float, ABOVE_ZERO] = 1.0
    statistics_weight: Annotated[float, AT_LEAST_ZERO] = 0.0
    distillation_weight: Annotated[float, SHARE] = 0.7
    distillation_temperature: Annotated[float, ABOVE_ZERO] = 2.0


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """How long the training lasts, and which weights it ends with.

    Attributes:
        epochs: Passes over the training set, each followed by validation; "auto" for 15 if the
            encoder is small (fewer than 512 features), else 10, and 100 if it is frozen.
        decay: Decay of the learning rates after the warm-up: "cosine" (to zero at the end),
            "constant" (none), or "newbob" (times 0.9 after each epoch whose validation error is
            not at least 0.25 % below that of the epoch before). Flat name: `schedule`.
        warmup: Part of all updates in which the learning rates rise from zero.
        ema_decay: Decay per update of the moving average of the weights, which is then validated
            and saved; 0 for no average.
        pretrained_share: Share of the pretrained weights in the encoder that is validated and
            saved: 0 for the trained weights alone, 0.5 for the middle between both.
        selection: Validation figure that chooses the best epoch: "uar", "accuracy", or "ccc" (mean
            concordance of the dimensions, which stands for the other two where there are no labels
            and is averaged with them where there are both); or "last" for the last epoch, so that
            nothing is chosen by validation speakers.
    """

    epochs: Annotated[int, or_auto(ABOVE_ZERO)] = AUTO
    decay: Annotated[str, one_of("cosine", "constant", "newbob")] = "cosine"
    warmup: Annotated[float, BELOW_ONE] = 0.1
    ema_decay: Annotated[float, BELOW_ONE] = 0.0
    pretrained_share: Annotated[float, BELOW_ONE] = 0.0
    selection: Annotated[str, one_of("uar", "accuracy", "ccc", "last")] = "uar"


@dataclass(frozen=True)
class RunSettings(Settings):
    """How a run is computed and recorded.

    Attributes:
        precision: "float32", or the type that matrix products are computed in.
        accumulation: Parts that a batch is computed in to save memory; the update is the same.
        recompute: Whether activations are recomputed for the gradients to save memory.
        save_every_steps: Updates between saved states; a state is also saved after each epoch.
        tensorboard: Whether the figures of the epochs are also written for TensorBoard.
        seed: Seed of the head, the order, the crops, the variations and the dropout.
    """

    precision: Annotated[str, one_of(*PRECISIONS)] = "float32"
    accumulation: Annotated[int, ABOVE_ZERO] = 1
    recompute: bool = False
    save_every_steps: Annotated[int, ABOVE_ZERO] = 200
    tensorboard: bool = False
    seed: int = 0


class SizeDefaults(NamedTuple):
    """The values of "auto" that depend on the size of the encoder."""

    epochs: int
    encoder_learning_rate: float


SMALL = SizeDefaults(epochs=15, encoder_learning_rate=1e-4)
LARGE = SizeDefaults(epochs=10, encoder_learning_rate=1e-5)


def auto_values(width: int, model: ModelSettings) -> Mapping[str, Any]:
    """What "auto" stands for, by flat name, for an encoder with `width` features."""
    size, frozen = (SMALL if width < SMALL_WIDTH else LARGE), model.mode == "frozen"
    plain = model.head == "linear" and not model.layer_mix and not model.output_norm
    return {
        "epochs": FROZEN_EPOCHS if frozen else size.epochs,
        "encoder_learning_rate": size.encoder_learning_rate,
        "keep_head": plain,
        "crop_seconds": None if frozen else CROP_SECONDS,
        "augmentation": Augmentation.off() if frozen else Augmentation(),
    }


def refuse(faults: list[str]) -> None:
    """Raise a `ValueError` that names all faults, if there are any."""
    if faults:
        raise ValueError("; ".join(faults))


def _freeze(value: Any) -> Any:
    """Lists as tuples, also inside mappings."""
    if isinstance(value, Mapping):
        return {key: _freeze(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
