"""The encoder that emoser-small starts from, three layers of whisper-base; a linear head on it.

Whisper's encoder reads every clip at its own length, scaled to the same level. Mean and standard
deviation of its third layer over time are the features of each clip and of varied copies of it.
The linear head is a ridge-regularised softmax on them: a convex problem, solved to the end in
seconds. It is the head of emoser-tiny and of the frozen probe; emoser-small has that of
`frame_head.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from network import ALL_LABELS, LABELS
from torch import Tensor
from torch.nn import functional

from emoser.finetune import FinetuneConfig, Utterance, read_corpus
from emoser.finetune.config import Augmentation
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.protocols import drop_duplicates
from emoser.models.model import EmotionModel

SHARES: Mapping[str, float] = {"ravdess": 0.5, "nemo": 0.5, "cremad": 0.2}  # of the loss
ONLY: Mapping[str, tuple[str, ...]] = {"cremad": ("happy", "sad")}  # nearly no others there
NUM_LAYERS = 3
NUM_COPIES = 1  # varied copies of every clip, beside the clip itself
MAX_ITERATIONS = 60
WINDOW = 480_000  # samples, 30 s

RECIPE = FinetuneConfig(
    base="openai/whisper-base",
    mode="frozen",
    num_layers=NUM_LAYERS,
    normalization="level",
    head="statistics",
    masking=False,
    crop_seconds=None,
    frozen_copies=NUM_COPIES,
    augmentation=Augmentation(
        gain_decibels=0.0,
        speed_probability=0.8,
        speed_change=0.12,
        noise_probability=0.5,
        noise_decibels=(5.0, 35.0),
        tilt_probability=0.5,
        tilt_decibels=4.0,
        telephone_probability=0.15,
        reverb_probability=0.3,
        reverb_seconds=(0.1, 0.6),
        trim_probability=0.5,
        trim_seconds=0.15,
    ),
)


def read_speech(data: Path) -> list[Utterance]:
    """The recordings of all corpora, without duplicates, corpus after corpus."""
    found = drop_duplicates(read_corpus(data / "manifest.csv"))[0]
    return [
        item
        for corpus in SHARES
        for item in found
        if item.corpus == corpus and item.label in ONLY.get(corpus, ALL_LABELS)
    ]


def build_network(base: str, *, num_layers: int = NUM_LAYERS) -> EmotionModel:
    """The frozen encoder with a head for all eight labels."""
    config = RECIPE.replace(base=base, num_layers=num_layers)
    return build_initial_model(config, ALL_LABELS).eval()


def sort_corpora(speech: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """The clips of each corpus, which follow one another.

    Raises:
        ValueError: If they do not, or in another order than in `SHARES`.
    """
    found = {corpus: [item for item in speech if item.corpus == corpus] for corpus in SHARES}
    if [item for clips in found.values() for item in clips] != list(speech):
        raise ValueError(f"the clips must be sorted by corpus: {', '.join(SHARES)}")
    return {corpus: clips for corpus, clips in found.items() if clips}


@dataclass(frozen=True)
class HeadConfig:
    """How a head is fitted.

    Attributes:
        ridge: Half of it times the squared weights is added to the mean loss.
        deviation_scale: Of the standardised deviations; at 0.5 their ridge is four times as strong.
        speaker_scale: Of the intercepts of each speaker; at 5 their ridge is 25 times as weak, at
            0 there are none.
        shares: Weight of each corpus in the loss.
    """

    ridge: float = 0.05
    deviation_scale: float = 0.5
    speaker_scale: float = 5.0
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))


@dataclass(frozen=True)
class Head:
    """Weights (C, D) and biases (C,) of a linear head."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> np.ndarray:
        """Logits (N, C) of features (N, D)."""
        return functional.linear(features, self.weight, self.bias).numpy()


def fit_head(
    features: Tensor, speech: Sequence[Utterance], config: HeadConfig | None = None
) -> Head:
    """The ridge-regularised softmax on standardised features, folded into one linear layer.

    Each speaker has intercepts of its own, with a weaker ridge, as in a mixed-effects model; they
    are dropped afterwards. So the weights explain how a voice changes with the emotion, not how
    speakers differ. Corpora count by their share, the labels of a corpus equally, and all copies
    of a clip together as one clip. The softmax of a clip runs over the labels of its corpus.

    Args:
        features: Of all copies of all clips, (copies, N, D).
        speech: The N clips.
        config: That of the recipe unless given.
    """
    config = config or HeadConfig()
    num_copies, _, width = features.shape
    labels = torch.tensor([ALL_LABELS.index(item.label) for item in speech]).repeat(num_copies)
    weights = weigh_clips(speech, config.shares).repeat(num_copies) / num_copies
    hidden = hide_labels(speech).repeat(num_copies, 1)
    voices = {voice: place for place, voice in enumerate({item.voice: None for item in speech})}
    speakers = torch.tensor([voices[item.voice] for item in speech]).repeat(num_copies)
    rows = features.flatten(0, 1)
    mean = weights @ rows
    deviation = (weights @ (rows - mean).square()).sqrt() + 1e-4
    scale = torch.ones(width)
    scale[width // 2 :] = config.deviation_scale
    rows = (rows - mean) / deviation * scale
    weight = torch.zeros(len(ALL_LABELS), width, requires_grad=True)
    bias = torch.zeros(len(ALL_LABELS), requires_grad=True)
    offsets = torch.zeros(len(voices), len(ALL_LABELS), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias, offsets],
        max_iter=MAX_ITERATIONS,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = functional.linear(rows, weight, bias) + config.speaker_scale * offsets[speakers]
        losses = functional.cross_entropy(logits + hidden, labels, reduction="none")
        penalty = weight.square().sum() + offsets.square().sum()
        loss = weights @ losses + config.ridge / 2.0 * penalty
        loss.backward()
        return loss

    solver.step(closure)
    folded = weight.detach() * scale / deviation
    return Head(folded, bias.detach() - folded @ mean)


def weigh_clips(speech: Sequence[Utterance], shares: Mapping[str, float] = SHARES) -> Tensor:
    """Weight of each clip in the loss, (N,); their sum is 1."""
    counts = Counter((item.corpus, item.label) for item in speech)
    labels = Counter(corpus for corpus, _ in counts)
    weights = torch.tensor(
        [
            shares[item.corpus] / labels[item.corpus] / counts[item.corpus, item.label]
            for item in speech
        ]
    )
    return weights / weights.sum()


def hide_labels(speech: Sequence[Utterance]) -> Tensor:
    """Added to the logits: minus infinity for labels that the clip's corpus lacks, (N, C)."""
    known = {(item.corpus, item.label) for item in speech}
    rows = {
        corpus: [0.0 if (corpus, label) in known else -1e9 for label in ALL_LABELS]
        for corpus in {corpus for corpus, _ in known}
    }
    return torch.tensor([rows[item.corpus] for item in speech])


def put_head(model: EmotionModel, head: Head, labels: Sequence[str] = LABELS) -> EmotionModel:
    """A model with the encoder of another and the rows of a head for some labels."""
    config = replace(model.config, labels=tuple(labels), raw_labels=tuple(labels))
    smaller = EmotionModel(config, model.encoder).eval()
    rows = [ALL_LABELS.index(label) for label in labels]
    smaller.load_state_dict(
        {
            **model.state_dict(),
            "head.classifier.weight": head.weight[rows],
            "head.classifier.bias": head.bias[rows],
        }
    )
    return smaller
