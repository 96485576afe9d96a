"""A model as one graph for other engines: raw samples in, logits and embedding out.

Every row of a batch is equally long, so there are no lengths and no masks: exactness comes from
never padding. The normalisation of the input and the zeros behind a clip that is shorter than
the receptive field are part of the graph. Knows nothing of the engines that run it.
"""

import copy

import torch
from torch import Tensor, nn

from emoser.models.encoder import EncodedFrames
from emoser.models.model import EmotionModel
from emoser.runtimes.conversion.graph_features import replace_convolutions
from emoser.runtimes.torch.convolutions import fold_weight_norms

INPUT = "samples"
OUTPUTS = ("logits", "embedding", "frames")


class InferenceGraph(nn.Module):
    """A model for inference alone, with its weight norms folded.

    Attributes:
        outputs: Names of the outputs: "logits" and "embedding", and "frames" (the probabilities
            of every frame) of a model that classifies frames.
    """

    def __init__(self, model: EmotionModel) -> None:
        """Take a model over; `build_graph` makes the copy."""
        super().__init__()
        self.model = model
        self.by_frame = model.config.frame_seconds is not None
        self.outputs = OUTPUTS if self.by_frame else OUTPUTS[:2]

    def forward(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, C), embedding (B, D) and, by frames, probabilities (B, L, C).

        Args:
            samples: Mono waveforms at the model's rate, all valid to their end, (B, T), float32.
        """
        return self.finish(self.model.encode(lengthen(samples, self.model.encoder.min_samples)))

    def finish(self, encoded: EncodedFrames) -> tuple[Tensor, ...]:
        """What `forward` gives, from encoded frames."""
        output = self.model.classify(encoded)
        if not self.by_frame:
            return output.logits, output.embedding
        return output.logits, output.embedding, self.model.label_frames(encoded).softmax(dim=-1)


def build_graph(model: EmotionModel) -> InferenceGraph:
    """The graph of a model, on a copy: the model itself stays as it is.

    Example:
        >>> from emoser.checkpoints.resolve import find_checkpoint
        >>> from emoser.checkpoints.save import load_model
        >>> graph = build_graph(load_model(find_checkpoint().folder))
        >>> [tuple(output.shape) for output in graph(torch.zeros(2, 16_000))]
        [(2, 4), (2, 240)]
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    fold_weight_norms(copied)
    replace_convolutions(copied.encoder)
    return InferenceGraph(copied)


def lengthen(samples: Tensor, min_samples: int) -> Tensor:
    """Zeros at the end of recordings (B, T) that are shorter than `min_samples`.

    Written without a branch, so that one graph serves every length.

    Example:
        >>> lengthen(torch.ones(1, 2), 3), lengthen(torch.ones(1, 4), 3)
        (tensor([[1., 1., 0.]]), tensor([[1., 1., 1., 1.]]))
    """
    given = samples.shape[1]
    length = (given + min_samples + abs(given - min_samples)) // 2  # the larger of the two
    zeros = samples.new_zeros(samples.shape[0], min_samples)
    return torch.cat([samples, zeros], dim=1)[:, :length]
