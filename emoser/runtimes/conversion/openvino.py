"""Write a graph as `openvino_model.xml`: raw samples in, logits and embedding out.

One graph for any number of recordings of any length, traced as for ONNX. Needs torch and
OpenVINO, but not the package `onnx`.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoser.errors import CheckpointError
from emoser.runtimes import openvino as engine
from emoser.runtimes.conversion.graph import INPUT, InferenceGraph, example_samples
from emoser.runtimes.conversion.openvino_loop import fits_loop, join_loop

GRAPH_OPTIONS = {"row_step": 32}  # OpenVINO compiles code for each new number of rows


def save_graph(
    graph: InferenceGraph, file: Path, subject: str, *, looped: bool = True
) -> dict[str, str]:
    """Write a graph as a file of OpenVINO, in float32; the versions that the manifest states.

    Raises:
        CheckpointError: If OpenVINO cannot express it.
        DependencyError: If OpenVINO does not load.
    """
    openvino = engine.import_engine()
    converted = convert_graph(graph, subject, looped=looped)
    openvino.save_model(converted, file, compress_to_fp16=False)
    return {"openvino": str(openvino.__version__)}


def convert_graph(graph: InferenceGraph, subject: str, *, looped: bool = True) -> Any:
    """A graph as a model of OpenVINO.

    Wide convolutions run in a loop if `looped`, which quantisation does not reach into.

    Raises:
        CheckpointError: If OpenVINO cannot express it.
    """
    openvino = engine.import_engine()
    faults = (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure)
    example = example_samples()
    try:
        if looped and fits_loop(graph):
            converted = join_loop(graph, _convert, example)
        else:
            converted = _convert(graph, (example,))
    except faults as error:
        line = str(error).strip().split("\n")[-1]
        raise CheckpointError(
            f"OpenVINO cannot express the model of {subject} ({line}); use backend='torch'"
        ) from error
    converted.reshape({0: [-1, -1]})
    converted.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(converted.outputs, graph.outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def _convert(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """Trace a module and convert it to a model of OpenVINO."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # a trace warns of every branch that it takes
        # The converter imports `nncf.torch` where it is installed, which logs that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        traced = torch.jit.trace(module, examples, check_trace=False)  # type: ignore[no-untyped-call]
        return engine.import_engine().convert_model(traced, example_input=examples)
