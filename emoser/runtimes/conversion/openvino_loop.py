"""The convolutions of a wide encoder as a loop over segments of a recording, for OpenVINO.

The memory between the convolutions is then that of one segment, however long the recording is,
and stays in the processor's cache; OpenVINO compiles segments of a few sizes only. The loop is
assembled from three traces: the steps before the convolutions, one segment, and the steps after.
The first of them has a loop of its own, for the group norm of the whole recording.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.encoder import SpeechEncoder
from emoser.runtimes.conversion.graph import (
    GraphConvolutions,
    InferenceGraph,
    lengthen,
    pass_layers,
)
from emoser.runtimes.openvino import import_engine
from emoser.runtimes.torch.convolutions import measure_layers

SEGMENT_FRAMES = 128  # at most, 2.6 s; 17 MB in the first layer
SIZE_STEP = 4  # sizes of segments are multiples of it, so that there are few
TRACED_FRAMES = 20
NORM_STEP = 4096  # outputs of the first convolution in a step of its group norm, 8 MB

Convert = Callable[[nn.Module, tuple[Tensor, ...]], Any]


class Front(nn.Module):
    """The input of the convolutions from samples (B, T), and the group norm of these samples."""

    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.encoder = graph.model.encoder

    def forward(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Normalised samples (B, T') and, with a group norm, its scale and shift, (B, 1, D)."""
        encoder = self.encoder
        convolutions = cast(GraphConvolutions, encoder.feature_extractor)
        lengthened = lengthen(samples, encoder.min_samples)
        normalized = encoder.normalize(lengthened, None).to(encoder.dtype)
        affine = convolutions.measure_group_norm(normalized, _add_squares)
        return (normalized,) if affine is None else (normalized, *affine)


def _add_squares(centred: Tensor, weight: Tensor) -> Tensor:
    """Sums over the frames (B, L, K) of the squares of their products with a weight, (B, D)."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    measure = torch.jit.script(_measure_norms) if tracing else _measure_norms
    norms: Tensor = measure(centred, weight, NORM_STEP)
    return norms.square()


def _measure_norms(centred: Tensor, weight: Tensor, step: int) -> Tensor:
    """The roots of these sums, from the products of `step` frames at a time.

    A step gives norms, and adds no squares: OpenVINO (2026.4) gets such sums wrong in bfloat16.
    """
    norms = []
    for begin in range(0, centred.shape[1], step):
        part = functional.linear(centred[:, begin : begin + step], weight)
        norms.append(torch.linalg.vector_norm(part, dim=1, keepdim=True))
    total: Tensor = torch.linalg.vector_norm(torch.cat(norms, dim=1), dim=1)
    return total


class Segment(nn.Module):
    """One segment of a recording through all convolutions."""

    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.convolutions = cast(GraphConvolutions, graph.model.encoder.feature_extractor)

    def forward(
        self, samples: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Features (1, B, L, D) of samples (B, T)."""
        affine = None if scale is None or shift is None else (scale, shift)
        return pass_layers(samples[..., None], self.convolutions.layers, affine)[None]


