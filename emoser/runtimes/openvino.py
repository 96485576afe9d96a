"""The OpenVINO engine: a graph on the processor, several times as fast as torch there.

A checkpoint is converted once and kept in the user's cache; one that has a graph beside it, or
in the cache, needs neither torch nor transformers. One recording at a time, never padded, so
that every answer belongs to its recording. Several threads may share one runtime.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.errors import CheckpointError, DependencyError
from emoser.models.config import ModelInfo
from emoser.runtimes import Answer, OpenedModel, Samples
from emoser.runtimes.cache import make_key, open_entry
from emoser.runtimes.manifest import Manifest, read_graph
from emoser.runtimes.onnx import count_threads

if TYPE_CHECKING:
    import torch

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
TELEMETRY = "openvino_telemetry"
SLOW_BFLOAT16 = (
    "this processor has no bfloat16 arithmetic, and imitating it is many times slower than "
    "float32, in which the model runs"
)
WARM_SAMPLES = 16_000
ONE_LENGTH = frozenset({"whisper"})  # encoders whose frames are always equally many


class OpenVinoRuntime:
    """A graph that OpenVINO has compiled for this processor."""

    batch_seconds: float | None = None
    group_size = 1

    def __init__(self, compiled: Any, *, warm: bool = True) -> None:
        """Take over a compiled graph.

        Args:
            compiled: What `compile_graph` gave.
            warm: Hear a moment of silence first. OpenVINO (2026.4) chooses how to compute
                attention at its first call, and after a first recording of a single frame
                every longer one gets wrong numbers.
        """
        self.compiled = compiled
        self.by_frame = len(compiled.outputs) > 2
        self._idle: deque[Any] = deque()  # requests that no thread uses now
        if warm:
            self._run(np.zeros(WARM_SAMPLES, np.float32))

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Logits and embeddings of recordings, one after another."""
        rows = [self._run(samples) for samples in recordings]
        return Answer(
            np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
        )

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them.

        Raises:
            ValueError: If the model does not classify frames.
        """
        if not self.by_frame:
            raise ValueError("this model pools its frames and has no answer for single ones")
        frames: npt.NDArray[np.float32] = self._run(samples)[2][0]
        return frames

    def _run(self, samples: Samples) -> list[npt.NDArray[np.float32]]:
        """Copies of all outputs for one recording."""
        row = np.ascontiguousarray(samples, np.float32)[None]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            request.infer({0: row}, share_inputs=True)
            return [np.array(output.data, np.float32) for output in request.output_tensors]
        finally:
            self._idle.append(request)


def open_openvino(
    checkpoint: CheckpointFiles, *, device: "str | torch.device" = "auto", dtype: str = "auto"
) -> OpenedModel:
    """Load a checkpoint into OpenVINO, converting it where it was not converted before.

    Raises:
        CheckpointError: If the checkpoint does not fit, or its graph gives other numbers.
        DependencyError: If OpenVINO does not load.
        ValueError: If the device or the precision is none that this engine has.
    """
    if str(device).split(":")[0] not in ("auto", "cpu"):
        raise ValueError(
            f"device is {str(device)!r} and backend 'openvino' runs on the 'cpu'; use "
            "backend='torch' for a GPU"
        )
    manifest = read_graph(checkpoint)
    if manifest is not None:
        return _open_graph(checkpoint, checkpoint.folder, manifest, dtype)
    parts = {"format": "openvino", "dtype": "float32", "engine": import_openvino().__version__}
    with open_entry(make_key(checkpoint, parts), _converter(checkpoint)) as entry:
        manifest = read_graph(as_files(entry.folder))
        if manifest is None:
            raise CheckpointError(f"{entry.folder} lost its manifest; delete it and try again")
        return _open_graph(checkpoint, entry.folder, manifest, dtype, notes=entry.notes)


def _converter(checkpoint: CheckpointFiles) -> Callable[[Path], None]:
    """What writes the graph of a checkpoint; it imports torch when it is called."""

    def build(folder: Path) -> None:
        from emoser.runtimes.conversion.openvino import write_openvino

        write_openvino(checkpoint, folder)

    return build


def _open_graph(
    checkpoint: CheckpointFiles,
    folder: Path,
    manifest: Manifest,
    dtype: str,
    *,
    notes: tuple[str, ...] = (),
) -> OpenedModel:
    precision = choose_precision(dtype, manifest.dtype)
    if precision == "bfloat16" and not has_bfloat16():
        precision, notes = "float32", (*notes, SLOW_BFLOAT16)
    compiled = compile_graph(folder / manifest.file, precision)
    info: ModelInfo = manifest.to_info(checkpoint, backend="openvino", device="cpu")
    info = replace(info, dtype=precision, notes=(*info.notes, *notes))
    runtime = OpenVinoRuntime(compiled, warm=manifest.config.encoder not in ONE_LENGTH)
    return OpenedModel(runtime, manifest.config, info)


def choose_precision(dtype: str, stored: str) -> str:
    """The precision of a name; "auto" is that of the graph.

    Raises:
        ValueError: If OpenVINO does not run the graph in this precision.

    Example:
        >>> choose_precision("auto", "int8"), choose_precision("bfloat16", "float32")
        ('int8', 'bfloat16')
    """
    if dtype in ("auto", stored):
        return stored
    if stored == "int8" or dtype not in PRECISIONS:
        allowed = ("int8",) if stored == "int8" else tuple(PRECISIONS)
        raise ValueError(
            f"dtype is {dtype!r} and backend 'openvino' runs this graph in {' or '.join(allowed)}"
        )
    return dtype


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 (AVX512-BF16, AMX and their like)."""
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def compile_graph(file: Path, precision: str) -> Any:
    """A graph file, compiled for this processor.

    What an int8 graph leaves in floating point runs in bfloat16 where the processor has it.

    Raises:
        CheckpointError: If OpenVINO cannot read it.
        DependencyError: If OpenVINO does not load.
    """
    openvino = import_openvino()
    core = openvino.Core()
    if precision == "int8" and has_bfloat16():
        precision = "bfloat16"
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS.get(precision, "f32"),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": count_threads(),
    }
    try:
        return core.compile_model(core.read_model(file), "CPU", settings)
    except RuntimeError as error:
        line = str(error).strip().split("\n")[-1]
        raise CheckpointError(
            f"{file} is no graph that OpenVINO {openvino.__version__} runs ({line}); export the "
            "model again"
        ) from error


def import_openvino() -> Any:
    """The package `openvino`, kept from sending usage statistics to its makers.

    As it comes, its mere import sends an event wherever the user has not opted out; without the
    package that sends it, OpenVINO works and sends none.

    Raises:
        DependencyError: If it does not load.
    """
    with without_telemetry():
        try:
            import openvino
        except ImportError as error:
            line = str(error).strip().split("\n")[0]
            raise DependencyError(
                f"openvino does not load here ({line}); install it with: pip install "
                '"emoser[openvino]"'
            ) from error
    return openvino


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Let what is imported in the block find no package that sends usage statistics."""
    if TELEMETRY in sys.modules:  # the caller's own choice
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
