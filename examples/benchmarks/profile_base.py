"""Profile of a base-size model: `python examples/benchmarks/profile_base.py [--seconds 4]`.

Time by operation for torch and by layer type for OpenVINO and ONNX Runtime, from their own
profilers, with one thread each.
"""

import argparse
import json
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from shapes import write_model

from emoser import EmotionClassifier
from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import make_clip

TOP = 8
SKIPPED = ("Input", "Output", "Const", "Parameter", "Result")


def profile_torch(model: Path, samples: np.ndarray) -> Counter:
    """Milliseconds by torch operation."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(1)
    classifier = EmotionClassifier.from_pretrained(model, device="cpu", backend="torch")
    classifier.predict(samples, sampling_rate=SAMPLING_RATE)
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        classifier.predict(samples, sampling_rate=SAMPLING_RATE)
    return Counter({item.key: item.self_cpu_time_total / 1e3 for item in taken.key_averages()})


def export_graph(model: Path, folder: Path) -> Path:
    """Export a model to ONNX; the graph file."""
    from emoser.export import export

    export(str(model), folder, to="onnx")
    return folder / "model.onnx"


def profile_onnx(graph: Path, samples: np.ndarray) -> Counter:
    """Milliseconds by ONNX Runtime operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(graph.parent / "profile")
    session = onnxruntime.InferenceSession(str(graph), options)
    session.run(None, {"samples": samples[None]})
    session.run(None, {"samples": samples[None]})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: Counter = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / 1e3 / 2
    return spent


def profile_openvino(graph: Path, samples: np.ndarray) -> Counter:
    """Milliseconds by OpenVINO layer type."""
    import openvino

    settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
    request = compiled.create_infer_request()
    request.infer([samples[None]])
    request.infer([samples[None]])
    spent: Counter = Counter()
    for item in request.profiling_info:
        if item.node_type not in SKIPPED:
            spent[f"{item.node_type} ({item.exec_type})"] += item.real_time.total_seconds() * 1e3
    return spent


def print_profile(name: str, spent: Counter) -> None:
    total = sum(spent.values())
    print(f"\n{name}: {total:.0f} ms on one thread")
    for kind, value in spent.most_common(TOP):
        print(f"  {kind:<48} {value:8.1f} ms  {value / total:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    samples = make_clip(options.seconds)
    with tempfile.TemporaryDirectory() as name:
        model = write_model("base", Path(name) / "base")
        print_profile("torch", profile_torch(model, samples))
        if not find_spec("onnx"):
            return
        graph = export_graph(model, Path(name) / "graph")
        if find_spec("onnxruntime"):
            print_profile("ONNX Runtime", profile_onnx(graph, samples))
        if find_spec("openvino"):
            print_profile("OpenVINO", profile_openvino(graph, samples))


if __name__ == "__main__":
    main()
