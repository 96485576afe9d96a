"""The head of emoser-small: linear and ReLU over every frame, mean and deviation, linear.

The encoder is frozen, so its frames are computed once, for each clip and its varied copies. Several
heads are trained on them from different seeds and put side by side, as one that is so many times
wider: its logits are their mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from network import ALL_LABELS, LABELS
from numpy.typing import NDArray
from small import RECIPE, WINDOW, hide_labels, sort_corpora, weigh_clips
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoser.finetune import Utterance
from emoser.finetune.data.batches import collate, length_batches
from emoser.finetune.data.inputs import copy_reader
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.progress import Progress
from emoser.models.model import EmotionModel
from emoser.models.pooling import DEVIATION_FLOOR

FRAMES = "frames"  # folder of a run
WIDTH = 256  # features of a frame in the head of one seed
NUM_SEEDS = 3
NUM_COPIES = 2  # varied copies of every clip, beside the clip itself
NUM_EPOCHS = 12
BATCH_CLIPS = 48
LEAST_UPDATES = 20
FRAME_STEP = 4  # one frame of so many is read at an update
LEARNING_RATE, OFFSET_RATE = 1e-3, 3e-3
WEIGHT_DECAY, OFFSET_DECAY = 0.05, 0.1
DROPOUT = 0.3
SAMPLING = 0.5  # power of a clip's weight in its chance to be drawn; the loss has the rest
MIXING = 0.2  # of the beta distribution of mixup
OFFSET_SCALE = 3.0  # of the intercepts of each speaker
EMA_DECAY = 0.99  # of the moving average of the weights
WARMUP = 0.1  # of the updates
STANDARDISED_CLIPS = 2_000
TEST_CLIPS = 64
HEAD_SETTINGS = {
    "width": WIDTH,
    "num_seeds": NUM_SEEDS,
    "num_epochs": NUM_EPOCHS,
    "batch_clips": BATCH_CLIPS,
    "frame_step": FRAME_STEP,
    "learning_rate": LEARNING_RATE,
    "offset_rate": OFFSET_RATE,
    "weight_decay": WEIGHT_DECAY,
    "offset_decay": OFFSET_DECAY,
    "dropout": DROPOUT,
    "sampling": SAMPLING,
    "mixing": MIXING,
    "offset_scale": OFFSET_SCALE,
    "ema_decay": EMA_DECAY,
    "warmup": WARMUP,
}
"""As they are stated in the checkpoint."""


@dataclass(frozen=True)
class Frames:
    """Frames of N clips.

    Attributes:
        values: Those of one clip after the other, (L, D).
        starts: Where those of each clip begin, and the end, (N + 1,).
    """

    values: NDArray[np.float16]
    starts: NDArray[np.int64]

    @classmethod
    def gather(cls, clips: Sequence[NDArray[np.float16]]) -> "Frames":
        """The frames of each clip, (L, D), one after the other."""
        return cls(np.concatenate(clips), np.cumsum([0, *map(len, clips)]))

    def take(
        self, places: Sequence[int], generator: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Frames of some clips, (M, D), and the index of the clip of each among them, (M,).

        With a generator, only one frame of `FRAME_STEP`, from a random one on.
        """
        step = FRAME_STEP if generator else 1
        parts = [
            self.values[self.starts[place] + first : self.starts[place + 1] : step]
            for place, first in zip(places, self._draw(places, generator), strict=True)
        ]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return torch.from_numpy(np.concatenate(parts)).float(), torch.from_numpy(owners)

    def pool(self) -> Tensor:
        """Mean and deviation over time of each clip, (N, 2 D)."""
        parts = np.split(self.values, self.starts[1:-1])
        means = np.stack([part.mean(axis=0, dtype=np.float32) for part in parts])
        deviations = np.stack([part.std(axis=0, dtype=np.float32) for part in parts])
        return torch.from_numpy(np.concatenate([means, deviations], axis=1))

    def _draw(self, places: Sequence[int], generator: np.random.Generator | None) -> list[int]:
        if generator is None:
            return [0] * len(places)
        lengths = self.starts[1:][places] - self.starts[places]
        return generator.integers(np.minimum(lengths, FRAME_STEP)).tolist()


