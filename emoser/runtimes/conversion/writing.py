"""From a checkpoint to a graph file with its manifest, with numbers proven equal to torch's."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from emoser._version import __version__
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.runtimes import EngineSettings, Samples
from emoser.runtimes.conversion.graph import build_graph
from emoser.runtimes.conversion.parity import prove_parity
from emoser.runtimes.manifest import FILES, Manifest, describe_source


def write_graph(
    files: CheckpointFiles,
    folder: Path,
    *,
    to: str,
    clips: Sequence[Samples] = (),
    looped: bool = True,
) -> Manifest:
    """Write the float32 graph of a checkpoint and its manifest.

    Args:
        files: The files of the checkpoint.
        folder: An empty folder.
        to: "onnx" or "openvino".
        clips: Recordings to compare the numbers on, in addition to synthetic voices.
        looped: Whether OpenVINO may run wide convolutions in a loop, which int8 quantisation
            does not reach into.

    Raises:
        CheckpointError: If the checkpoint does not load, the format cannot express it, or the
            engine gives other numbers.
        DependencyError: If a package of the format is not installed.
    """
    writer = import_module(f"emoser.runtimes.conversion.{to}")
    writer.engine.import_engine()
    loaded = load_checkpoint(files)
    file = folder / FILES[to]
    settings = {"looped": looped} if to == "openvino" else {}
    graph = build_graph(loaded.model, **writer.GRAPH_OPTIONS)
    versions = writer.save_graph(graph, file, files.name, **settings)
    manifest = Manifest(
        format=to,
        dtype="float32",
        config=loaded.model.config,
        source=describe_source(files, loaded),
        weights=files.content_hash,
        versions={"emoser": __version__, "torch": str(torch.__version__), **versions},
        row_step=graph.row_step,
    )
    opened = writer.engine.open_graph(file, manifest, EngineSettings("cpu", "float32"))
    parity = prove_parity(opened.runtime, loaded.model, writer.engine.NAME, clips=clips)
    manifest = replace(manifest, parity=parity)
    manifest.write(folder)
    return manifest
