"""Quantise a float32 graph to 8-bit integers, calibrated on recordings and tested on others.

The convolution that reads raw samples keeps its precision: samples need more than 8 bits, and
quantising it changed one label in forty of emoser-tiny. So do narrow convolutions after it, which
take little time and changed one label in a hundred; in ONNX, where the outputs change more, all of
them. So do the products of a spectrogram, of which a logarithm is
taken, and the grouped convolution of the positions: at base size it took OpenVINO 337 ms of 845
in int8, and 6 ms in bfloat16. Needs NNCF.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emoser.errors import AudioError, CheckpointError, missing_extra
from emoser.runtimes import Runtime, Samples
from emoser.runtimes.openvino import import_engine
from emoser.telemetry import without_openvino_telemetry

MIN_AGREEMENT = 0.98
MIN_CLIPS = 100  # half for calibration, half for the test
FRONT = "feature_extractor"  # part of the names of the first convolutions
NARROW = 256  # those with fewer channels keep their precision
PRODUCTS = frozenset({"Conv", "Convolution", "Gemm", "MatMul"})
GROUPED = "GroupConvolution"
SPECTRUM = re.compile(r"(^/|\bmodel\.)encoder/(aten::matmul/)?MatMul(_\d+)?$")
"""Names of the products that the encoder itself makes, not a part of it."""


def split_clips(clips: Sequence[Samples]) -> tuple[list[Samples], list[Samples]]:
    """Split recordings alternately into those for calibration and those for the test.

    Raises:
        AudioError: If they are too few to measure an agreement of 98 %.
    """
    if len(clips) < MIN_CLIPS:
        raise AudioError(
            f"int8 is calibrated on half of the recordings and tested on the others, and "
            f"{len(clips)} are too few; pass a folder with at least {MIN_CLIPS}"
        )
    return list(clips[0::2]), list(clips[1::2])


def quantize_openvino(source: Path, target: Path, clips: Sequence[Samples]) -> None:
    """Write a float32 graph of OpenVINO in int8, calibrated on recordings.

    Raises:
        DependencyError: If NNCF is not installed.
    """
    openvino = import_engine()
    model = openvino.Core().read_model(source)
    kept = find_kept(model.get_ordered_ops())
    rows = [clip[None] for clip in clips]
    openvino.save_model(_quantize(model, rows, kept), target, compress_to_fp16=False)


def find_kept(nodes: Iterable[Any]) -> list[str]:
    """Names of the products in a graph of OpenVINO that keep their precision.

    These are grouped convolutions, products that no other precedes (they read raw samples), narrow
    ones of the first convolutions, and those of a spectrogram.

    Args:
        nodes: All nodes, each after its inputs.
    """
    kept: list[str] = []
    after_product: set[str] = set()  # nodes that depend on a product
    for node in nodes:
        name, kind = node.get_friendly_name(), node.get_type_name()
        read = {value.get_node().get_friendly_name() for value in node.input_values()}
        raw = after_product.isdisjoint(read)
        if kind == GROUPED or (
            kind in PRODUCTS and (raw or SPECTRUM.search(name) or _is_narrow(node, name))
        ):
            kept.append(name)
        if kind in PRODUCTS or not raw:
            after_product.add(name)
    return kept


def _is_narrow(product: Any, name: str) -> bool:
    """Whether a product over frames in OpenVINO is a first convolution with few channels."""
    return FRONT in name and product.get_output_partial_shape(0)[-1].get_max_length() < NARROW


def quantize_onnx(source: Path, target: Path, clips: Sequence[Samples]) -> None:
    """Write a float32 graph in ONNX in int8, calibrated on recordings.

    Raises:
        DependencyError: If NNCF or `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("int8 in ONNX", "onnx") from error
    model = onnx.load(source)
    kept = [
        node.name
        for node in model.graph.node
        if _is_grouped(node)
        or (node.op_type in PRODUCTS and (FRONT in node.name or SPECTRUM.search(node.name)))
    ]
    rows = [{model.graph.input[0].name: clip[None]} for clip in clips]
    onnx.save(_quantize(model, rows, kept), target)


def _is_grouped(node: Any) -> bool:
    """Whether a node in ONNX is a grouped convolution."""
    return node.op_type == "Conv" and any(
        attribute.name == "group" and attribute.i > 1 for attribute in node.attribute
    )


def _quantize(model: Any, rows: list[Any], kept: list[str]) -> Any:
    import_engine()  # first, so that it sends no statistics
    with without_openvino_telemetry():
        try:
            import nncf
        except ImportError as error:
            raise missing_extra("int8", "int8") from error
    nncf.set_log_level(40)  # errors alone
    # Smoothing would also scale the inputs of unquantised layers, at a fifth of the time.
    smoothing = nncf.AdvancedSmoothQuantParameters(convolution=-1.0, matmul=-1.0)
    return nncf.quantize(
        model,
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
        ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smoothing),
    )


def measure_agreement(
    runtime: Runtime,
    reference: Runtime,
    clips: Sequence[Samples],
    num_labels: int,
    *,
    multi_label: bool = False,
) -> dict[str, Any]:
    """Compare an int8 engine with its float32 one on recordings not used for calibration.

    The first `num_labels` logits are those of labels; with `multi_label` each is yes or no.

    Returns:
        `agreement`, the share of recordings with the same label, or of the same answers yes and
        no; `mean_recall`, the same averaged over the labels, or over yes and no of each; largest
        and mean difference of a logit; `num_clips`.

    Raises:
        CheckpointError: If fewer than 98 % of the labels are the same.
        ValueError: If the model has no labels.
    """
    if not num_labels:
        raise ValueError("int8 is tested by comparing labels, and this model has dimensions only")
    found = np.concatenate([runtime.infer([clip]).logits for clip in clips])
    expected = np.concatenate([reference.infer([clip]).logits for clip in clips])
    labels = _answer(expected[:, :num_labels], multi_label)
    same = _answer(found[:, :num_labels], multi_label) == labels
    agreement = float(same.mean())
    if agreement < MIN_AGREEMENT:
        raise CheckpointError(
            f"int8 changes too many labels: {agreement:.1%} of those of {len(clips)} recordings "
            f"are the same, and {MIN_AGREEMENT:.0%} is required; calibrate on more recordings "
            "like those that the model will be used on, or export float32"
        )
    return {
        "agreement": agreement,
        "mean_recall": float(
            np.mean([same[labels == label].mean() for label in np.unique(labels)])
        ),
        "max_difference": float(np.abs(found - expected).max()),
        "mean_difference": float(np.abs(found - expected).mean()),
        "num_clips": len(clips),
        "clips": "held-out recordings",
    }


def _answer(logits: npt.NDArray[np.float32], multi_label: bool) -> npt.NDArray[np.int64]:
    """The label of each row, (N, C) -> (N,), or yes and no of each label, numbered, (N * C,)."""
    if multi_label:
        return np.ravel(2 * np.arange(logits.shape[1]) + (logits > 0))
    return np.asarray(logits.argmax(axis=1))