def encode_speech(
    model: EmotionModel, speech: Sequence[Utterance], folder: Path, *, num_copies: int = NUM_COPIES
) -> list[Frames]:
    """Frames of all clips, and of their varied copies.

    Those of a copy of a corpus are kept in a file of the folder, and read from there the next time.

    Raises:
        ValueError: If a file is of other recordings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpora = sort_corpora(speech)
    return [
        join_frames(
            encode_corpus(model, clips, folder / f"{corpus}-copy{copy}.npz", copy)
            for corpus, clips in corpora.items()
        )
        for copy in range(1 + num_copies)
    ]


def encode_corpus(model: EmotionModel, clips: Sequence[Utterance], file: Path, copy: int) -> Frames:
    """Frames of one copy of the clips of a corpus, from a file if it exists."""
    if not file.is_file():
        frames = compute_frames(model, Windows(Recordings(clips), WINDOW), copy)
        temporary = file.with_suffix(".part")
        with temporary.open("wb") as opened:
            np.savez(opened, values=frames.values, starts=frames.starts)
        temporary.replace(file)
        print(f"encoded {file.stem}", flush=True)
    with np.load(file) as stored:
        found = Frames(stored["values"], stored["starts"])
    if len(found.starts) != len(clips) + 1:
        raise ValueError(f"{file} is of other recordings; delete it")
    return found


@torch.inference_mode()
def compute_frames(model: EmotionModel, windows: Windows, copy: int) -> Frames:
    """Frames of each window, or of a varied copy of it."""
    frames: dict[int, NDArray[np.float16]] = {}
    title, read = f"encoding copy {copy}, batches", copy_reader(windows, RECIPE, copy)
    for batch in Progress(length_batches(windows.num_samples), title):
        encoded = model.encode(*collate([read(place) for place in batch]))
        counts = encoded.num_frames
        for row, place in enumerate(batch):
            valid = encoded.frames[row] if counts is None else encoded.frames[row, : counts[row]]
            frames[place] = valid.half().numpy()
    return Frames.gather([frames[place] for place in range(len(windows))])


def join_frames(parts: Iterable[Frames]) -> Frames:
    """The frames of several corpora, one after the other."""
    parts = list(parts)
    edges = np.cumsum([0, *(len(part.values) for part in parts)])
    starts = [part.starts[:-1] + edge for part, edge in zip(parts, edges, strict=False)]
    values = np.concatenate([part.values for part in parts])
    return Frames(values, np.concatenate([*starts, edges[-1:]]))


class FrameHead(nn.Module):
    """What `EmotionModel` has behind the encoder, with the head "framewise" and statistics.

    Attributes:
        offsets: Intercepts of the speakers of its training, (S, C); no part of its logits.
    """

    offsets: Tensor

    def __init__(self, size: int, width: int, num_speakers: int) -> None:
        super().__init__()
        self.projection = nn.Linear(size, width)
        self.classifier = nn.Linear(2 * width, len(ALL_LABELS))
        self.register_buffer("offsets", torch.zeros(num_speakers, len(ALL_LABELS)))

    @classmethod
    def restore(cls, state: Mapping[str, Tensor]) -> "FrameHead":
        """The head of a state dictionary."""
        width, size = state["projection.weight"].shape
        head = cls(size, width, len(state["offsets"])).requires_grad_(requires_grad=False)
        head.load_state_dict(state)
        return head

    def pool(self, frames: Tensor, owners: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Mean and deviation over the frames of each clip, (B, 2 W)."""
        hidden = torch.relu(self.projection(functional.dropout(frames, dropout)))
        counts = torch.bincount(owners).float()[:, None]
        zeros = hidden.new_zeros(len(counts), hidden.shape[1])
        mean = zeros.index_add(0, owners, hidden) / counts
        squares = zeros.index_add(0, owners, (hidden - mean[owners]).square()) / counts
        return torch.cat([mean, squares.clamp(min=DEVIATION_FLOOR).sqrt()], dim=1)

    @torch.no_grad()
    def predict(self, frames: Frames, places: Sequence[int]) -> NDArray[np.float32]:
        """Logits of some clips, (N, C)."""
        parts = [places[begin : begin + TEST_CLIPS] for begin in range(0, len(places), TEST_CLIPS)]
        logits = [self.classifier(self.pool(*frames.take(part))) for part in parts]
        return torch.cat(logits).numpy()


def fit_frame_head(
    copies: Sequence[Frames],
    places: Sequence[int],
    speech: Sequence[Utterance],
    *,
    num_seeds: int = NUM_SEEDS,
) -> FrameHead:
    """The heads of all seeds, side by side, in numbers that float16 has.

    Args:
        copies: Frames of all clips and of their varied copies.
        places: Of the clips to train on, among all clips.
        speech: These clips.
        num_seeds: How many heads are trained.
    """
    heads = [train_head(copies, places, speech, seed) for seed in range(num_seeds)]
    outputs = [head.classifier.weight.data.split(WIDTH, dim=1) for head in heads]
    means, deviations = zip(*outputs, strict=True)
    biases = torch.stack([head.classifier.bias.data for head in heads])
    state = {
        "projection.weight": torch.cat([head.projection.weight.data for head in heads]),
        "projection.bias": torch.cat([head.projection.bias.data for head in heads]),
        "classifier.weight": torch.cat([*means, *deviations], dim=1) / num_seeds,
        "classifier.bias": biases.mean(dim=0),
        "offsets": torch.stack([head.offsets for head in heads]).mean(dim=0),
    }
    return FrameHead.restore({name: value.half().float() for name, value in state.items()})


