"""Which engine runs a checkpoint, told without importing any of them.

Knows what is installed, what accelerators the machine evidently lacks, and what lies beside a
checkpoint. Imports torch only where an accelerator may be there.
"""

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from emoser.checkpoints.files import CheckpointFiles
from emoser.errors import CheckpointError, missing_extra
from emoser.runtimes.manifest import read_graph, read_manifest

if TYPE_CHECKING:
    import torch

PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
"""What each engine needs."""

GPU_TRACES = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
"""Files that Linux has where CUDA or ROCm can run."""


def is_installed(backend: str) -> bool:
    """Whether the package of an engine is there; it is not imported.

    Example:
        >>> is_installed("torch")
        True
    """
    return find_spec(PACKAGES[backend]) is not None


def require_backend(backend: str) -> None:
    """Refuse an engine whose package is not there.

    Raises:
        DependencyError: With the line that installs it.
    """
    if not is_installed(backend):
        raise missing_extra(f"backend {backend!r}", backend)


def choose_backend(
    checkpoint: CheckpointFiles, *, device: "str | torch.device" = "auto", dtype: str = "auto"
) -> str:
    """The engine that "auto" stands for.

    torch on a GPU; on a CPU OpenVINO where it is installed, else ONNX Runtime where that is
    installed and a graph is at hand, else torch. A folder that holds an exported graph alone is
    run by what can run it.

    Raises:
        CheckpointError: If the manifest of the folder is damaged.
        DependencyError: If the folder holds a graph alone and its engine is not installed.
    """
    openvino = is_installed("openvino")
    if not checkpoint.has_weights:
        manifest = read_manifest(checkpoint)
        if manifest is not None:
            if openvino and runs_on_cpu(device):
                return "openvino"
            require_backend(manifest.format)
            return manifest.format
    if dtype == "float16" or not runs_on_cpu(device):
        return "torch"
    if openvino:
        return "openvino"
    at_hand = dtype != "bfloat16" and is_installed("onnx") and read_graph(checkpoint)
    return "onnx" if at_hand else "torch"


def refuse_graph_alone(checkpoint: CheckpointFiles) -> None:
    """Refuse a folder that holds an exported graph alone, of which torch can make nothing.

    Raises:
        CheckpointError: If it is such a folder.
    """
    folder = checkpoint.folder
    manifest = None if checkpoint.has_weights else read_manifest(checkpoint)
    if manifest is not None:
        raise CheckpointError(
            f"{folder} holds an exported {manifest.format} graph and no weights, which backend "
            f"'torch' needs; use backend={manifest.format!r} or 'auto', or load "
            f"{manifest.source.name!r}, of which it was made"
        )


def runs_on_cpu(device: "str | torch.device") -> bool:
    """Whether a device is the CPU; torch is asked about "auto" where a GPU may be there."""
    name = str(device)
    if name != "auto":
        return name.split(":")[0] == "cpu"
    if not may_have_accelerator():
        return True
    from emoser.runtimes.torch.engine import choose_device

    return choose_device("auto").type == "cpu"


def may_have_accelerator() -> bool:
    """Whether this machine may have a GPU that torch could use; False only where it has not."""
    system = platform.system()
    if system == "Darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if system == "Windows":
        return (Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32/nvcuda.dll").is_file()
    return any(Path(trace).exists() for trace in GPU_TRACES)
