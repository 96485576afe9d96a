"""Export a checkpoint to a folder that runs without torch, in ONNX or OpenVINO.

The folder holds the graph, its manifest and the card; `EmotionClassifier.from_pretrained` loads
it like any checkpoint. It appears complete or not at all, and only after the engine has given
the numbers of the original.
"""

import os
import shutil
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from emoser.audio import load_audio
from emoser.audio.folders import find_recordings
from emoser.checkpoints.atomic import new_folder, scratch_folder
from emoser.checkpoints.card import CardFacts, build_card
from emoser.checkpoints.files import CARD, CheckpointFiles
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.trained_on import read_stages, write_stages
from emoser.errors import CheckpointError
from emoser.runtimes import EngineSettings, Samples
from emoser.runtimes.manifest import FILES, Manifest
from emoser.runtimes.opening import require_backend

LICENCE = "LICENSE"
MAX_CLIPS = 8  # recordings of the user to compare the numbers on
MAX_INT8_CLIPS = 600  # recordings for calibration and test
MAX_CLIP_SECONDS = 20.0


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    Attributes:
        folder: Path of the folder.
        format: "onnx" or "openvino".
        dtype: Precision of its arithmetic: "float32" or "int8".
        megabytes: Size of the whole folder.
        parity: Measured differences to torch, and the clips that they were measured on.
    """

    folder: Path
    format: str
    dtype: str
    megabytes: float
    parity: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def export(
    model: str | os.PathLike[str] | CheckpointFiles,
    folder: str | os.PathLike[str],
    *,
    to: str = "onnx",
    int8: bool = False,
    calibrate: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a checkpoint to a folder that runs without torch.

    Args:
        model: A bundled name, a folder, a name of the catalog, a Hub id, or a `CheckpointFiles`.
        folder: The folder to write; it appears complete or not at all.
        to: "onnx" or "openvino".
        int8: Compute in 8-bit integers: takes about half the time and changes the numbers.
        calibrate: A folder of recordings to compare the numbers on, in addition to synthetic
            voices. For int8 at least 100, like those that the model will be used on: it is
            calibrated on half of them and must give the same label for 98 % of the others.
        overwrite: Replace a folder that is not empty.

    Raises:
        AudioError: If `calibrate` holds no recording that can be read, or too few for int8.
        CheckpointError: If the checkpoint does not load, the format cannot express it, or the
            engine gives other numbers or int8 other labels; the message states the difference.
        DependencyError: If a package of the format is not installed.
        FileExistsError: If the folder is not empty and `overwrite` is off.
        ValueError: If the format is unknown, or `int8` is set without `calibrate`.
    """
    if to not in FILES:
        raise ValueError(f"to is {to!r}; use one of {', '.join(FILES)}")
    if int8 and calibrate is None:
        raise ValueError("int8 needs recordings to calibrate on; pass calibrate=FOLDER")
    require_backend(to)
    checkpoint = model if isinstance(model, CheckpointFiles) else find_checkpoint(model)
    if LICENCE in checkpoint.stamps and not checkpoint.is_inside(LICENCE):
        raise CheckpointError(
            f"{checkpoint.folder / LICENCE} is a link that leaves the checkpoint; put the file in "
            "its place"
        )
    limit = MAX_INT8_CLIPS if int8 else MAX_CLIPS
    recordings = [] if calibrate is None else _load_clips(calibrate, limit, checkpoint)
    with new_folder(Path(folder), overwrite=overwrite) as target:
        if int8:
            manifest = _write_int8(to, checkpoint, target, recordings)
        else:
            from emoser.runtimes.conversion.writing import write_graph

            manifest = write_graph(checkpoint, target, to=to, clips=recordings)
        card = _write_card(checkpoint, manifest, Path(folder).absolute().name)
        (target / CARD).write_text(card, encoding="utf-8")
        write_stages(read_stages(checkpoint), target)
        if LICENCE in checkpoint.stamps:
            shutil.copyfile(checkpoint.folder / LICENCE, target / LICENCE)
        size = sum(file.stat().st_size for file in target.iterdir())
    return Exported(Path(folder), to, manifest.dtype, size / 1e6, dict(manifest.parity))


def _write_int8(
    to: str, checkpoint: CheckpointFiles, folder: Path, clips: list[Samples]
) -> Manifest:
    """Write the int8 graph of a checkpoint from its float32 one, and test it."""
    from emoser.runtimes.conversion.quantization import (
        measure_agreement,
        quantize_onnx,
        quantize_openvino,
        split_clips,
    )
    from emoser.runtimes.conversion.writing import write_graph

    calibration, held_out = split_clips(clips)
    quantize = quantize_openvino if to == "openvino" else quantize_onnx
    with scratch_folder() as place:
        compared = held_out[:MAX_CLIPS]
        plain = write_graph(checkpoint, place, to=to, clips=compared, looped=False)
        quantize(place / plain.file, folder / plain.file, calibration)
        manifest = replace(plain, dtype="int8", parity={})
        engine = import_module(f"emoser.runtimes.{to}")
        runtime, reference = (
            engine.open_graph(graph / plain.file, described, EngineSettings("cpu")).runtime
            for graph, described in ((folder, manifest), (place, plain))
        )
        parity = measure_agreement(
            runtime,
            reference,
            held_out,
            len(plain.config.labels),
            multi_label=plain.config.multi_label,
        )
    parity["num_calibrated"] = len(calibration)
    manifest = replace(manifest, parity=parity)
    manifest.write(folder)
    return manifest


def _write_card(checkpoint: CheckpointFiles, manifest: Manifest, name: str) -> str:
    difference = manifest.parity.get("max_difference")
    measured = "" if difference is None else f" Largest difference of a logit: {difference:.1e}."
    if "agreement" in manifest.parity:
        same, count = manifest.parity["agreement"], manifest.parity["num_clips"]
        measured += f" Same labels on {count} held-out recordings: {same:.1%}."
    facts = CardFacts(
        name=name,
        config=manifest.config,
        layout=f"{manifest.format} graph",
        num_weights=manifest.source.parameters,
        before=checkpoint.card,
        note=f"This folder is a graph ({manifest.format}, {manifest.dtype}) exported from "
        f"`{checkpoint.name}`: emoser runs it without torch. transformers loads the original, "
        f"not this folder.{measured}",
    )
    return str(build_card(facts))


def _load_clips(
    folder: str | os.PathLike[str], limit: int, checkpoint: CheckpointFiles
) -> list[Samples]:
    """The beginnings of up to `limit` recordings of a folder, at the rate of a checkpoint."""
    from emoser.checkpoints.layouts.registry import load_checkpoint

    rate = load_checkpoint(checkpoint).model.config.sampling_rate
    files = find_recordings(folder)
    chosen = files[:: -(-len(files) // limit)]
    length = round(MAX_CLIP_SECONDS * rate)
    return [load_audio(file, target_rate=rate)[:length] for file in chosen]