def train_head(
    copies: Sequence[Frames], places: Sequence[int], speech: Sequence[Utterance], seed: int
) -> FrameHead:
    """The head of one seed, the moving average of its weights, for frames as they are.

    As in the linear head of `small.py`, corpora count by their share, labels of a corpus equally,
    the softmax of a clip runs over the labels of its corpus, and each speaker has intercepts of
    its own, which are no part of its logits. An update reads one copy of each clip. Two clips of a
    corpus are mixed after the pooling (manifold mixup, arXiv 1806.05236).
    """
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    weights = weigh_clips(speech).double().numpy()
    chances = weights**SAMPLING / (weights**SAMPLING).sum()
    importance = torch.from_numpy(weights / chances).float()
    sample, _ = copies[0].take(generator.choice(places, STANDARDISED_CLIPS))
    mean, deviation = sample.mean(dim=0), sample.std(dim=0)
    loss = MixedLoss(speech)
    head = FrameHead(len(mean), WIDTH, len(loss.offsets))
    num_updates = max(NUM_EPOCHS * len(speech) // BATCH_CLIPS, LEAST_UPDATES)
    optimizer = torch.optim.AdamW(
        [
            {"params": head.parameters(), "weight_decay": WEIGHT_DECAY},
            {"params": loss.parameters(), "weight_decay": OFFSET_DECAY},
        ]
    )
    schedule = OneCycleLR(
        optimizer, [LEARNING_RATE, OFFSET_RATE], total_steps=num_updates, pct_start=WARMUP
    )
    averaged = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    for _ in range(num_updates):
        drawn = generator.choice(len(speech), BATCH_CLIPS, p=chances)
        copy = copies[generator.integers(len(copies))]
        frames, owners = copy.take([places[row] for row in drawn], generator)
        pooled = head.pool((frames - mean) / deviation, owners, dropout=DROPOUT)
        optimizer.zero_grad()
        losses = loss(head.classifier, pooled, drawn, generator)
        (importance[drawn] * losses).mean().backward()
        optimizer.step()
        schedule.step()
        averaged.update_parameters(head)
    averaged.module.offsets.copy_(loss.offsets.detach())
    return fold_scale(averaged.module, mean, deviation)


class MixedLoss(nn.Module):
    """Cross-entropy of clips that are mixed with others of their corpus."""

    def __init__(self, speech: Sequence[Utterance]) -> None:
        super().__init__()
        self.labels = torch.tensor([ALL_LABELS.index(item.label) for item in speech])
        self.unknown = hide_labels(speech)
        self.corpora = np.array([item.corpus for item in speech])
        voices = {voice: place for place, voice in enumerate({item.voice: None for item in speech})}
        self.speakers = torch.tensor([voices[item.voice] for item in speech])
        self.offsets = nn.Parameter(torch.zeros(len(voices), len(ALL_LABELS)))

    def forward(
        self,
        classifier: nn.Module,
        pooled: Tensor,
        places: NDArray[np.int64],
        generator: np.random.Generator,
    ) -> Tensor:
        """Losses (B,) of pooled clips (B, 2 W) at some places, (B,)."""
        partner = generator.permutation(len(places))
        others = places[partner]
        drawn = generator.beta(MIXING, MIXING, len(places))
        alone = self.corpora[places] != self.corpora[others]
        share = torch.from_numpy(np.where(alone, 1.0, drawn)).float()[:, None]
        mixed = share * pooled + (1.0 - share) * pooled[partner]
        logits = classifier(functional.dropout(mixed, DROPOUT)) + self.unknown[places]
        offsets = self.offsets[self.speakers]
        logits = logits + OFFSET_SCALE * (share * offsets[places] + (1.0 - share) * offsets[others])
        known = functional.one_hot(self.labels, len(ALL_LABELS)).float()
        target = share * known[places] + (1.0 - share) * known[others]
        return functional.cross_entropy(logits, target, reduction="none")


def fold_scale(head: FrameHead, mean: Tensor, deviation: Tensor) -> FrameHead:
    """The same head for frames that are not standardised."""
    projection = head.projection
    projection.weight.data /= deviation
    projection.bias.data -= projection.weight.data @ mean
    return head


def put_frame_head(
    model: EmotionModel, head: FrameHead, labels: Sequence[str] = LABELS
) -> EmotionModel:
    """A model with the encoder of another, this head, and its outputs for some labels."""
    config = replace(
        model.config,
        labels=tuple(labels),
        raw_labels=tuple(labels),
        head="framewise",
        projection_size=head.projection.out_features,
    )
    smaller = EmotionModel(config, model.encoder).eval()
    rows = [ALL_LABELS.index(label) for label in labels]
    encoder = {k: v for k, v in model.state_dict().items() if k.startswith("encoder.")}
    smaller.load_state_dict(
        {
            **encoder,
            "pointwise.0.weight": head.projection.weight,
            "pointwise.0.bias": head.projection.bias,
            "head.classifier.weight": head.classifier.weight[rows],
            "head.classifier.bias": head.classifier.bias[rows],
        }
    )
    return smaller
