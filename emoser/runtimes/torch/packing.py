"""Several recordings in one pass of a transformer, their frames one after another.

Nothing is padded: linear layers, norms and activations compute every frame for itself, and
attention, convolutions and positions take one recording at a time. So each recording has the
outputs that it has alone, and products of few frames, which read all weights for little work,
become products of many.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from emoser.models.encoder import EncodedFrames, SpeechEncoder
from emoser.models.model import EmotionModel
from emoser.models.short_whisper import ShortWhisperEncoder
from emoser.runtimes import Samples
from emoser.runtimes.torch.linear import can_pack
from emoser.runtimes.torch.transformer import JointAttention, packed_frames

POSITIONS = "pos_conv_embed"  # of wav2vec 2.0, HuBERT and data2vec


class EachRecording(nn.Module):
    """A module over frames (B, L, D) that takes one recording of a row at a time."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, frames: Tensor) -> Tensor:
        """What the module gives for each recording, one after another."""
        counts = packed_frames.get()
        if counts is None:
            output: Tensor = self.module(frames)
            return output
        return torch.cat([self.module(part) for part in torch.split(frames, counts, dim=1)], dim=1)


def prepare_packing(encoder: SpeechEncoder) -> bool:
    """Make an encoder take packed recordings; whether it can.

    Its attention must be that of `optimize_transformer`, which separates the recordings, and its
    products those of oneDNN, which do not depend on the number of frames.
    """
    layers = encoder.parts().layers
    joint = all(any(isinstance(c, JointAttention) for c in layer.children()) for layer in layers)
    if not joint or not can_pack(encoder.dtype):
        return False
    if isinstance(encoder, ShortWhisperEncoder):
        return True
    inner = getattr(encoder.backbone, "encoder", None)
    positions = getattr(inner, POSITIONS, None)
    adapter = getattr(encoder.backbone, "adapter", None)  # convolutions behind the layers
    if type(encoder) is not SpeechEncoder or positions is None or adapter is not None:
        return False
    setattr(inner, POSITIONS, EachRecording(positions))
    return True


def encode_packed(model: EmotionModel, recordings: Sequence[Samples]) -> list[EncodedFrames]:
    """The frames of each recording, of any lengths, by an encoder that is prepared.

    Args:
        model: The model of the encoder, on the CPU.
        recordings: Mono, at the model's rate.
    """
    encoder, mixed = model.encoder, model.layer_weights is not None
    rows = [torch.from_numpy(np.array(samples, np.float32))[None] for samples in recordings]
    normalized = [encoder.normalize(model.lengthen(row, None)[0], None) for row in rows]
    if isinstance(encoder, ShortWhisperEncoder):
        parts = [encoder.embed(encoder.extract_features(row, None), None) for row in normalized]
        counts = [part.shape[1] for part in parts]
        with _packed(counts):
            encoded = encoder.pass_layers(torch.cat(parts, dim=1), None, all_layers=mixed)
    else:
        parts = [encoder.extract_features(row.to(encoder.dtype), None) for row in normalized]
        counts = [part.shape[2] for part in parts]
        with _packed(counts):
            encoded = encoder.contextualize(torch.cat(parts, dim=2), None, all_layers=mixed)
    layers = [torch.split(state, counts, dim=1) for state in encoded.hidden_states]
    each = zip(*layers, strict=True) if layers else [()] * len(counts)
    frames = torch.split(encoded.frames, counts, dim=1)
    return [EncodedFrames(part, None, states) for part, states in zip(frames, each, strict=True)]


@contextmanager
def _packed(counts: list[int]) -> Iterator[None]:
    """A block in which frames are those of recordings with these numbers of frames."""
    token = packed_frames.set(counts)
    try:
        yield
    finally:
        packed_frames.reset(token)
