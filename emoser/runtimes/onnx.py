"""The ONNX Runtime engine: a graph in `model.onnx`, on the CPU or on CUDA.

Recordings are never padded, so that no output depends on the others. Imports neither torch nor
transformers.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.errors import CheckpointError, DependencyError, DeviceError
from emoser.runtimes import EngineSettings, InferenceOutput, OpenedGraph, Samples
from emoser.runtimes.manifest import Manifest, check_graph
from emoser.runtimes.parallel import (
    GROUP_ROUNDS,
    LONG_SAMPLES,
    WorkerThreads,
    run_in_parallel,
)

if TYPE_CHECKING:
    import torch

NAME = "ONNX Runtime"
FORMATS = ("onnx",)
"""Formats of graphs that this engine reads."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
ERRORS_ONLY = 3  # log severity
PROBE_SAMPLES = 16_000
GROUPED_SAMPLES = 300 * 16_000  # in groups, after which a graph is opened a second time
LARGEST_TWICE = 2**29  # bytes of a graph; a larger one is opened only once
FAULTS = (
    "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented",
    "RuntimeException",
)  # fmt: skip


class GraphRuntime(ABC):
    """A graph with the outputs logits, embedding and, from a model that has them, frames.

    On a CPU it is opened a second time, with one core for each recording, once the short recordings
    that came in groups have `GROUPED_SAMPLES` together.
    """

    batch_seconds: float | None = None
    group_size = 1

    def __init__(self, num_outputs: int, *, by_frame: bool) -> None:
        """Remember what the graph must give.

        Args:
            num_outputs: Logits of a recording: its labels and dimensions.
            by_frame: Whether there are probabilities of single frames.
        """
        self.num_outputs = num_outputs
        self.by_frame = by_frame
        self._workers = WorkerThreads(1)
        self._open_divided: Callable[[], GraphRuntime] | None = None
        self._divided: GraphRuntime | None = None
        self._grouped = 0  # samples of short recordings that came in groups
        self._lock = threading.Lock()

    def divide(self, num_threads: int, open_divided: "Callable[[], GraphRuntime]") -> None:
        """Take several recordings in one call of `infer`, for so many threads.

        Args:
            num_threads: How many run at once.
            open_divided: Opens the same graph with one core for each of them.
        """
        self.group_size = GROUP_ROUNDS * num_threads
        self._workers, self._open_divided = WorkerThreads(num_threads), open_divided

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of recordings, one after another or in parallel.

        Raises:
            CheckpointError: If the graph fails, or gives other outputs than its labels need.
        """
        divided = self._find_divided(recordings)
        if divided is None:
            rows = [self._run_checked(samples) for samples in recordings]
        else:
            rows = run_in_parallel(
                recordings,
                self._workers,
                on_one_core=lambda pack: [divided._run_checked(samples) for samples in pack],
                on_all_cores=self._run_checked,
            )
        logits, embeddings, *_ = zip(*rows, strict=True)
        return InferenceOutput(np.concatenate(logits), np.concatenate(embeddings))

    def _find_divided(self, recordings: Sequence[Samples]) -> "GraphRuntime | None":
        """The graph with one core for each recording, opened when enough came in groups."""
        if self._open_divided is None or len(recordings) == 1:
            return None
        with self._lock:
            lengths = map(len, recordings)
            self._grouped += sum(length for length in lengths if length < LONG_SAMPLES)
            if self._divided is None and self._grouped >= GROUPED_SAMPLES:
                try:
                    self._divided = self._open_divided()
                except (CheckpointError, OSError):  # its file is another one now, or gone
                    self._open_divided = None
            return self._divided

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them."""
        if not self.by_frame:
            raise ValueError("this model pools its frames and has no outputs for single frames")
        frames: npt.NDArray[np.float32] = self._run_checked(samples)[2][0]
        return frames

    def check(self, shapes: Sequence[Sequence[object]], file: Path) -> None:
        """Compare the outputs that a graph declares with those that its labels need.

        Args:
            shapes: Of every output; what is not a number is open, and found by running a second
                of silence.
            file: The file that error messages name.

        Raises:
            CheckpointError: If they differ.
        """
        if any(not isinstance(size, int) for shape in shapes for size in list(shape)[-1:]):
            shapes = [value.shape for value in self.run(np.zeros(PROBE_SAMPLES, np.float32))]
        fault = self._find_fault(shapes)
        if fault is not None:
            raise CheckpointError(f"{file} {fault}; export the model again")

    def _run_checked(self, samples: Samples) -> list[npt.NDArray[np.float32]]:
        outputs = self.run(samples)
        fault = self._find_fault([value.shape for value in outputs])
        if fault is not None:
            raise CheckpointError(f"the graph {fault}; export the model again")
        return outputs

    def _find_fault(self, shapes: Sequence[Sequence[object]]) -> str | None:
        """How the outputs differ from logits (1, C), embedding (1, D) and frames (1, L, C)."""
        ranks = (2, 2, 3) if self.by_frame else (2, 2)
        if tuple(map(len, shapes)) != ranks:
            return f"gives outputs of {list(map(len, shapes))} axes, and {list(ranks)} are needed"
        widths = {shape[-1] for shape in (shapes[0], *shapes[2:])}
        if widths != {self.num_outputs}:
            found = ", ".join(map(str, widths))
            return f"gives {found} logits, and its manifest names {self.num_outputs} labels"
        return None

    @abstractmethod
    def run(self, samples: Samples) -> list[npt.NDArray[np.float32]]:
        """All outputs for one recording."""