class Back(nn.Module):
    """Features (B, L, D) to the outputs of the graph."""

    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.whole = graph

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits, embedding and, for a model that classifies frames, probabilities."""
        model = self.whole.model
        layered = model.layer_weights is not None
        frames = features.transpose(1, 2)
        encoded = model.encoder.contextualize(frames, None, all_layers=layered)
        return self.whole.finish(encoded)


def fits_loop(graph: InferenceGraph) -> bool:
    """Whether a graph has wide convolutions of wav2vec 2.0 and a plain encoder around them."""
    encoder = graph.model.encoder
    convolutions = getattr(encoder, "feature_extractor", None)
    if not isinstance(convolutions, GraphConvolutions) or convolutions.num_parts == 1:
        return False
    plain = ("forward", "extract_features")
    return all(getattr(type(encoder), name) is getattr(SpeechEncoder, name) for name in plain)


def join_loop(graph: InferenceGraph, convert: Convert, example: Tensor) -> Any:
    """A graph for which `fits_loop` is true as a model of OpenVINO, its convolutions in a loop."""
    layers = cast(GraphConvolutions, graph.model.encoder.feature_extractor).layers
    _, stride, field = measure_layers(layers, example.shape[1])
    front_module = Front(graph)
    with torch.inference_mode():
        normalized, *affine = front_module(example)
        part = normalized[:, : (TRACED_FRAMES - 1) * stride + field]
        features = Segment(graph)(part, *affine)[0]
    front = convert(front_module, (example,))
    body = _write_body(convert(Segment(graph), (part, *affine)), stride=stride, field=field)
    back = convert(Back(graph), (features,))
    front.reshape({0: [-1, -1]})
    back.reshape({0: [-1, -1, features.shape[-1]]})
    values = [output.get_node().input_value(0) for output in front.outputs]
    looped = _write_loop(values, body, stride=stride, field=field)
    _replace(back.inputs[0], looped)
    openvino = import_engine()
    joined = openvino.Model(back.get_results(), front.get_parameters(), "emoser")
    joined.validate_nodes_and_infer_types()
    return joined


def _write_body(segment: Any, *, stride: int, field: int) -> Any:
    """The body of the loop.

    Inputs: step, frames in a segment, samples and group norm. Outputs: whether to continue, and
    features.
    """
    op = import_engine().opset13
    step, size = (op.parameter([], np.int64, name) for name in ("step", "size"))
    samples = op.parameter([-1, -1], np.float32, "samples")
    norms = [op.parameter([-1, 1, -1], np.float32) for _ in segment.inputs[1:]]
    begin = op.multiply(op.multiply(step, size), _number(stride))
    length = op.add(op.multiply(op.subtract(size, _number(1)), _number(stride)), _number(field))
    ends = [op.unsqueeze(value, _number(0)) for value in (begin, op.add(begin, length))]
    part = op.slice(samples, *ends, _numbers(1), _numbers(1))
    segment.reshape({0: [-1, -1]} | {place: [-1, 1, -1] for place in range(1, len(norms) + 1)})
    for entry, value in zip(segment.inputs, (part, *norms), strict=True):
        _replace(entry, value.output(0))
    features = segment.outputs[0].get_node().input_value(0)
    results = [op.result(op.constant(np.array(True))), op.result(features)]
    return import_engine().Model(results, [step, size, samples, *norms], "segment")


def _write_loop(values: list[Any], body: Any, *, stride: int, field: int) -> Any:
    """Features (B, L, D) of the outputs of `Front`."""
    op = import_engine().opset13
    normalized, *norms = values
    length = op.gather(op.shape_of(normalized), _number(1), _number(0))
    frames = op.add(op.divide(op.subtract(length, _number(field)), _number(stride)), _number(1))
    steps = _divide_up(op, frames, SEGMENT_FRAMES)
    even = op.divide(op.subtract(op.add(frames, steps), _number(1)), steps)  # rounded up
    size = op.multiply(_divide_up(op, even, SIZE_STEP), _number(SIZE_STEP))
    needed = op.add(op.multiply(op.multiply(steps, size), _number(stride)), _number(field - stride))
    missing = op.maximum(op.subtract(needed, length), _number(0))
    behind = op.concat([_numbers(0), op.unsqueeze(missing, _number(0))], 0)
    padded = op.pad(normalized, _numbers(0, 0), behind, "constant", op.constant(np.float32(0)))
    loop = op.loop(steps, op.constant(np.array(True)))
    loop.set_function(body)
    loop.set_special_body_ports([0, 0])
    parameters = body.get_parameters()[1:]
    for parameter, value in zip(
        parameters, (size.output(0), padded.output(0), *norms), strict=True
    ):
        loop.set_invariant_input(parameter, value)
    parts = loop.get_concatenated_slices(body.results[1].output(0), 0, 1, 1, -1, 0)
    transposed = op.transpose(parts, _numbers(1, 0, 2, 3))  # (B, N, L / N, D)
    width = op.gather(op.shape_of(transposed), _numbers(3), _number(0))
    rows = op.gather(op.shape_of(transposed), _numbers(0), _number(0))
    features = op.reshape(transposed, op.concat([rows, _numbers(-1), width], 0), special_zero=False)
    ends = op.unsqueeze(frames, _number(0))
    return op.slice(features, _numbers(0), ends, _numbers(1), _numbers(1)).output(0)


def _divide_up(op: Any, value: Any, by: int) -> Any:
    return op.divide(op.add(value, _number(by - 1)), _number(by))


def _number(value: int) -> Any:
    return import_engine().opset13.constant(np.array(value, np.int64))


def _numbers(*values: int) -> Any:
    return import_engine().opset13.constant(np.array(values, np.int64))


def _replace(entry: Any, value: Any) -> None:
    """Connect all readers of a model's input to another value."""
    for target in list(entry.get_target_inputs()):
        target.replace_source_output(value)
