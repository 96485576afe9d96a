"""From a checkpoint to `model.onnx`: raw samples in, logits and embedding out.

One file, any number of recordings of any length. Written by torch's tracing exporter, which is
30 times as fast as the one that goes through `torch.export`, and leaves a graph of half the
nodes; what a trace could get wrong, the proof of parity finds. Needs torch and the package
`onnx`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from emoser._version import __version__
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.resolve import Checkpoint
from emoser.checkpoints.weights import hash_checkpoint
from emoser.errors import CheckpointError, missing_extra
from emoser.runtimes import Samples
from emoser.runtimes.conversion.graph import INPUT, InferenceGraph, build_graph
from emoser.runtimes.conversion.parity import prove_parity
from emoser.runtimes.manifest import FILES, Manifest, describe_source
from emoser.runtimes.onnx import CPU, OnnxRuntime, import_engine, open_session
from emoser.runtimes.opening import refuse_graph_alone

OPSET = 17  # the first with layer norm
MAX_BYTES = 2**31 - 2**24  # an ONNX file ends at 2 GiB
TRACED_SAMPLES = 24_000


def write_onnx(checkpoint: Checkpoint, folder: Path, *, clips: Sequence[Samples] = ()) -> Manifest:
    """Write the graph of a checkpoint and its manifest, with its numbers proven equal.

    Args:
        checkpoint: Where the weights are.
        folder: An empty folder.
        clips: Recordings to compare on, beside synthetic voices.

    Raises:
        CheckpointError: If the checkpoint does not load, is too large for one ONNX file, cannot
            be expressed in ONNX, or if the graph gives other numbers.
        DependencyError: If `onnx` or `onnxruntime` is not installed.
    """
    refuse_graph_alone(checkpoint)
    engine = import_engine()
    loaded = load_checkpoint(checkpoint.folder)
    file = folder / FILES["onnx"]
    save_graph(build_graph(loaded.model), file, checkpoint.name)
    runtime = OnnxRuntime(open_session(file, [CPU]))
    parity = prove_parity(runtime, loaded.model, "ONNX Runtime", clips=clips)
    manifest = Manifest(
        format="onnx",
        dtype="float32",
        config=loaded.model.config,
        source=describe_source(checkpoint, loaded),
        weights=hash_checkpoint(checkpoint.folder),
        versions={
            "emoser": __version__,
            "torch": str(torch.__version__),
            "onnxruntime": str(engine.__version__),
            "opset": str(OPSET),
        },
        parity=parity.to_dict(),
    )
    manifest.write(folder)
    return manifest


def save_graph(graph: InferenceGraph, file: Path, subject: str) -> None:
    """Write a graph as one ONNX file.

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
    samples = torch.randn(2, TRACED_SAMPLES, generator=torch.Generator().manual_seed(0)) / 10
    axes = {name: {0: "recordings"} for name in (INPUT, *graph.outputs)}
    axes[INPUT][1] = "samples"
    if "frames" in axes:
        axes["frames"][1] = "frames"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trace warns of every branch that it takes
            torch.onnx.export(
                graph,
                (samples,),
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
        line = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"ONNX cannot express the model of {subject} ({line}); use OpenVINO, or backend='torch'"
        ) from error
