"""The text of a model card: Markdown out of what a checkpoint says about itself.

Plain values in, text out. Figures come with the protocol under which they were measured; those
without one are not shown. Knows nothing of files or of the Hub.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from emoser.metrics import drawn_units
from emoser.models.config import ModelConfig
from emoser.text import counted

METRICS: Mapping[str, tuple[str, str]] = {
    "uar": ("recall", "Unweighted average recall"),
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "calibration_error": ("", "Expected calibration error"),
}
"""Figures of an evaluation: the metric of the Hub ("" for none), and what people read."""
GROUPS: Mapping[str, str] = {
    "per_corpus": "corpus",
    "per_sex": "sex of the speaker",
    "per_speaker": "speaker",
}
MOST_ROWS = 24  # of a table of groups; of more, the ends and the middle are shown
WAYS: Mapping[str, str] = {
    "none": "as they are",
    "clip": "with zero mean and unit variance over each recording",
    "layer": "with zero mean and unit variance over each recording (layer norm)",
    "centre": "with zero mean over each recording",
}
SHOWN = ("mode", "epochs", "batch_size", "encoder_learning_rate", "head_learning_rate", "seed")
MISUSE = (
    "Not for decisions about people: no hiring, grading, policing, insurance, credit or medical "
    "inference, and no monitoring of people who have not agreed. An emotion label is a guess "
    "about how an utterance sounds, not about what its speaker feels. The EU AI Act (Regulation "
    "(EU) 2024/1689, Art. 5(1)(f)) prohibits inferring emotions at work and in education except "
    "for medical or safety reasons."
)


def compose_text(
    name: str,
    config: ModelConfig,
    *,
    layout: str,
    num_weights: int,
    licence: str,
    max_difference: float | None,
) -> str:
    """The whole text below the front matter.

    Args:
        name: What the snippets call the model.
        config: What stands around the encoder.
        layout: "transformers", "emoser", or one that only emoser reads.
        num_weights: How many weights it has.
        licence: Of the weights, as far as it is stated.
        max_difference: Largest difference of a logit to the source, where there was one.
    """
    sections = {
        "": _summary(name, config, num_weights),
        "Use it": _use(name, layout),
        "Outputs": _outputs(config),
        "How well it does": _figures(config.training),
        "How it was made": _origin(config.training, max_difference),
        "Preprocessing": _preprocessing(config),
        "Limits": _limits(config),
        "What it must not be used for": MISUSE,
        "Environment": _environment(config.training),
        "Licence": _licence(licence),
    }
    parts = [f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def stated_evaluations(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The evaluations of a training that name their protocol."""
    found = training.get("evaluations") or ()
    return [item for item in found if isinstance(item, Mapping) and item.get("protocol")]


def _summary(name: str, config: ModelConfig, num_weights: int) -> str:
    what = f"tells {_join(config.labels)} apart in speech" if config.labels else ""
    values = f"gives {_join(config.dimensions)} of speech as values" if config.dimensions else ""
    said = " and ".join(filter(None, (what, values)))
    return (
        f"# {name.split('/')[-1]}\n\nThis model {said}: {config.encoder}, {num_weights:,} weights."
    )


def _use(name: str, layout: str) -> str:
    return f"""With emoser (`pip install emoser`):

```python
from emoser import EmotionClassifier

classifier = EmotionClassifier.from_pretrained("{name}")  # or the path of this folder
print(classifier.predict("call.wav"))
```

{_use_transformers(name, layout)}"""


def _use_transformers(name: str, layout: str) -> str:
    if layout not in ("transformers", "emoser"):
        if layout.endswith("graph"):
            return "transformers alone loads the checkpoint that this was exported from."
        return (
            f"transformers alone cannot load the layout {layout}; `emoser convert {name} FOLDER` "
            "writes one that it can."
        )
    native = layout == "transformers"
    head = "With transformers alone" if native else "In a pipeline of transformers, beside emoser"
    first = "" if native else "from emoser.checkpoints.registration import register\n"
    call = "" if native else "register()\n"
    return f"""{head}:

```python
{first}from transformers import pipeline

{call}classifier = pipeline("audio-classification", "{name}")  # or the path of this folder
print(classifier("call.wav"))  # needs the program ffmpeg; an array of 16 kHz mono does not
```"""


def _outputs(config: ModelConfig) -> str:
    pairs = zip(config.outputs, config.raw_labels, strict=True)
    lines = [
        f"{index}. {name}" + ("" if raw == name else f" (in the checkpoint: `{raw}`)")
        for index, (name, raw) in enumerate(pairs)
    ]
    if config.dimensions:
        lines += ["", "Dimensions are values of about 0 to 1 and never pass a softmax."]
    return "\n".join(lines)


def _figures(training: Mapping[str, Any]) -> str:
    found = stated_evaluations(training)
    if not found:
        return "No figure is stated: a figure needs its protocol beside it."
    return "\n\n".join("\n".join(_describe(item)) for item in found)


