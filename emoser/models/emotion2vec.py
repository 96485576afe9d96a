"""The encoder of emotion2vec: data2vec 2.0 for audio, as published.

Convolutions with layer norm, a projection, five convolutions as position embeddings, ten learned
tokens before the frames, and transformer blocks whose attention decays with distance (ALiBi, with
a learned scale per head). Exact under padding. The names of the tensors are those of the
published files. Architecture: Baevski et al. 2022 (arXiv 2212.07525), Ma et al. 2023 (arXiv
2312.15185).
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.encoder import EncodedFrames, EncoderParts, SpeechEncoder
from emoser.models.pooling import frame_mask


@dataclass(frozen=True)
class Emotion2VecConfig:
    """Shape of an emotion2vec encoder; the defaults are those of the base size.

    Attributes:
        hidden_size: Width of a frame.
        num_heads: Attention heads; each has its own slope and scale.
        prenet_depth: Blocks before the main ones.
        depth: Main blocks.
        mlp_size: Width of the hidden layer of a block.
        num_extra_tokens: Learned tokens before the frames.
        conv_dim: Width of the convolutions over samples.
        conv_kernel: Their kernels.
        conv_stride: Their strides.
        position_layers: Convolutions of the position embeddings.
        position_kernel: Their kernel.
        position_groups: Their groups.
    """

    hidden_size: int = 768
    num_heads: int = 12
    prenet_depth: int = 4
    depth: int = 8
    mlp_size: int = 3072
    num_extra_tokens: int = 10
    conv_dim: int = 512
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    position_layers: int = 5
    position_kernel: int = 19
    position_groups: int = 16
    model_type: str = "emotion2vec"

    def __post_init__(self) -> None:
        """Refuse widths that do not divide, which the layers would refuse at the first recording.

        Raises:
            ValueError: If the heads or the groups do not divide the width.
        """
        if self.hidden_size % self.num_heads or self.hidden_size % self.position_groups:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divided by num_heads {self.num_heads} and "
                f"position_groups {self.position_groups}"
            )

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of both kinds."""
        return self.prenet_depth + self.depth

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


class Emotion2VecEncoder(SpeechEncoder):
    """The encoder of emotion2vec."""

    def __init__(self, config: Emotion2VecConfig, *, normalization: str = "layer") -> None:
        super().__init__(_Data2Vec(config), normalization=normalization)

    def _detach_features(self, backbone: nn.Module) -> None:
        """The convolutions stay in the backbone, under their published names."""

    def parts(self) -> EncoderParts:
        """The modules of the encoder; the blocks of the prenet are the first layers."""
        front: _AudioFront = self.backbone.modality_encoders["AUDIO"]  # type: ignore[index, assignment]
        prenet = front.context_encoder
        return EncoderParts(
            [front.local_encoder],
            [front.project_features, front.relative_positional_encoder, prenet.norm],
            [*prenet.blocks, *self.backbone.blocks],  # type: ignore[misc]
        )

    def keep_layers(self, num_layers: int) -> None:
        """Drop all blocks after the first `num_layers`, counting those of the prenet.

        Raises:
            ValueError: If the encoder has fewer, or no block would be left after the prenet.
        """
        config: Emotion2VecConfig = self.config
        if not config.prenet_depth < num_layers <= config.num_hidden_layers:
            raise ValueError(
                f"num_layers is {num_layers}, allowed are {config.prenet_depth + 1} to "
                f"{config.num_hidden_layers}"
            )
        depth = num_layers - config.prenet_depth
        blocks: nn.ModuleList = self.backbone.blocks  # type: ignore[assignment]
        self.backbone.blocks = blocks[:depth]
        self.config = replace(config, depth=depth)
        self.backbone.config = self.config

    def extract_features(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Convolutional features of normalised samples, (B, T) -> (B, D, L)."""
        features: Tensor = self.backbone.modality_encoders.AUDIO.local_encoder(samples)  # type: ignore[union-attr, operator]
        return features

    def contextualize(
        self, features: Tensor, lengths: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of convolutional features (B, D, L) of recordings with `lengths` samples."""
        num_frames = None if lengths is None else self.count_frames(lengths)
        valid = None if num_frames is None else frame_mask(num_frames, features.shape[2])
        hidden_states = self.backbone(features, valid)
        return EncodedFrames(hidden_states[-1], num_frames, hidden_states if all_layers else ())


class _Data2Vec(nn.Module):
    """The whole network; `modality_encoders.AUDIO` is the part up to the blocks."""

    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.config = config
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioFront(config)})
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))

    def forward(self, features: Tensor, valid: Tensor | None) -> tuple[Tensor, ...]:
        """Input of the first block and output of every block, without the extra tokens."""
        front: _AudioFront = self.modality_encoders["AUDIO"]  # type: ignore[assignment]
        hidden = front.embed(features, valid)
        bias = front.attention_bias(hidden.shape[1], valid)
        hidden = front.context_encoder.norm(hidden)
        states = [hidden]
        for block in (*front.context_encoder.blocks, *self.blocks):
            hidden = block(hidden, bias)
            states.append(hidden)
        return tuple(state[:, self.config.num_extra_tokens :] for state in states)


