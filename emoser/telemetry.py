"""Keeps the libraries under emoser from sending usage statistics.

Most of them read an environment variable when they are imported, so `disable_telemetry` runs
when emoser is imported. A variable that the user has set keeps its value. OpenVINO and NNCF have
no variable: the package with which they send statistics is hidden from their imports.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VARIABLES: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, datasets
    "GRADIO_ANALYTICS_ENABLED": "False",
    "PYANNOTE_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The value of each library's variable with which it sends nothing."""
OPENVINO_SENDER = "openvino_telemetry"


def disable_telemetry() -> None:
    """Set `VARIABLES` in the environment of this process and of those that it starts."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)


@contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """Hide the package that sends statistics for OpenVINO and NNCF from imports in the block."""
    if OPENVINO_SENDER in sys.modules:  # imported by the caller, whose choice it is
        yield
        return
    sys.modules[OPENVINO_SENDER] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[OPENVINO_SENDER]