class OnnxRuntime(GraphRuntime):
    """A graph in a session of ONNX Runtime."""

    def __init__(self, session: Any, num_outputs: int, *, by_frame: bool = False) -> None:
        super().__init__(num_outputs, by_frame=by_frame)
        self.session = session

    def run(self, samples: Samples) -> list[npt.NDArray[np.float32]]:
        """All outputs for one recording."""
        row = np.ascontiguousarray(samples, np.float32)[None]
        try:
            values: list[npt.NDArray[np.float32]] = self.session.run(None, {"samples": row})
        except _faults() as error:
            raise CheckpointError(
                f"ONNX Runtime cannot run the graph ({first_line(error)}); export the model again"
            ) from error
        return values


def check_options(device: "str | torch.device", dtype: str) -> None:
    """Refuse a device or precision before anything is converted."""
    if dtype not in ("auto", "float32"):
        raise ValueError(
            f"dtype is {dtype!r} and backend 'onnx' computes in float32; use dtype='float32', or "
            "another backend"
        )
    choose_providers(device)


def cache_parts() -> dict[str, str]:
    """The properties of a graph in the cache that do not depend on the checkpoint."""
    return {"format": "onnx", "dtype": "float32"}


def open_graph(file: Path, manifest: Manifest, settings: EngineSettings) -> OpenedGraph:
    """Load a graph file on a device, both as checked before, in the precision of the graph."""
    providers = choose_providers(settings.device)
    config = manifest.config

    def open_runtime(num_streams: int) -> OnnxRuntime:
        session = open_session(file, providers, num_streams=num_streams)
        by_frame = config.frame_seconds is not None
        return OnnxRuntime(session, len(config.outputs), by_frame=by_frame)

    runtime = open_runtime(settings.num_streams)
    runtime.check([output.shape for output in runtime.session.get_outputs()], file)
    kind = "cuda" if CUDA in runtime.session.get_providers() else "cpu"
    if kind == "cpu":
        divide_cores(runtime, file, manifest, settings, open_runtime)
    return OpenedGraph(runtime, kind, manifest.dtype)


def divide_cores(
    runtime: GraphRuntime,
    file: Path,
    manifest: Manifest,
    settings: EngineSettings,
    open_runtime: Callable[[int], GraphRuntime],
) -> None:
    """Let a runtime on the CPU run recordings in parallel where it has the cores and the memory.

    Args:
        runtime: The opened graph, with all cores for one recording.
        file: Its file.
        manifest: Of this file.
        settings: With which it was opened.
        open_runtime: Opens the graph again for so many recordings at a time.
    """
    num_threads = count_threads() or os.cpu_count() or 1

    def open_divided() -> GraphRuntime:
        check_graph(file.parent, manifest)
        return open_runtime(num_threads)

    size = sum((file.parent / name).stat().st_size for name in manifest.hashes)
    if settings.num_streams == 1 and num_threads > 1 and 0 < size <= LARGEST_TWICE:
        runtime.divide(num_threads, open_divided)


def open_session(file: Path, providers: Sequence[Any], *, num_streams: int = 1) -> Any:
    """A session of a graph file.

    Raises:
        CheckpointError: If ONNX Runtime cannot read it.
        DeviceError: If CUDA was requested and does not start.
    """
    onnxruntime = import_engine()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = divide_threads(num_streams)
    options.enable_mem_pattern = False  # it keeps one plan for each length of recordings
    try:
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    except _faults() as error:
        raise CheckpointError(
            f"ONNX Runtime {onnxruntime.__version__} cannot read {file} "
            f"({first_line(error)}); export the model again"
        ) from error
    if len(providers) > 1 and CUDA not in session.get_providers():
        raise DeviceError(
            "device is 'cuda' and ONNX Runtime could not start CUDA; use device='cpu', "
            "or install an onnxruntime-gpu for your CUDA and cuDNN"
        )
    return session


def choose_providers(device: "str | torch.device") -> list[Any]:
    """The execution providers of a device; "auto" is the CPU."""
    kind, _, index = str(device).partition(":")
    if kind in ("auto", "cpu"):
        return [CPU]
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(
            f"device is {str(device)!r} and backend 'onnx' runs on 'cpu', 'cuda' or 'cuda:N'"
        )
    if CUDA not in import_engine().get_available_providers():
        raise DeviceError(
            f"device is {str(device)!r} and this ONNX Runtime has no CUDA; use "
            "device='cpu', or install onnxruntime-gpu in its place"
        )
    return [(CUDA, {"device_id": int(index or 0)}), CPU]


def count_threads() -> int:
    """Threads of a session: `OMP_NUM_THREADS`, or the cores that the process may use.

    0 lets the engine take one for each core.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else 0


def divide_threads(num_streams: int) -> int:
    """Threads for each of so many recordings at a time; 0 lets the engine choose."""
    if num_streams == 1:
        return count_threads()
    return max(1, (count_threads() or os.cpu_count() or 1) // num_streams)


def import_engine() -> Any:
    """The package `onnxruntime`."""
    return import_package("onnxruntime", extra="onnx")


def import_package(name: str, *, extra: str) -> Any:
    """A package of an extra of emoser.

    Raises:
        DependencyError: If it does not load.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"{name} does not load here ({first_line(error)}); install it with: "
            f'pip install "emoser[{extra}]"'
        ) from error


def _faults() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (ValueError, *(getattr(state, name) for name in FAULTS))


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n")[0]
