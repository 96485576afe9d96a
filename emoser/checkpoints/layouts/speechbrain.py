"""SpeechBrain's folders: `wav2vec2.ckpt`, `model.ckpt`, `label_encoder.txt`, `hyperparams.yaml`.

emotion-recognition-wav2vec2-IEMOCAP classifies recordings, emotion-diarization-wavlm-large
classifies frames. The samples pass a layer norm, the encoder sees no mask, its frames pass one
layer norm over all of them (`output_norm`), and the head has no bias. `hyperparams.yaml` can
name code to run; emoser only searches its text for five settings. SpeechBrain adds noise to the
pooled mean even at evaluation; emoser does not.
"""

import re

import torch

from emoser.checkpoints.backbones import encoder_places, infer_encoder_config
from emoser.checkpoints.configs import check_labels
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.preprocessing import SAMPLING_RATE
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.models.config import ModelConfig

NAME = "speechbrain"
ENCODER = "wav2vec2:model."
SIGNATURE = ("model:0.w.weight", ENCODER)
LABELS = "label_encoder.txt"
HYPERPARAMETERS = "hyperparams.yaml"
FRAME_SECONDS = 0.02
LABEL_LINE = re.compile(r"^'(.*)' => (\d+)$")
REFERENCE = re.compile(r"!ref[ \t]+<(\w+)>")
RATE = r"sample_rate[ \t]*:[ \t]*([^#\n]+)"
RATES = (
    re.compile(rf"^{RATE}", re.MULTILINE),
    re.compile(rf"^audio_normalizer[ \t]*:.*\n(?:[ \t]+.*\n)*?[ \t]+{RATE}", re.MULTILINE),
)
"""Where SpeechBrain states the rate of the training, and the one that recordings are brought to."""
RAW_INPUT = ("wavlm-base", "wavlm-base-plus")  # whose feature extractors do not normalise


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    text = files.read_text(HYPERPARAMETERS)
    raw = _read_labels(files)
    nested = f"{ENCODER}model."  # of later wrappers
    prefix = nested if any(name.startswith(nested) for name in shapes) else ENCODER
    encoder = infer_encoder_config(shapes, prefix)
    frames = re.search(r"Pooling1d|window_length\s*:", text) is not None
    hub = re.search(r"^wav2vec2_hub[ \t]*:[ \t]*(\S+)", text, re.MULTILINE)
    unnormalised = hub is not None and hub.group(1).rpartition("/")[2] in RAW_INPUT
    config = ModelConfig(
        labels=canonical_labels(raw),
        raw_labels=raw,
        encoder=str(encoder["model_type"]),
        normalization="centre" if unnormalised else "layer",
        output_norm=re.search(r"output_norm\s*:\s*False", text) is None,
        pooling="frames" if frames else "mean",
        frame_seconds=FRAME_SECONDS if frames else None,
        sampling_rate=_read_rate(text, files),
    )
    places = {**encoder_places(prefix), "model:0.w.": "head.classifier."}
    return Plan(config, encoder, places, _add_bias)


def _add_bias(tensors: Tensors) -> Tensors:
    """The tensors with a bias of zeros, as this head has none."""
    completed = dict(tensors)
    weight = completed.get("head.classifier.weight")
    if weight is not None:
        completed.setdefault("head.classifier.bias", torch.zeros(len(weight)))
    return completed


def _read_rate(text: str, files: CheckpointFiles) -> int:
    """The sampling rate that the settings state, a number or a reference to one."""
    stated = [found.group(1).strip() for rate in RATES if (found := rate.search(text))]
    rates = {_look_up(value, text) for value in stated}
    if len(rates) > 1 or not all(rate.isdecimal() for rate in rates):
        raise CheckpointError(
            f"{files.folder / HYPERPARAMETERS}: sample_rate is {' and '.join(stated)}; correct it "
            "to one whole number of Hz"
        )
    return int(rates.pop()) if rates else SAMPLING_RATE


def _look_up(value: str, text: str) -> str:
    """A value, or what it refers to, such as `!ref <rate>`; without underscores."""
    named = REFERENCE.fullmatch(value)
    if named is not None:
        found = re.search(rf"^{named.group(1)}[ \t]*:[ \t]*(\w+)", text, re.MULTILINE)
        value = value if found is None else found.group(1)
    return value.replace("_", "")


def _read_labels(files: CheckpointFiles) -> tuple[str, ...]:
    lines = files.read_text(LABELS).splitlines()
    found = [match for line in lines if (match := LABEL_LINE.match(line.strip()))]
    by_index = {
        int(match.group(2)): match.group(1) for match in found if match.group(1) != "starting_index"
    }
    if not by_index:
        raise CheckpointError(
            f"{files.folder / LABELS} names no labels, in lines such as 'neu' => 0"
        )
    return check_labels(by_index, files.folder / LABELS)
