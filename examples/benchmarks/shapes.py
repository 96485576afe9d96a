"""What the benchmarks run on: models of the real shapes with random weights, and clips.

The models are written by the classes of transformers themselves, into a folder of the caller's.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from emoser.checkpoints.files import GRAPH_MANIFEST
from emoser.checkpoints.resolve import find_checkpoint

RATE = 16_000
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
RATES = (8_000, 16_000, 22_050, 44_100, 48_000)
SUFFIXES = ("wav", "flac")
CALIBRATION_CLIPS = 8


def write_model(shape: str, folder: Path) -> Path:
    """A folder with wav2vec2-base ("base") or hubert-large ("large"), unless it is there."""
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
    if shape == "base":
        config = transformers.Wav2Vec2Config(**names)
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
    """The int8 graph of a model for OpenVINO, unless it is there.

    Without the proof of labels that `emoser export --int8` asks for: random weights have none.
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


def make_clip(seconds: float, rate: int = RATE, *, seed: int = 0) -> np.ndarray:
    """Noise that swells, as loud as speech, (T,)."""
    generator = np.random.default_rng(seed)
    count = round(seconds * rate)
    swell = 0.02 + 0.1 * np.abs(np.sin(np.linspace(0, 3 * seconds, count)))
    return (generator.standard_normal(count) * swell).astype(np.float32)


def write_clips(folder: Path, count: int) -> list[Path]:
    """Files of 0.6 to 12 s (half of them under 3 s), of many rates, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    paths = []
    for place in range(count):
        seconds = float(np.clip(generator.lognormal(1.1, 0.6), 0.6, 12.0))
        rate = RATES[int(generator.integers(len(RATES)))]
        path = folder / f"{place:04d}.{SUFFIXES[place % len(SUFFIXES)]}"
        if not path.is_file():
            soundfile.write(path, make_clip(seconds, rate, seed=place), rate)
        paths.append(path)
    return paths


def count_seconds(paths: list[Path]) -> float:
    """Seconds of audio in some files."""
    return sum(soundfile.info(str(path)).duration for path in paths)
