"""The third layer of emoser-small, tuned together with its head.

The layers before it stay frozen, so their frames are computed once, for each clip and its varied
copies. The tuning starts from whisper-base and the head of `frame_head.py`, draws as many clips as
two passes have, and ends half-way between this start and what it has learned, which keeps more of
what the encoder knows of other voices (cf. arXiv 2109.01903).
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from frame_head import (
    LEAST_UPDATES,
    OFFSET_DECAY,
    SAMPLING,
    TEST_CLIPS,
    WARMUP,
    WEIGHT_DECAY,
    FrameHead,
    Frames,
    MixedLoss,
    put_frame_head,
)
from network import LABELS
from numpy.typing import NDArray
from small import build_network, weigh_clips
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoser.finetune import Utterance
from emoser.finetune.progress import Progress
from emoser.models.model import EmotionModel

INNER = "inner"  # folder of a run
NUM_FROZEN = 2  # layers before the tuned one
NUM_EPOCHS = 2.0
BATCH_CLIPS = 32
LEARNING_RATE, HEAD_RATE, OFFSET_RATE = 1e-4, 3e-4, 1e-3
DROPOUT = 0.15  # of the frames before the head
STANDARDISED_CLIPS = 200
CUT = 0.2  # of a clip's frames, at most, are cut out of it, in one stretch
LARGEST_GRADIENT = 5.0
ROWS_STEP = 256  # oneDNN generates code for every new number of frames, and keeps it
EMA_DECAY = 0.98
TUNED_SHARE = 0.5  # of what the tuning has learned
TUNING_SETTINGS = {
    "num_epochs": NUM_EPOCHS,
    "batch_clips": BATCH_CLIPS,
    "learning_rate": LEARNING_RATE,
    "head_rate": HEAD_RATE,
    "offset_rate": OFFSET_RATE,
    "weight_decay": WEIGHT_DECAY,
    "offset_decay": OFFSET_DECAY,
    "dropout": DROPOUT,
    "cut": CUT,
    "ema_decay": EMA_DECAY,
    "warmup": WARMUP,
    "tuned_share": TUNED_SHARE,
}
"""As they are stated in the checkpoint."""


def build_inner(base: str) -> EmotionModel:
    """The encoder up to the layer that is tuned, without the norm behind its last layer."""
    model = build_network(base, num_layers=NUM_FROZEN)
    model.encoder.backbone.layer_norm = nn.Identity()
    return model


class LastLayer(nn.Module):
    """The last layer of Whisper's encoder, its final norm, and a head over every frame."""

    def __init__(self, model: EmotionModel, head: FrameHead) -> None:
        """Copy layer and norm of a model, and the head.

        Args:
            model: The whole encoder with any head.
            head: For the frames of its last layer.
        """
        super().__init__()
        backbone = model.encoder.backbone
        self.layer = copy.deepcopy(backbone.layers[-1])
        self.norm = copy.deepcopy(backbone.layer_norm)
        self.head = copy.deepcopy(head)

    @classmethod
    def restore(cls, model: EmotionModel, state: Mapping[str, Tensor]) -> "LastLayer":
        """Layer, norm and head of a state dictionary."""
        width, size = state["head.projection.weight"].shape
        restored = cls(model, FrameHead(size, width, len(state["head.offsets"])))
        restored.load_state_dict(state)
        return restored.requires_grad_(requires_grad=False)

    def forward(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Frames of the whole encoder from those before the last layer.

        Args:
            frames: Of several clips, one after the other, (M, D). Only attention pads them.
            counts: How many each clip has, (B,).
        """
        num_frames = len(frames)
        rest = -num_frames % ROWS_STEP
        if rest:  # as one more clip, whose frames are left out at the end
            frames = functional.pad(frames, (0, 0, 0, rest))
            counts = torch.cat([counts, counts.new_tensor([rest])])
        attention = self.layer.self_attn
        num_heads, length = attention.num_heads, int(counts.max())
        valid = torch.arange(length) < counts[:, None]  # (B, L)
        normed = self.layer.self_attn_layer_norm(frames)
        parts = []
        for project in (attention.q_proj, attention.k_proj, attention.v_proj):
            rows = project(normed)
            padded = rows.new_zeros(*valid.shape, rows.shape[1]).masked_scatter(
                valid[:, :, None], rows
            )
            parts.append(padded.unflatten(2, (num_heads, -1)).transpose(1, 2))
        attended = functional.scaled_dot_product_attention(
            *parts, attn_mask=valid[:, None, None], scale=attention.scaling
        )
        hidden = frames + attention.out_proj(attended.transpose(1, 2).flatten(2)[valid])
        inner = functional.gelu(self.layer.fc1(self.layer.final_layer_norm(hidden)))
        encoded: Tensor = self.norm(hidden + self.layer.fc2(inner))
        return encoded[:num_frames]

    def pool(
        self, frames: Tensor, counts: Tensor, *, dropout: float = 0.0, bfloat16: bool = False
    ) -> Tensor:
        """What the classifier of the head reads, (B, 2 W), from frames as in `forward`.

        With `bfloat16`, the products of the layer are computed in that precision.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            encoded = self(frames, counts)
        owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
        return self.head.pool(encoded.float(), owners, dropout=dropout)

    @torch.no_grad()
    def predict(self, frames: Frames, places: Sequence[int]) -> NDArray[np.float32]:
        """Logits of some clips, (N, C), from their frames before the last layer."""
        parts = [places[begin : begin + TEST_CLIPS] for begin in range(0, len(places), TEST_CLIPS)]
        logits = [self.head.classifier(self.pool(*take(frames, part))) for part in parts]
        return torch.cat(logits).numpy()


def start_last_layer(
    model: EmotionModel, head: FrameHead, frames: Frames, places: Sequence[int]
) -> LastLayer:
    """The frozen last layer of a model with a head; the norm gives standardised frames.

    Args:
        model: The encoder.
        head: For its frames; the logits stay.
        frames: Of all clips, before the last layer.
        places: Of the clips to train on, of which some are taken for the standardisation.
    """
    start = LastLayer(model, head).requires_grad_(requires_grad=False)
    chosen = np.random.default_rng(0).choice(places, STANDARDISED_CLIPS)
    encoded = start(*take(frames, chosen.tolist()))
    mean, deviation = encoded.mean(dim=0), encoded.std(dim=0)
    start.norm.weight /= deviation
    start.norm.bias.sub_(mean).div_(deviation)
    projection = start.head.projection
    projection.bias += projection.weight @ mean
    projection.weight *= deviation
    return start


def tune_last_layer(
    start: LastLayer,
    copies: Sequence[Frames],
    places: Sequence[int],
    speech: Sequence[Utterance],
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The state of a last layer and its head after the tuning.

    The loss and the drawing of clips are those of the head (`train_head`). An update reads one
    copy of each clip, and a stretch of frames is cut out of each.

    Args:
        start: The result of `start_last_layer`.
        copies: Frames of all clips and their varied copies, before the last layer.
        places: Of the clips to train on, among all clips.
        speech: These clips.
        seed: Of all that is drawn.
    """
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    weights = weigh_clips(speech).double().numpy()
    chances = weights**SAMPLING / (weights**SAMPLING).sum()
    importance = torch.from_numpy(weights / chances).float()
    tuned, loss = copy.deepcopy(start).requires_grad_(requires_grad=True), MixedLoss(speech)
    loss.offsets.data.copy_(start.head.offsets)
    layer = [*tuned.layer.parameters(), *tuned.norm.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [item for item in layer if item.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [item for item in layer if item.ndim == 1], "weight_decay": 0.0},
            {"params": tuned.head.parameters(), "weight_decay": WEIGHT_DECAY},
            {"params": loss.parameters(), "weight_decay": OFFSET_DECAY},
        ]
    )
    num_updates = max(int(NUM_EPOCHS * len(speech) / BATCH_CLIPS), LEAST_UPDATES)
    rates = [LEARNING_RATE, LEARNING_RATE, HEAD_RATE, OFFSET_RATE]
    schedule = OneCycleLR(optimizer, rates, total_steps=num_updates, pct_start=WARMUP)
    averaged = AveragedModel(tuned, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    for _ in Progress(range(num_updates), "tuning the last layer, updates"):
        drawn = generator.choice(len(speech), BATCH_CLIPS, p=chances)
        frames = copies[generator.integers(len(copies))]
        clips = take(frames, [places[row] for row in drawn], generator)
        pooled = tuned.pool(*clips, dropout=DROPOUT, bfloat16=True)
        optimizer.zero_grad()
        losses = loss(tuned.head.classifier, pooled, drawn, generator)
        (importance[drawn] * losses).mean().backward()
        nn.utils.clip_grad_norm_(tuned.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(tuned)
    return averaged.module.state_dict()


def mix_states(start: LastLayer, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights between the start and those after the tuning, in numbers that float16 has."""
    return {
        name: value.lerp(learned[name], TUNED_SHARE).half().float()
        for name, value in start.state_dict().items()
    }


def take(
    frames: Frames, places: Sequence[int], generator: np.random.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Frames of some clips, one after the other, (M, D), and how many each has, (B,).

    With a generator, a random stretch of at most `CUT` of each clip is cut out.
    """
    parts = []
    for place in places:
        part = frames.values[frames.starts[place] : frames.starts[place + 1]]
        if generator is not None:
            size = generator.integers(int(len(part) * CUT) + 1)
            begin = generator.integers(len(part) - size + 1)
            part = np.delete(part, np.s_[begin : begin + size], axis=0)
        parts.append(part)
    counts = torch.tensor([len(part) for part in parts])
    return torch.from_numpy(np.concatenate(parts)).float(), counts


def put_last_layer(
    model: EmotionModel, last: LastLayer, labels: Sequence[str] = LABELS
) -> EmotionModel:
    """A copy of a model with a tuned last layer and its head, for some labels."""
    tuned = put_frame_head(copy.deepcopy(model), last.head, labels)
    backbone = tuned.encoder.backbone
    backbone.layers[-1].load_state_dict(last.layer.state_dict())
    backbone.layer_norm.load_state_dict(last.norm.state_dict())
    return tuned
