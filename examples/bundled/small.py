"""The recipe of emoser-small: three layers of whisper-base, frozen, and a linear head.

Whisper's encoder reads every clip at its own length, scaled to the same level. Mean and standard
deviation of its third layer over time are computed once for each clip and for varied copies of it.
The head is a ridge-regularised softmax on them: a convex problem, solved to the end in seconds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from network import ALL_LABELS, LABELS
from torch import Tensor
from torch.nn import functional

from emoser.finetune import FinetuneConfig, Utterance, read_corpus
from emoser.finetune.config import Augmentation
from emoser.finetune.data.inputs import pool_windows
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.protocols import drop_duplicates
from emoser.models.model import EmotionModel

SHARES: Mapping[str, float] = {"ravdess": 0.5, "nemo": 0.5}
NUM_COPIES = 1  # varied copies of every clip, beside the clip itself
RIDGE = 0.05
DEVIATION_SCALE = 0.5  # of the standardised deviations: a ridge four times as strong
MAX_ITERATIONS = 60
WINDOW = 480_000  # samples, 30 s

RECIPE = FinetuneConfig(
    base="openai/whisper-base",
    mode="frozen",
    num_layers=3,
    normalization="level",
    head="statistics",
    masking=False,
    crop_seconds=None,
    frozen_copies=NUM_COPIES,
    augmentation=Augmentation(
        gain_decibels=0.0,
        speed_probability=0.8,
        noise_probability=0.5,
        tilt_probability=0.4,
        tilt_decibels=4.0,
        telephone_probability=0.15,
        reverb_probability=0.25,
        trim_probability=0.5,
        trim_seconds=0.15,
    ),
)


def read_speech(data: Path) -> list[Utterance]:
    """The recordings of both corpora, without duplicates."""
    found = [item for item in read_corpus(data / "manifest.csv") if item.corpus in SHARES]
    return drop_duplicates(found)[0]


def build_network(base: str) -> EmotionModel:
    """The frozen encoder with a head for all eight labels."""
    return build_initial_model(RECIPE.replace(base=base), ALL_LABELS).eval()


def pool_speech(
    model: EmotionModel, speech: Sequence[Utterance], folder: Path, *, num_copies: int = NUM_COPIES
) -> Tensor:
    """Pooled features of all clips and of their varied copies, (1 + copies, N, D).

    Each copy is kept in a file of the folder, and read from there the next time.

    Raises:
        ValueError: If a file is of other recordings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recordings = Recordings()
    copies = []
    for copy in range(1 + num_copies):
        file = folder / f"copy{copy}.npy"
        if not file.is_file():
            if not len(recordings):
                recordings = Recordings(speech)
            temporary = folder / "unfinished.npy"
            values = pool_windows(model, Windows(recordings, WINDOW), RECIPE, copy=copy)
            np.save(temporary, values[:, 0].numpy())
            temporary.replace(file)
            print(f"encoded copy {copy} of {num_copies}", flush=True)
        values = np.load(file)
        if values.shape != (len(speech), model.embedding_size):
            raise ValueError(f"{file} is of other recordings; delete it")
        copies.append(torch.from_numpy(values))
    return torch.stack(copies)


@dataclass(frozen=True)
class Head:
    """Weights (C, D) and biases (C,) of a linear head."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> np.ndarray:
        """Logits (N, C) of features (N, D)."""
        return functional.linear(features, self.weight, self.bias).numpy()


def fit_head(features: Tensor, speech: Sequence[Utterance], *, ridge: float = RIDGE) -> Head:
    """The ridge-regularised softmax on standardised features, folded into one linear layer.

    Corpora count by their share, the labels of a corpus equally, and all copies of a clip together
    as one clip. The softmax of a clip runs over the labels of its corpus.

    Args:
        features: Of all copies of all clips, (copies, N, D).
        speech: The N clips.
        ridge: Half of it times the squared weights is added to the mean loss.
    """
    num_copies, _, width = features.shape
    labels = torch.tensor([ALL_LABELS.index(item.label) for item in speech]).repeat(num_copies)
    weights = weigh_clips(speech).repeat(num_copies) / num_copies
    hidden = hide_labels(speech).repeat(num_copies, 1)
    rows = features.flatten(0, 1)
    mean = weights @ rows
    deviation = (weights @ (rows - mean).square()).sqrt() + 1e-4
    scale = torch.ones(width)
    scale[width // 2 :] = DEVIATION_SCALE
    rows = (rows - mean) / deviation * scale
    weight = torch.zeros(len(ALL_LABELS), width, requires_grad=True)
    bias = torch.zeros(len(ALL_LABELS), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = functional.linear(rows, weight, bias) + hidden
        losses = functional.cross_entropy(logits, labels, reduction="none")
        loss = weights @ losses + ridge / 2.0 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    folded = weight.detach() * scale / deviation
    return Head(folded, bias.detach() - folded @ mean)


def weigh_clips(speech: Sequence[Utterance]) -> Tensor:
    """Weight of each clip in the loss, (N,); their sum is 1."""
    counts = Counter((item.corpus, item.label) for item in speech)
    labels = Counter(corpus for corpus, _ in counts)
    weights = torch.tensor(
        [
            SHARES[item.corpus] / labels[item.corpus] / counts[item.corpus, item.label]
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
