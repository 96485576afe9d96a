"""The model card of a checkpoint: what the Hub reads, and what people must know.

Takes what a folder says about itself and gives a `huggingface_hub.ModelCard`. Figures come with
the protocol under which they were measured; those without a protocol are not shown. A card that
the folder already has is kept, its metadata completed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.configs import CARD, read_licence
from emoser.checkpoints.golden import GOLDEN
from emoser.configuration import ModelConfig, ModelInfo

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

TAGS = ("speech-emotion-recognition", "emotion-recognition", "audio", "speech", "emoser")
METRIC_NAMES: Mapping[str, tuple[str, str]] = {
    "uar": ("recall", "Unweighted average recall"),
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
}
MISUSE = (
    "Not for decisions about people: no hiring, policing, insurance, credit or medical inference, "
    "and no monitoring of people who have not agreed. An emotion label is a guess about how an "
    "utterance sounds, not about what its speaker feels. The EU AI Act (Art. 5(1)(f)) prohibits "
    "inferring emotions at work and in education except for medical or safety reasons."
)


def build_card(folder: Path, repo_id: str, config: ModelConfig, info: ModelInfo) -> "ModelCard":
    """The card of a folder that is about to be uploaded.

    Args:
        folder: In emoser's layout, as `save_pretrained` wrote it.
        repo_id: Where it goes.
        config: What stands around the encoder.
        info: Where the checkpoint came from.
    """
    from huggingface_hub import ModelCard

    file = folder / CARD
    data = _metadata(folder, repo_id, config, info)
    if file.is_file():
        card = ModelCard(file.read_text(encoding="utf-8"))
        for key, value in vars(data).items():
            if value is not None and card.data.get(key) is None:
                setattr(card.data, key, value)
        return card
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(folder, repo_id, config, info)}")


def _metadata(folder: Path, repo_id: str, config: ModelConfig, info: ModelInfo) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    results = _results(config.training)
    return ModelCardData(
        language=config.training.get("language"),
        license=read_licence(folder) or info.licence or "other",
        license_name=None if read_licence(folder) or info.licence else "unknown",
        library_name="transformers",
        pipeline_tag="audio-classification",
        base_model=config.training.get("base_model"),
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=[*TAGS, config.encoder],
        model_name=repo_id.split("/")[-1],
        eval_results=results or None,
    )


def _results(training: Mapping[str, Any]) -> list["EvalResult"]:
    """The figures of a training that states its protocol."""
    from huggingface_hub import EvalResult

    evaluations: Sequence[Any] = training.get("evaluations") or ()
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech Emotion Recognition",
            dataset_type=str(found.get("dataset", "custom")),
            dataset_name=f"{found.get('dataset', 'custom')}, {found['protocol']}",
            metric_type=METRIC_NAMES[name][0],
            metric_name=METRIC_NAMES[name][1],
            metric_value=float(found[name]),
        )
        for found in evaluations
        if isinstance(found, Mapping) and found.get("protocol")
        for name in METRIC_NAMES
        if name in found
    ]


def _text(folder: Path, repo_id: str, config: ModelConfig, info: ModelInfo) -> str:
    raw = dict(zip(config.outputs, config.raw_labels, strict=True))
    labels = "\n".join(
        f"{index}. {name}" + ("" if raw[name] == name else f" (in the checkpoint: `{raw[name]}`)")
        for index, name in enumerate(config.outputs)
    )
    figures = "\n".join(
        f"- {found.metric_name}: {found.metric_value:.4f} ({found.dataset_name})"
        for found in _results(config.training)
    )
    return f"""# {repo_id.split("/")[-1]}

Speech emotion recognition: {info.encoder}, {info.parameters:,} weights.

```python
from emoser import EmotionClassifier

classifier = EmotionClassifier.from_pretrained("{repo_id}")
print(classifier.predict("call.wav"))
```

## Outputs

{labels}

## Preprocessing

{_preprocessing(config)}

## Provenance

Written by emoser from `{info.name}`{_revision(info)}, layout {info.layout}. {_parity(folder)}

## Results

{figures or "None stated: a figure needs its protocol beside it."}

## What it must not be used for

{MISUSE}
"""


def _preprocessing(config: ModelConfig) -> str:
    ways = {
        "none": "as they are",
        "clip": "with zero mean and unit variance over each recording",
        "layer": "with zero mean and unit variance over each recording (layer norm)",
        "centre": "with zero mean over each recording",
        "corpus": f"scaled by the training corpus (mean {config.input_mean:g}, "
        f"deviation {config.input_std:g})",
    }
    return (
        f"Mono at {config.sampling_rate} Hz, samples {ways[config.normalization]}; recordings "
        f"longer than {config.max_seconds:g} s are heard in pieces."
    )


def _revision(info: ModelInfo) -> str:
    return "" if info.revision is None else f" at commit `{info.revision}`"


def _parity(folder: Path) -> str:
    file = folder / GOLDEN
    if not file.is_file():
        return ""
    difference = json.loads(file.read_text(encoding="utf-8")).get("max_difference", 0.0)
    return f"Largest difference to the source's logits: {difference:.1e}."
