"""Input of the benchmarks: clips, and models of the usual sizes with random weights."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from emoser.bench.machine import make_clip
from emoser.checkpoints.files import GRAPH_MANIFEST
from emoser.checkpoints.resolve import find_checkpoint

LABELS = ("neutral", "happy", "angry", "sad")
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
SHAPES = ("tiny", "base", "large")
RATES = (8_000, 16_000, 22_050, 44_100, 48_000)
SUFFIXES = ("wav", "flac")
CALIBRATION_CLIPS = 8


def write_model(shape: str, folder: Path) -> Path:
    """Write a tiny model, one like wav2vec2-base or one like hubert-large, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    import transformers

    torch.manual_seed(0)
    names = {
        "num_labels": 4,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: place for place, label in enumerate(LABELS)},
    }
    if shape != "large":
        config = transformers.Wav2Vec2Config(**names, **(TINY if shape == "tiny" else {}))
        model = transformers.Wav2Vec2ForSequenceClassification(config)
    else:
        config = transformers.HubertConfig(**LARGE, **names)
        model = transformers.HubertForSequenceClassification(config)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=shape == "large"
    ).save_pretrained(folder)
    return folder


def write_int8(model: Path, folder: Path) -> Path:
    """Write the int8 graph of a model for OpenVINO, unless the folder has one.

    Does not compare labels as `emoser export --int8` does: those of random weights mean nothing.
    """
    if (folder / GRAPH_MANIFEST).is_file():
        return folder
    from emoser.runtimes.conversion.quantization import quantize_openvino
    from emoser.runtimes.conversion.writing import write_graph

    folder.mkdir(parents=True, exist_ok=True)
    clips = [make_clip(2.0 + seed % 3, seed=seed) for seed in range(CALIBRATION_CLIPS)]
    with tempfile.TemporaryDirectory() as place:
        plain = write_graph(find_checkpoint(str(model)), Path(place), to="openvino", looped=False)
        quantize_openvino(Path(place) / plain.file, folder / plain.file, clips)
    replace(plain, dtype="int8", parity={}).write(folder)
    return folder


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write files of 0.6 to 12 s (median 3 s) with different sampling rates, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    paths = []
    for place in range(count):
        seconds = float(np.clip(generator.lognormal(1.1, 0.6), 0.6, 12.0))
        rate = RATES[int(generator.integers(len(RATES)))]
        path = folder / f"{place:04d}.{SUFFIXES[place % len(SUFFIXES)]}"
        if not path.is_file():
            soundfile.write(path, make_clip(seconds, sampling_rate=rate, seed=place), rate)
        paths.append(path)
    return paths


def count_seconds(paths: list[Path]) -> float:
    """Total duration of files."""
    return sum(soundfile.info(str(path)).duration for path in paths)
