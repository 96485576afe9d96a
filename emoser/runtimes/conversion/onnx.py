"""Write a graph as `model.onnx`: raw samples in, logits and embedding out.

One file, for any number of recordings of any length. Uses torch's tracing exporter, which is 30
times as fast as the one based on `torch.export` and leaves half the nodes; errors of a trace are
found by the proof of parity. Needs torch and the package `onnx`.
"""

import warnings
from pathlib import Path

import torch

from emoser.errors import CheckpointError, missing_extra
from emoser.runtimes import onnx as engine
from emoser.runtimes.conversion.graph import INPUT, InferenceGraph, example_samples

OPSET = 17  # the first with layer norm
MAX_BYTES = 2**31 - 2**24  # an ONNX file ends at 2 GiB
GRAPH_OPTIONS = {"doubles": True}  # OpenVINO has none on a CPU


def save_graph(graph: InferenceGraph, file: Path, subject: str) -> dict[str, str]:
    """Write a graph as one ONNX file; the versions that the manifest states.

    Raises:
        CheckpointError: If it does not fit one file, or ONNX cannot express it.
        DependencyError: If `onnx` is not installed.
    """
    size = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{subject} has {size / 2**30:.1f} GiB of weights and an ONNX file holds 2 GiB; use "
            "OpenVINO, or backend='torch'"
        )
    axes = {name: {0: "recordings"} for name in (INPUT, *graph.outputs)}
    axes[INPUT][1] = "samples"
    if "frames" in axes:
        axes["frames"][1] = "frames"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trace warns of every branch that it takes
            torch.onnx.export(
                graph,
                (example_samples(),),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(graph.outputs),
                dynamic_axes=axes,
            )
    except torch.onnx.OnnxExporterError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise missing_extra("exporting to ONNX", "onnx") from error
        raise CheckpointError(
            f"ONNX cannot express the model of {subject} ({engine.first_line(error)}); use "
            "OpenVINO, or backend='torch'"
        ) from error
    return {"onnxruntime": str(engine.import_engine().__version__), "opset": str(OPSET)}
