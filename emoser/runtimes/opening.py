"""Choose an engine for a checkpoint and open the checkpoint with it.

The only place that asks whether a folder holds a graph that may be run, and where a graph that
is missing is converted and cached. Of several engines the fastest is taken, by a measurement on
this machine that is kept. torch and the engines are imported when they are chosen; what is
installed and whether there may be a GPU is found out without importing anything.
"""

import os
import platform
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from emoser.checkpoints.files import CONFIG, CheckpointFiles, as_files
from emoser.errors import CheckpointError, DependencyError, missing_extra
from emoser.runtimes import BACKENDS, EngineSettings, OpenedModel
from emoser.runtimes.cache import Entry, make_key, open_entry
from emoser.runtimes.manifest import Manifest, build_info, check_graph, read_manifest
from emoser.runtimes.speeds import SpeedRecord, measure_engines, size_class

if TYPE_CHECKING:
    import torch

PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
"""The package that each engine needs."""

GPU_TRACES = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
"""Files that exist on Linux where CUDA or ROCm can run."""


def open_runtime(
    files: CheckpointFiles,
    *,
    device: "str | torch.device" = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    num_streams: int = 1,
) -> OpenedModel:
    """Open a checkpoint with an engine.

    Args:
        files: The files of the checkpoint.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or a `torch.device`.
        dtype: "auto", "float32", "bfloat16" or "float16".
        backend: "auto", "torch", "openvino" or "onnx".
        num_streams: How many recordings threads of the caller run at the same time on a CPU. With
            more than one, the cores are divided among them, which gives more recordings per
            second, each later than it would be alone.

    Raises:
        ValueError: If the backend, device or dtype is not supported.
        CheckpointError: If the checkpoint does not load, or its graph is damaged.
        DependencyError: If the engine is not installed.
        DeviceError: If the device is not available.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; use one of {', '.join(BACKENDS)}")
    settings = EngineSettings(device, dtype, num_streams)
    if backend != "auto":
        require_backend(backend)
        return _open(files, settings, backend)
    candidates = list_candidates(files, device=device, dtype=dtype)
    try:
        return _open_fastest(files, settings, candidates)
    except (CheckpointError, DependencyError) as error:  # torch can run models that others cannot
        if candidates == ("torch",) or not files.has_weights:
            raise
        opened = _open(files, settings, "torch")
        notes = (*opened.info.notes, f"run by torch: {error}")
        return replace(opened, info=replace(opened.info, notes=notes))


def list_candidates(
    files: CheckpointFiles, *, device: "str | torch.device" = "auto", dtype: str = "auto"
) -> tuple[str, ...]:
    """The engines that "auto" may stand for, of which the fastest is taken.

    torch on a GPU. On a CPU those that read the graph of the folder and are installed; torch,
    whose import takes seconds, is none of them. Where the weights are without a graph, OpenVINO,
    which they are converted to once, and torch; or torch alone.

    Raises:
        CheckpointError: If the manifest of the folder is damaged.
        DependencyError: If the folder holds only a graph and its engine is not installed.
    """
    manifest = None if files.has_weights else read_manifest(files)
    if files.has_weights and (dtype == "float16" or not runs_on_cpu(device)):
        return ("torch",)
    found = ["openvino"] if is_installed("openvino") and runs_on_cpu(device) else []
    if dtype in ("auto", "float32") and is_installed("onnx"):
        graph = manifest if manifest is not None else find_graph(files)
        if graph is not None and graph.format == "onnx":
            return (*found, "onnx")
    if manifest is not None and not found:
        require_backend(manifest.format)
        return (manifest.format,)
    if files.has_weights and not (found and find_graph(files) is not None):
        found.append("torch")
    return tuple(found)


def find_graph(files: CheckpointFiles) -> Manifest | None:
    """The manifest of the graph in a folder; None without one, or with a stale one.

    A graph beside weights is stale unless it was made from exactly these.
    """
    manifest = read_manifest(files)
    if manifest is None or not files.has_weights:
        return manifest
    return manifest if files.content_hash == manifest.weights else None


def is_installed(backend: str) -> bool:
    """Whether the package of an engine is installed; it is not imported.

    Example:
        >>> is_installed("torch")
        True
    """
    return find_spec(PACKAGES[backend]) is not None


def require_backend(backend: str) -> None:
    """Refuse an engine whose package is not installed, with the command that installs it."""
    if not is_installed(backend):
        raise missing_extra(f"backend {backend!r}", backend)


def runs_on_cpu(device: "str | torch.device") -> bool:
    """Whether a device is the CPU; torch is asked about "auto" only if there may be a GPU."""
    name = str(device)
    if name != "auto":
        return name.split(":")[0] == "cpu"
    if not may_have_accelerator():
        return True
    from emoser.runtimes.torch.engine import choose_device

    return choose_device("auto").type == "cpu"


def may_have_accelerator() -> bool:
    """Whether this machine may have a GPU that torch can use; False only if it has none."""
    system = platform.system()
    if system == "Darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if system == "Windows":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32/nvcuda.dll").is_file()
    return any(Path(trace).exists() for trace in GPU_TRACES)


def _open_fastest(
    files: CheckpointFiles, settings: EngineSettings, candidates: tuple[str, ...]
) -> OpenedModel:
    """Open a checkpoint with the fastest of several engines, after measuring if it is not known."""
    if len(candidates) == 1:
        return _open(files, settings, candidates[0])
    record = SpeedRecord(
        {
            "encoder": files.config.get("model_type") if CONFIG in files.stamps else None,
            "size": size_class(max(size for size, _ in files.stamps.values())),
            "dtype": settings.dtype,
            "streams": settings.num_streams,
        },
        {name: PACKAGES[name] for name in candidates},
    )
    fastest = record.fastest
    if fastest is not None or not record.can_be_kept():
        return _open(files, settings, fastest or candidates[0])
    opened = {name: _open(files, settings, name) for name in candidates}
    record.keep(
        measure_engines(
            {name: item.runtime for name, item in opened.items()},
            sampling_rate=opened[candidates[0]].config.sampling_rate,
            num_streams=settings.num_streams,
        )
    )
    return opened[record.fastest or candidates[0]]


def _open(files: CheckpointFiles, settings: EngineSettings, backend: str) -> OpenedModel:
    if backend != "torch":
        return _open_graph(files, settings, backend)
    manifest = None if files.has_weights else read_manifest(files)
    if manifest is not None:
        raise CheckpointError(
            f"{files.folder} holds an exported {manifest.format} graph and no weights, which "
            f"backend 'torch' needs; use backend={manifest.format!r} or 'auto', or load "
            f"{manifest.source.name!r}, which it was made from"
        )
    from emoser.runtimes.torch.engine import open_torch

    return open_torch(files, settings)


def _open_graph(files: CheckpointFiles, settings: EngineSettings, backend: str) -> OpenedModel:
    """Open the graph in a folder, or else one from the cache, where it is converted if missing."""
    engine = import_module(f"emoser.runtimes.{backend}")
    engine.check_options(settings.device, settings.dtype)
    with ExitStack() as stack:
        manifest, entry = find_graph(files), Entry(files.folder)
        if manifest is None:
            key = make_key(files, engine.cache_parts())
            entry = stack.enter_context(open_entry(key, partial(_convert, files, backend)))
            manifest = read_manifest(as_files(entry.folder))
        else:
            check_graph(files.folder, manifest)
        if manifest is None:
            raise CheckpointError(f"{entry.folder} lost its manifest; delete it and try again")
        if manifest.format not in engine.FORMATS:
            raise CheckpointError(
                f"{entry.folder} holds a graph of {manifest.format}, which backend {backend!r} "
                f"does not read; use backend={manifest.format!r}, or export it again to {backend}"
            )
        file = entry.folder / manifest.file
        runtime, kind, precision, notes = engine.open_graph(file, manifest, settings)
    info = build_info(
        files, manifest.source, manifest.config, backend=backend, device=kind, dtype=precision
    )
    info = replace(info, notes=(*info.notes, *notes, *entry.notes))
    return OpenedModel(runtime, manifest.config, info)


def _convert(files: CheckpointFiles, backend: str, folder: Path) -> None:
    """Write the graph of a checkpoint into a folder of the cache; imports torch."""
    from emoser.runtimes.conversion.writing import write_graph

    write_graph(files, folder, to=backend)
