"""The OpenVINO engine: a graph on the CPU, several times as fast as torch.

Recordings are never padded, so that no output depends on the others. Several threads may share one
runtime. Imports neither torch nor transformers.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.errors import CheckpointError
from emoser.runtimes import EngineSettings, OpenedGraph, Samples
from emoser.runtimes.cache import find_entry
from emoser.runtimes.manifest import Manifest
from emoser.runtimes.onnx import GraphRuntime, count_threads, divide_cores, import_package
from emoser.runtimes.processor import identify_processor
from emoser.telemetry import without_openvino_telemetry

if TYPE_CHECKING:
    import torch

NAME = "OpenVINO"
FORMATS = ("onnx", "openvino")
"""Formats of graphs that this engine reads."""
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
SLOW_BFLOAT16 = (
    "this processor has no bfloat16 arithmetic, and emulating it is many times slower than "
    "float32; the model runs in float32"
)
WARM_SAMPLES = 16_000
COMPILED = "compiled.blob"
# OpenVINO compiles kernels for each new number of rows, in int8 a hundred, and keeps thousands.
CACHED_KERNELS = 128  # where that is each new length of recording
ROUNDED_KERNELS = 4096  # of graphs that round it: about 30 numbers of rows up to 30 s


class OpenVinoRuntime(GraphRuntime):
    """A graph that OpenVINO has compiled for this processor."""

    def __init__(
        self, compiled: Any, num_outputs: int, *, by_frame: bool = False, warm: bool = True
    ) -> None:
        """Take over a compiled graph.

        Args:
            compiled: The result of `compile_graph`.
            num_outputs: As in `GraphRuntime`.
            by_frame: Likewise.
            warm: Run a second of silence first. OpenVINO (2026.4) chooses how to compute
                attention at its first call, and if the first recording has a single frame,
                every longer one gets wrong numbers.
        """
        super().__init__(num_outputs, by_frame=by_frame)
        self.compiled = compiled
        self._idle: deque[Any] = deque()  # requests that no thread is using
        if warm:
            self.run(np.zeros(WARM_SAMPLES, np.float32))

    def run(self, samples: Samples) -> list[npt.NDArray[np.float32]]:
        """Copies of all outputs for one recording."""
        row = np.ascontiguousarray(samples, np.float32)[None]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            self._infer(request, row)
            return [np.array(output.data, np.float32) for output in request.output_tensors]
        finally:
            self._idle.append(request)

    def _infer(self, request: Any, row: npt.NDArray[np.float32]) -> None:
        try:
            request.infer({0: row}, share_inputs=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"OpenVINO cannot run the graph ({last_line(error)}); export the model again"
            ) from error


def check_options(device: "str | torch.device", dtype: str) -> None:
    """Refuse a device before anything is converted; the precision depends on the graph."""
    if str(device).split(":")[0] not in ("auto", "cpu"):
        raise ValueError(
            f"device is {str(device)!r} and backend 'openvino' runs on the 'cpu'; use "
            "backend='torch' for a GPU"
        )


def cache_parts() -> dict[str, str]:
    """The properties of a graph in the cache that do not depend on the checkpoint."""
    return {"format": "openvino", "dtype": "float32", "engine": import_engine().__version__}


def open_graph(file: Path, manifest: Manifest, settings: EngineSettings) -> OpenedGraph:
    """Load a graph file of OpenVINO or ONNX; "auto" is the precision of the graph."""
    precision = choose_precision(settings.dtype, manifest.dtype)
    notes: tuple[str, ...] = ()
    if precision == "bfloat16" and not has_bfloat16():
        precision, notes = "float32", (SLOW_BFLOAT16,)
    config = manifest.config

    def open_runtime(num_streams: int) -> OpenVinoRuntime:
        compiled = open_compiled(file, manifest, precision, num_streams=num_streams)
        return OpenVinoRuntime(
            compiled,
            len(config.outputs),
            by_frame=config.frame_seconds is not None,
            warm=not config.has_one_length,
        )

    runtime = open_runtime(settings.num_streams)
    runtime.check([_shape(output) for output in runtime.compiled.outputs], file)
    divide_cores(runtime, file, manifest, settings, open_runtime)
    return OpenedGraph(runtime, "cpu", precision, notes)


def choose_precision(dtype: str, stored: str) -> str:
    """The precision to run a graph in; "auto" is `stored`, that of the graph.

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
    """Whether this processor computes in bfloat16 (such as AVX512-BF16 or AMX)."""
    capabilities = import_engine().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def open_compiled(file: Path, manifest: Manifest, precision: str, *, num_streams: int) -> Any:
    """A graph file, compiled for this processor now or before: compiling takes seconds.

    What was compiled is kept in the cache under the content of the graph, wherever its file lies,
    unless the manifest has no hashes yet: such a graph is just being written.
    """
    settings = choose_settings(precision, num_streams, rounded=manifest.row_step > 1)
    if not manifest.hashes:
        return compile_graph(file, settings)
    key = {
        "hashes": dict(manifest.hashes),
        "engine": import_engine().__version__,
        "processor": identify_processor(),
        **settings,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    built: list[Any] = []

    def build(folder: Path) -> None:
        built.append(compile_graph(file, settings))
        exported = BytesIO()
        built[0].export_model(exported)
        (folder / COMPILED).write_bytes(exported.getbuffer())

    folder = find_entry("compiled", name, build)
    if built:
        return built[0]
    if isinstance(folder, Path):
        with suppress(RuntimeError):  # OpenVINO refuses what another build of it has compiled
            return import_compiled(folder / COMPILED, settings)
    return compile_graph(file, settings)


def import_compiled(file: Path, settings: Mapping[str, str | int]) -> Any:
    """A graph that OpenVINO has compiled, mapped into memory."""
    openvino = import_engine()
    content = openvino.Tensor(np.memmap(file, mode="c"), shared_memory=True)
    compiled = openvino.Core().import_model(content, "CPU", dict(settings))
    compiled.content = content  # its weights lie in this memory
    return compiled


def choose_settings(
    precision: str, num_streams: int, *, rounded: bool = False
) -> dict[str, str | int]:
    """How OpenVINO runs a graph.

    The floating-point parts of an int8 graph run in bfloat16 if the processor supports it.
    """
    if precision == "int8" and has_bfloat16():
        precision = "bfloat16"
    settings: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS.get(precision, "f32"),
        "INFERENCE_NUM_THREADS": count_threads(),
        "CPU_RUNTIME_CACHE_CAPACITY": ROUNDED_KERNELS if rounded else CACHED_KERNELS,
    }
    if num_streams == 1:
        settings["PERFORMANCE_HINT"] = "LATENCY"
    else:
        settings["NUM_STREAMS"] = num_streams
    return settings


def compile_graph(file: Path, settings: Mapping[str, str | int]) -> Any:
    """A graph file, compiled for this processor."""
    openvino = import_engine()
    core = openvino.Core()
    try:
        return core.compile_model(file, "CPU", dict(settings))
    except RuntimeError as error:
        raise CheckpointError(
            f"OpenVINO {openvino.__version__} cannot read {file} ({last_line(error)}); export the "
            "model again"
        ) from error


def _shape(output: Any) -> list[int | None]:
    """The sizes of an output; None for those that depend on the recording."""
    return [size.get_length() if size.is_static else None for size in output.partial_shape]


def last_line(error: Exception) -> str:
    """The last line of an error's message, which is the reason in OpenVINO."""
    return str(error).strip().split("\n")[-1]


def import_engine() -> Any:
    """The package `openvino`, imported so that it sends no usage statistics.

    By default its import sends an event unless the user has opted out; without the package that
    sends it, OpenVINO works and sends nothing.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CACHED_KERNELS))
    with without_openvino_telemetry():
        return import_package("openvino", extra="openvino")
