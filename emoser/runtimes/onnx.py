"""The ONNX Runtime engine: a graph in `model.onnx`, on the CPU or on CUDA.

One recording at a time, never padded, so that every answer belongs to its recording. Imports
neither torch nor transformers, unless a checkpoint without a graph must first be converted.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.errors import CheckpointError, DependencyError, DeviceError
from emoser.runtimes import Answer, OpenedModel, Samples
from emoser.runtimes.cache import make_key, open_entry
from emoser.runtimes.manifest import Manifest, read_graph

if TYPE_CHECKING:
    import torch

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
QUIET = 3  # errors alone


class OnnxRuntime:
    """A graph in a session of ONNX Runtime."""

    batch_seconds: float | None = None
    group_size = 1

    def __init__(self, session: Any) -> None:
        self.session = session
        self.by_frame = any(output.name == "frames" for output in session.get_outputs())

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Logits and embeddings of recordings, one after another."""
        rows = [self._run(("logits", "embedding"), samples) for samples in recordings]
        logits, embeddings = zip(*rows, strict=True)
        return Answer(np.concatenate(logits), np.concatenate(embeddings))

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them.

        Raises:
            ValueError: If the model does not classify frames.
        """
        if not self.by_frame:
            raise ValueError("this model pools its frames and has no answer for single ones")
        (frames,) = self._run(("frames",), samples)
        return np.asarray(frames[0], np.float32)

    def _run(self, outputs: Sequence[str], samples: Samples) -> list[npt.NDArray[np.float32]]:
        row = np.ascontiguousarray(samples, np.float32)[None]
        answers: list[npt.NDArray[np.float32]] = self.session.run(outputs, {"samples": row})
        return answers


def open_onnx(
    checkpoint: CheckpointFiles, *, device: "str | torch.device" = "auto", dtype: str = "auto"
) -> OpenedModel:
    """Load a checkpoint into ONNX Runtime, converting it where it was not converted before.

    Raises:
        CheckpointError: If the checkpoint does not fit, its graph is damaged or gives other
            numbers, or the folder holds a graph of another engine alone.
        DependencyError: If ONNX Runtime does not load, or a conversion needs `onnx`.
        DeviceError: If CUDA was asked for and ONNX Runtime cannot use it.
        ValueError: If the device or the precision is none that this engine has.
    """
    if dtype not in ("auto", "float32"):
        raise ValueError(
            f"dtype is {dtype!r} and backend 'onnx' computes in float32; use dtype='float32', or "
            "another backend"
        )
    providers = choose_providers(device)
    manifest = read_graph(checkpoint)
    if manifest is not None:
        return _open_graph(checkpoint, checkpoint.folder, manifest, providers)
    parts = {"format": "onnx", "dtype": "float32"}
    with open_entry(make_key(checkpoint, parts), _converter(checkpoint)) as entry:
        manifest = read_graph(as_files(entry.folder))
        if manifest is None:
            raise CheckpointError(f"{entry.folder} lost its manifest; delete it and try again")
        opened = _open_graph(checkpoint, entry.folder, manifest, providers)
    info = replace(opened.info, notes=(*opened.info.notes, *entry.notes))
    return replace(opened, info=info)


def _converter(checkpoint: CheckpointFiles) -> Callable[[Path], None]:
    """What writes the graph of a checkpoint; it imports torch when it is called."""

    def build(folder: Path) -> None:
        from emoser.runtimes.conversion.onnx import write_onnx

        write_onnx(checkpoint, folder)

    return build


def _open_graph(
    checkpoint: CheckpointFiles, folder: Path, manifest: Manifest, providers: Sequence[Any]
) -> OpenedModel:
    if manifest.format != "onnx":
        raise CheckpointError(
            f"{folder} holds a graph of {manifest.format}, which backend 'onnx' does not read; "
            f"use backend={manifest.format!r}, or export it again to onnx"
        )
    session = open_session(folder / manifest.file, providers)
    kind = "cuda" if CUDA in session.get_providers() else "cpu"
    info = manifest.to_info(checkpoint, backend="onnx", device=kind)
    return OpenedModel(OnnxRuntime(session), manifest.config, info)


def open_session(file: Path, providers: Sequence[Any]) -> Any:
    """A session of a graph file.

    Raises:
        CheckpointError: If ONNX Runtime cannot read it.
        DeviceError: If CUDA was asked for and does not start.
    """
    onnxruntime = import_engine()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = count_threads()
    options.enable_mem_pattern = False  # a plan for each length that ever came, all held at once
    try:
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    except _faults() as error:
        raise CheckpointError(
            f"{file} is no graph that ONNX Runtime {onnxruntime.__version__} runs "
            f"({_first_line(error)}); export the model again"
        ) from error
    if len(providers) > 1 and CUDA not in session.get_providers():
        raise DeviceError(
            "device 'cuda' was asked for and ONNX Runtime could not start it; use device='cpu', "
            "or install an onnxruntime-gpu for your CUDA and cuDNN"
        )
    return session


def choose_providers(device: "str | torch.device") -> list[Any]:
    """ONNX Runtime's words for a device; "auto" is the CPU.

    Raises:
        DeviceError: If CUDA was asked for and this build has none.
        ValueError: If the engine knows no such device.
    """
    kind, _, index = str(device).partition(":")
    if kind in ("auto", "cpu"):
        return [CPU]
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(
            f"device is {str(device)!r} and backend 'onnx' runs on 'cpu', 'cuda' or 'cuda:N'"
        )
    if CUDA not in import_engine().get_available_providers():
        raise DeviceError(
            f"device {str(device)!r} was asked for and this ONNX Runtime has no CUDA; use "
            "device='cpu', or install onnxruntime-gpu in its place"
        )
    return [(CUDA, {"device_id": int(index or 0)}), CPU]


def count_threads() -> int:
    """Threads of a session: `OMP_NUM_THREADS`, or what the process is confined to.

    0 lets ONNX Runtime take one for each core.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else 0


def import_engine() -> Any:
    """The package `onnxruntime`.

    Raises:
        DependencyError: If it does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime does not load here ({_first_line(error)}); install it with: "
            'pip install "emoser[onnx]"'
        ) from error
    return onnxruntime


def _faults() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        state.InvalidArgument,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
