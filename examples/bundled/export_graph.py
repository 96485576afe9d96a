"""Export the graph of the bundled checkpoint again after its weights have changed.

    python examples/bundled/export_graph.py

Writes `model.onnx` and `emoser_runtime.json` beside the weights in the package if ONNX Runtime
gives the numbers of torch. Needs the extra `onnx`.
"""

import tempfile
from pathlib import Path

from emoser.checkpoints.files import GRAPH_MANIFEST
from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.export import export
from emoser.runtimes.manifest import FILES


def main() -> None:
    checkpoint = find_checkpoint(DEFAULT_MODEL)
    with tempfile.TemporaryDirectory() as place:
        clips = Path(__file__).parents[1] / "audio"
        done = export(checkpoint, Path(place) / "graph", calibrate=clips)
        for name in (FILES["onnx"], GRAPH_MANIFEST):
            (checkpoint.folder / name).write_bytes((done.folder / name).read_bytes())
    print(f"{checkpoint.folder / FILES['onnx']}: {done.parity}")


if __name__ == "__main__":
    main()
