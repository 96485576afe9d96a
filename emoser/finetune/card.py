"""The model card of a fine-tuned checkpoint: what it is, how it was made, and how well it does.

Plain values in, Markdown with front matter out. Knows nothing of models or files.
"""

from collections.abc import Mapping
from typing import Any

from emoser import __version__
from emoser.finetune.report import Evaluation

SHOWN = ("mode", "epochs", "batch_size", "encoder_learning_rate", "head_learning_rate", "seed")
MISUSE = (
    "Not for decisions about people: hiring, policing, medicine, schools or workplaces. The "
    "European AI Act (Article 5(1)(f)) forbids emotion inference at work and in education "
    "except for medical or safety reasons. Acted speech is not felt emotion."
)


def write_card(
    name: str,
    *,
    base: str,
    evaluation: Evaluation,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
) -> str:
    """The text of `README.md`.

    Args:
        name: What the model is called.
        base: What it was fine-tuned from.
        evaluation: Its test figures with their protocol.
        settings: Those of the training.
        counts: How many clips each label had in training.
    """
    lines = [
        *_front_matter(base),
        f"# {name}",
        "",
        f"Tells {', '.join(counts)} apart in speech. Fine-tuned from `{base}` with emoser "
        f"{__version__}.",
        "",
        "```python",
        "from emoser import EmotionClassifier",
        "",
        f'EmotionClassifier.from_pretrained("{name}").predict("call.wav")',
        "```",
        "",
        *_describe_figures(evaluation),
        "",
        "## How it was made",
        "",
        "Training clips: " + ", ".join(f"{count} {label}" for label, count in counts.items()) + ".",
        "Settings: " + ", ".join(f"{key} {settings[key]}" for key in SHOWN) + ".",
        "Samples are 16 kHz mono, at least 25 ms.",
        "",
        "## What it is not for",
        "",
        MISUSE,
    ]
    return "\n".join(lines) + "\n"


def _front_matter(base: str) -> list[str]:
    on_hub = "/" in base and not base.startswith(("/", "."))
    return [
        "---",
        "library_name: transformers",
        "pipeline_tag: audio-classification",
        *([f"base_model: {base}"] if on_hub else []),
        "metrics: [recall, accuracy, f1]",
        "tags: [speech-emotion-recognition, audio, speech, emoser]",
        "---",
        "",
    ]


def _describe_figures(evaluation: Evaluation) -> list[str]:
    report = evaluation.report
    low, high = evaluation.uar_interval
    return [
        "## How well it does",
        "",
        f"Protocol: {evaluation.protocol}.",
        *(f"- {note}" for note in evaluation.notes),
        "",
        f"{report.num_utterances} recordings of {report.num_speakers} known speakers: accuracy "
        f"{100 * report.accuracy:.1f} %, recall averaged over classes {100 * report.uar:.1f} % "
        f"(95 % interval over speakers {100 * low:.1f} to {100 * high:.1f} %), macro F1 "
        f"{100 * report.macro_f1:.1f} %, calibration error {report.calibration_error:.3f}. "
        "`report.md` of the run has the confusion matrix and every speaker.",
    ]
