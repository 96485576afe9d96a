"""Export the graphs of the bundled checkpoints again, after the exporter has changed.

    python examples/bundled/export_graph.py

Writes `model.onnx` and `emoser_runtime.json` beside the weights in the package if ONNX Runtime
gives the numbers of torch. Needs the extra `onnx`.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from emoser.checkpoints.files import GRAPH_MANIFEST, CheckpointFiles, as_files
from emoser.checkpoints.resolve import bundled_names, find_checkpoint
from emoser.export import export
from emoser.runtimes.manifest import FILES, read_manifest


def export_into(checkpoint: CheckpointFiles) -> dict[str, Any]:
    """Write graph and manifest into the folder of a checkpoint; returns the measured parity."""
    with tempfile.TemporaryDirectory() as place:
        clips = Path(__file__).parents[1] / "audio"
        done = export(checkpoint, Path(place) / "graph", calibrate=clips)
        manifest = read_manifest(as_files(done.folder))
        if manifest is None:
            raise FileNotFoundError(f"{done.folder} has no {GRAPH_MANIFEST}")
        halve_graph(done.folder / FILES["onnx"])
        manifest.write(done.folder)  # with the hash of the halved graph
        for name in (FILES["onnx"], GRAPH_MANIFEST):
            (checkpoint.folder / name).write_bytes((done.folder / name).read_bytes())
    return dict(done.parity)


def halve_graph(file: Path) -> None:
    """Store the weights of a graph in float16, where they are float16 numbers already.

    A cast to float32 follows each of them, which ONNX Runtime computes once when it opens the file.
    """
    graph = onnx.load(file)
    casts = []
    for stored in graph.graph.initializer:
        name, values = stored.name, numpy_helper.to_array(stored)
        halved = values.astype(np.float16)
        if values.dtype == np.float32 and np.array_equal(halved.astype(np.float32), values):
            stored.CopyFrom(numpy_helper.from_array(halved, f"{name}.float16"))
            casts.append(
                onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
            )
    for place, cast in enumerate(casts):
        graph.graph.node.insert(place, cast)
    onnx.checker.check_model(graph)
    onnx.save(graph, file)


def main() -> None:
    for name in bundled_names():
        checkpoint = find_checkpoint(name)
        print(f"{checkpoint.folder / FILES['onnx']}: {export_into(checkpoint)}")


if __name__ == "__main__":
    main()
