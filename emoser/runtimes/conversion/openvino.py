"""From a checkpoint to `openvino_model.xml`: raw samples in, logits and embedding out.

One graph for any number of recordings of any length, traced as for ONNX, and with its numbers
proven equal. Needs torch and OpenVINO, and no package of ONNX's.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoser._version import __version__
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.resolve import Checkpoint
from emoser.checkpoints.weights import hash_checkpoint
from emoser.errors import CheckpointError
from emoser.runtimes import Samples
from emoser.runtimes.conversion.graph import INPUT, InferenceGraph, build_graph
from emoser.runtimes.conversion.openvino_loop import fits_loop, join_loop
from emoser.runtimes.conversion.parity import prove_parity
from emoser.runtimes.manifest import FILES, Manifest, describe_source
from emoser.runtimes.opening import refuse_graph_alone
from emoser.runtimes.openvino import OpenVinoRuntime, compile_graph, import_openvino

TRACED_SAMPLES = 24_000


def write_openvino(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    clips: Sequence[Samples] = (),
    looped: bool = True,
) -> Manifest:
    """Write the float32 graph of a checkpoint and its manifest, with its numbers proven equal.

    Args:
        checkpoint: Where the weights are.
        folder: An empty folder.
        clips: Recordings to compare on, beside synthetic voices.
        looped: Whether wide convolutions may run in a loop, into which quantising does not reach.

    Raises:
        CheckpointError: If the checkpoint does not load, cannot be expressed in OpenVINO, or if
            the graph gives other numbers.
        DependencyError: If OpenVINO does not load.
    """
    refuse_graph_alone(checkpoint)
    openvino = import_openvino()
    loaded = load_checkpoint(checkpoint.folder)
    file = folder / FILES["openvino"]
    converted = convert_graph(build_graph(loaded.model), checkpoint.name, looped=looped)
    openvino.save_model(converted, file, compress_to_fp16=False)
    del converted
    runtime = OpenVinoRuntime(compile_graph(file, "float32"))
    parity = prove_parity(runtime, loaded.model, "OpenVINO", clips=clips)
    manifest = Manifest(
        format="openvino",
        dtype="float32",
        config=loaded.model.config,
        source=describe_source(checkpoint, loaded),
        weights=hash_checkpoint(checkpoint.folder),
        versions={
            "emoser": __version__,
            "torch": str(torch.__version__),
            "openvino": str(openvino.__version__),
        },
        parity=parity.to_dict(),
    )
    manifest.write(folder)
    return manifest


def convert_graph(graph: InferenceGraph, subject: str, *, looped: bool = True) -> Any:
    """A graph as a model of OpenVINO's.

    Args:
        graph: The graph.
        subject: What the message calls the model.
        looped: As in `write_openvino`.

    Raises:
        CheckpointError: If OpenVINO cannot express it.
    """
    openvino = import_openvino()
    faults = (RuntimeError, openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure)
    example = torch.randn(2, TRACED_SAMPLES, generator=torch.Generator().manual_seed(0)) / 10
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
    """A module as a model of OpenVINO's, by a trace."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # a trace warns of every branch that it takes
        traced = torch.jit.trace(module, examples, check_trace=False)  # type: ignore[no-untyped-call]
        return import_openvino().convert_model(traced, example_input=examples)