def _describe(found: Mapping[str, Any]) -> Iterator[str]:
    """One evaluation: its protocol first."""
    counts = [
        counted(found[key], word)
        for key, word in (("num_utterances", "recording"), ("num_speakers", "known speaker"))
        if found.get(key)
    ]
    size = f" ({' of '.join(counts)})" if counts else ""
    yield f"Protocol: {found['protocol']}. Tested on {found.get('dataset', 'custom')}{size}."
    yield from (f"- {note}" for note in found.get("notes", ()))
    drawn = drawn_units(found.get("num_speakers"))
    yield from ("", f"| figure | value | 95 % interval over {drawn} |", "|---|---|---|")
    for key, (_, name) in METRICS.items():
        if key in found:
            interval = found.get(f"{key}_interval")
            sure = "" if not interval else f"{interval[0]:.3f} to {interval[1]:.3f}"
            yield f"| {name} | {found[key]:.3f} | {sure} |"
    yield from _confusion(found)
    for key, word in GROUPS.items():
        yield from _groups(word, found.get(key) or {})


def _confusion(found: Mapping[str, Any]) -> Iterator[str]:
    labels, rows = found.get("labels"), found.get("confusion")
    if not labels or not rows:
        return
    yield from ("", f"| true \\ said | {' | '.join(labels)} |", "|---|" + "---|" * len(labels))
    for label, row in zip(labels, rows, strict=True):
        yield f"| {label} | {' | '.join(map(str, row))} |"


def _groups(word: str, figures: Mapping[str, float]) -> Iterator[str]:
    ranked = sorted(((name, value) for name, value in figures.items() if name), key=_by_value)
    if len(ranked) < 2:
        return
    yield from ("", f"| {word} | unweighted average recall |", "|---|---|")
    if len(ranked) > MOST_ROWS:
        middle = len(ranked) // 2
        ranked = [*ranked[:3], *ranked[middle : middle + 1], *ranked[-3:]]
    yield from (f"| {name} | {value:.3f} |" for name, value in ranked)
    if len(figures) > MOST_ROWS:
        yield from ("", f"The lowest, the middle and the highest of {len(figures)}.")


def _by_value(pair: tuple[str, float]) -> float:
    return pair[1]


def _origin(training: Mapping[str, Any], max_difference: float | None) -> str:
    lines = []
    source = training.get("converted_from")
    if isinstance(source, Mapping):
        commit = f" at commit `{source['revision']}`" if source.get("revision") else ""
        lines.append(f"Written from `{source.get('name')}`{commit}, layout {source.get('layout')}.")
    if max_difference is not None:
        lines.append(f"Largest difference of a logit to that source: {max_difference:.1e}.")
    if training.get("base"):
        base = str(training["base"])
        shown = base if base.count("/") == 1 else PurePath(base).name  # no path of a machine
        licence = f" ({training['base_licence']})" if training.get("base_licence") else ""
        lines.append(f"Fine-tuned from `{shown}`{licence}.")
    clips = training.get("clips")
    if isinstance(clips, Mapping):
        counts = ", ".join(f"{count:,} {label}" for label, count in clips.items())
        lines.append(f"Training clips: {counts}.")
    settings = training.get("settings")
    if isinstance(settings, Mapping):
        chosen = ", ".join(f"{key} {settings[key]}" for key in SHOWN if key in settings)
        lines.append(f"Settings: {chosen}; all are in `config.json`.")
    if training.get("data_licence"):
        lines.append(f"Licence of the training data: {training['data_licence']}.")
    elif lines:
        lines.append("The licence of the training data is not stated here.")
    return "\n".join(lines) or "Nothing is stated about the training."


def _preprocessing(config: ModelConfig) -> str:
    corpus = (
        f"scaled by the training corpus (mean {config.input_mean:g}, "
        f"deviation {config.input_std:g})"
    )
    return (
        f"Mono at {config.sampling_rate} Hz, samples "
        f"{WAYS.get(config.normalization, corpus)}; recordings longer than "
        f"{config.max_seconds:g} s are heard in pieces, and those under 25 ms are filled with "
        "zeros. emoser resamples with soxr and does all of this by itself."
    )


def _limits(config: ModelConfig) -> str:
    lines = []
    if config.labels:
        lines.append(
            f"- It always answers with one of {_join(config.labels)}, also for other emotions, "
            "laughter, music and silence."
        )
    lines += [
        "- Languages, microphones and ways of speaking that it was not trained on were not "
        "tested, unless a figure above says so. Acted speech is not felt emotion.",
        "- Its probabilities are calibrated on its validation set at best, and nowhere else.",
    ]
    return "\n".join(lines)


def _environment(training: Mapping[str, Any]) -> str:
    versions = training.get("environment")
    if not isinstance(versions, Mapping):
        return ""
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    command = training.get("command")
    return f"Trained with {used}." + (f"\n\n    {command}" if command else "")


def _licence(licence: str) -> str:
    if licence in ("not-stated", "unknown", "None"):
        return (
            "Not stated. Whoever publishes this model must name one in the front matter of this "
            "file; the licences of the encoder and of the training data bind it."
        )
    return f"The weights: {licence}. Terms of the encoder and of the training data apply too."


def _join(names: Sequence[str]) -> str:
    """Names as people list them.

    Example:
        >>> _join(["sad"]), _join(["sad", "happy", "angry"])
        ('sad', 'sad, happy and angry')
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