class _AudioFront(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.config = config
        size, kernel = config.hidden_size, config.position_kernel
        self.local_encoder = _Convolutions(config)
        self.project_features = nn.Sequential(
            nn.Identity(), nn.LayerNorm(config.conv_dim), nn.Linear(config.conv_dim, size)
        )
        # Numbered as published: entry 0 only transposes.
        self.relative_positional_encoder = nn.ModuleList(
            nn.ModuleList([nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=groups)])
            if index
            else nn.Identity()
            for index, groups in enumerate([config.position_groups] * (config.position_layers + 1))
        )
        self.extra_tokens = nn.Parameter(torch.zeros(1, config.num_extra_tokens, size))
        self.alibi_scale = nn.Parameter(torch.ones(1, 1, config.num_heads, 1, 1))
        self.context_encoder = _Prenet(config)

    def embed(self, features: Tensor, valid: Tensor | None) -> Tensor:
        """Projected features with position embeddings after the extra tokens, (B, N + L, D)."""
        frames = self.project_features(features.transpose(1, 2))  # (B, L, D)
        positions = frames
        for layer in list(self.relative_positional_encoder)[1:]:
            positions = _convolve(positions, layer[0], valid)  # type: ignore[index]
        tokens = self.extra_tokens.expand(frames.shape[0], -1, -1)
        return torch.cat([tokens, frames + positions], dim=1)

    def attention_bias(self, length: int, valid: Tensor | None) -> Tensor:
        """Bias of the attention scores, (1 or B, H, N + L, N + L)."""
        num_extra = self.config.num_extra_tokens
        positions = torch.arange(length - num_extra, device=self.alibi_scale.device)
        distance = (positions[None, :] - positions[:, None]).abs()
        slopes = torch.tensor(alibi_slopes(self.config.num_heads), device=distance.device)
        scale = self.alibi_scale.float().clamp(min=0.0).view(1, -1, 1, 1)
        bias = -slopes.view(1, -1, 1, 1) * distance * scale
        bias = functional.pad(bias, (num_extra, 0, num_extra, 0))
        if valid is not None:
            keys = functional.pad(valid, (num_extra, 0), value=True)
            bias = bias.masked_fill(~keys[:, None, None, :], float("-inf"))
        return bias.to(self.alibi_scale.dtype)


class _Prenet(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.prenet_depth))
        self.norm = nn.LayerNorm(config.hidden_size)


class _Convolutions(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        widths = [1] + [config.conv_dim] * len(config.conv_kernel)
        shapes = zip(widths, widths[1:], config.conv_kernel, config.conv_stride, strict=False)
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, after, kernel, stride=stride, bias=False),
                nn.Identity(),
                nn.Sequential(nn.Identity(), nn.LayerNorm(after)),
            )
            for before, after, kernel, stride in shapes
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Features (B, D, L) of samples (B, T)."""
        hidden = samples[:, None]
        for layer in self.conv_layers:
            convolution, _, norm = layer.children()
            normed = norm(convolution(hidden).transpose(1, 2)).transpose(1, 2)
            hidden = functional.gelu(normed)
        return hidden


class _Block(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.attn = _Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = _FeedForward(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """One block, (B, N + L, D) -> (B, N + L, D)."""
        hidden = self.norm1(hidden + self.attn(hidden, bias))
        normed: Tensor = self.norm2(hidden + self.mlp(hidden))
        return normed


class _Attention(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Attention with a bias, (B, N + L, D) -> (B, N + L, D)."""
        parts = self.qkv(hidden).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return attended


class _FeedForward(nn.Module):
    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_size)
        self.fc2 = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Linear, GELU, linear."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(hidden)))
        return out


def alibi_slopes(num_heads: int) -> list[float]:
    """Slopes of the decay of attention with distance, one per head (Press et al. 2021).

    Example:
        >>> alibi_slopes(2)
        [0.0625, 0.00390625]
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (index + 1) / power) for index in range(power)]
    if power == num_heads:
        return slopes
    return slopes + alibi_slopes(2 * power)[0::2][: num_heads - power]


def _convolve(frames: Tensor, convolution: nn.Conv1d, valid: Tensor | None) -> Tensor:
    """One convolution over the valid frames, layer norm without weights, and GELU."""
    if valid is not None:
        frames = frames.masked_fill(~valid[:, :, None], 0.0)
    hidden = convolution(frames.transpose(1, 2))[:, :, : frames.shape[1]].transpose(1, 2)
    return functional.gelu(functional.layer_norm(hidden, (convolution.out_channels,)))
