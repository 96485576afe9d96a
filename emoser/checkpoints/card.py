"""The model card of a checkpoint: metadata for the Hub, and how to use the model.

A card that was written for emoser is kept and its metadata completed. Any other card is quoted
below a new one, which takes over its licence and language. The text is in `card_template.md`.
No request is made.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import GOLDEN, CheckpointFiles
from emoser.checkpoints.licences import UNSTATED, licence_fields
from emoser.errors import CheckpointError
from emoser.json_text import format_json
from emoser.metrics import confusion_table, name_interval
from emoser.models.config import ModelConfig
from emoser.text import (
    counted,
    join_words,
    markdown_table,
    markdown_text,
    printable,
    printable_lines,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("card_template.md")
TAGS = ("speech-emotion-recognition", "emotion-recognition", "audio", "speech", "emoser")
KEPT = ("license", "license_name", "license_link", "language", "datasets", "base_model")
"""Metadata of a foreign card that stay true of the same weights in another layout."""
OWN = ("library_name", "model_name", "eval_results", "tags")
"""Metadata that are written anew in every card."""
FRONT = re.compile(r"\A---[ \t\r]*\n.*?\n---[ \t\r]*(\n|\Z)", re.DOTALL)
OURS = "from emoser import"
NAMED = re.compile(r'(from_pretrained\(|"audio-classification", )"[^"\n]*"')
METRICS: Mapping[str, tuple[str, str]] = {
    "uar": ("recall", "Unweighted average recall"),
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "calibration_error": ("", "Expected calibration error"),
}
"""Figures of an evaluation: the metric of the Hub, "" if it has none, and the name in the text."""
SEVERAL: Mapping[str, str] = {
    "uar": "Recall averaged over yes and no of each label (UAR)",
    "accuracy": "All labels right",
}
"""Names of figures where several labels may apply at once."""
DIMENSION_METRICS: Mapping[str, tuple[str, str]] = {
    "ccc": ("ccc", "Concordance (CCC)"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "mae": ("mae", "Mean absolute error"),
}
"""The same of a dimension."""
VOTES: Mapping[str, str] = {
    "divergence": "Divergence from the votes (KL, nats)",
    "agreement": "Votes that agree with the answer",
    "ceiling": "Votes that agree with the majority (the ceiling)",
}
GROUPS: Mapping[str, str] = {
    "per_corpus": "corpus",
    "per_sex": "sex of the speaker",
    "per_speaker": "speaker",
}
MAX_ROWS = 24  # of a table of groups; of longer ones, both ends and the middle are shown
NORMALIZATIONS: Mapping[str, str] = {
    "none": "as they are",
    "clip": "with zero mean and unit variance over each recording",
    "layer": "with zero mean and unit variance over each recording (layer norm)",
    "centre": "with zero mean over each recording",
    "level": "scaled to a root mean square of -25 dBFS over each recording",
}
SETTINGS = ("mode", "epochs", "batch_size", "encoder_learning_rate", "head_learning_rate", "seed")


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        name: Name of the model in the snippets: a Hub id or the name of its folder.
        config: Configuration of the model, with the training and its provenance.
        layout: Layout of the folder: "transformers", "emoser", or another.
        num_weights: Number of weights of the model.
        before: Text of the card that the checkpoint had; "" if it had none.
        max_difference: Largest difference of a logit to the source of a conversion, else None.
        note: Shown before everything else, such as that the folder holds a graph.
    """

    name: str
    config: ModelConfig
    layout: str
    num_weights: int
    before: str = field(default="", repr=False)
    max_difference: float | None = None
    note: str = ""


def build_card(facts: CardFacts, *, fresh: bool = False) -> "ModelCard":
    """The card of a checkpoint; if `fresh`, one that was written for emoser is written anew too.

    Text that a checkpoint states, such as its labels, is shown as it is: it adds no HTML, link or
    code to the card.

    Raises:
        CheckpointError: If what the checkpoint states about its training is malformed.
    """
    try:
        return _build_card(facts, fresh=fresh)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{facts.name} states its training in a form that no card can be written from "
            f"({error}); correct the block training in its config.json"
        ) from error


def _build_card(facts: CardFacts, *, fresh: bool) -> "ModelCard":
    from huggingface_hub import ModelCard

    before = printable_lines(facts.before)
    stated = read_metadata(before)
    data = _metadata(facts, stated)
    body = FRONT.sub("", before, count=1).strip()
    ours = OURS in before
    name = _in_quotes(facts.name)
    if ours and not fresh:
        text = NAMED.sub(lambda match: f'{match[1]}"{name}"', body)
        if facts.note:
            title, _, rest = text.partition("\n")
            text = f"{title}\n\n> {facts.note}\n{rest}"
        return ModelCard(f"---\n{_complete(data, stated).to_yaml()}\n---\n\n{text.strip()}\n")
    training = _as_text(facts.config.training)
    config = replace(facts.config, training=training)
    licence = data.get("license_name") or data.get("license")
    card: ModelCard = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=markdown_text(facts.name.split("/")[-1]),
        name=name,
        note=facts.note,
        config=config,
        outputs=[_shown(config, place) for place in range(len(config.outputs))],
        training=training,
        layout=facts.layout,
        num_weights=facts.num_weights,
        labels=join_words([*map(markdown_text, config.labels)]),
        dimensions=join_words([*map(markdown_text, config.dimensions)]),
        evaluations=[_describe(found) for found in stated_evaluations(facts.config.training)],
        origin=_describe_origin(training, facts.max_difference),
        normalization=NORMALIZATIONS.get(config.normalization),
        licence="" if licence in UNSTATED else licence,
        quoted="" if ours else re.sub(r"^(#{1,4}) ", r"##\1 ", body, flags=re.MULTILINE),
    )
    return card


def _in_quotes(name: str) -> str:
    """A name for a string of Python in a block of code."""
    return format_json(printable(name), ensure_ascii=False)[1:-1].replace("`", "")


def _as_text(value: Any) -> Any:
    """What a checkpoint states about its training, which may be any text, as text for Markdown."""
    if isinstance(value, Mapping):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return markdown_text(value) if isinstance(value, str) else value


def _shown(config: ModelConfig, place: int) -> str:
    """An output of the model, and its name in the checkpoint if that is another one."""
    name, raw = config.outputs[place], config.raw_labels[place]
    shown = markdown_text(name)
    spelled = printable(raw).replace("`", "'")
    return shown if name == raw else f"{shown} (in the checkpoint: `{spelled}`)"


def read_max_difference(files: CheckpointFiles) -> float | None:
    """Largest difference of a logit of a converted checkpoint to its source; None if unknown."""
    if GOLDEN not in files.stamps:
        return None
    with reading(files.folder / GOLDEN):
        return float(files.read_json(GOLDEN)["max_difference"])


def read_metadata(text: str) -> dict[str, Any]:
    """The front matter of a card; empty if there is none or it is malformed."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if FRONT.match(text) is None:
        return {}
    try:
        return dict(vars(ModelCard(text, ignore_metadata_errors=True).data))
    except (ValueError, TypeError, RecursionError, YAMLError):
        return {}


def check_card(text: str) -> list[str]:
    """The faults of a card, one sentence each; no request is made.

    Example:
        >>> check_card("# A model")
        ['it has no front matter between two lines of ---']
    """
    if FRONT.match(text) is None:
        return ["it has no front matter between two lines of ---"]
    data = read_metadata(text)
    faults = [
        f"its front matter has no {key}"
        for key in ("license", "library_name", "pipeline_tag", "tags")
        if not data.get(key)
    ]
    if OURS not in text:
        faults.append("it does not show how emoser loads the model")
    if re.search(r"\bLABEL_\d", text):
        faults.append("it calls a label LABEL_n; name what it means")
    if "AI Act" not in text and "2024/1689" not in text:
        faults.append("it does not say what the model must not be used for")
    return faults


def _metadata(facts: CardFacts, stated: Mapping[str, Any]) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    training = facts.config.training
    results = _results(facts)
    values: dict[str, Any] = {key: training.get(key) for key in ("language", "datasets")}
    values |= {"base_model": _base(training), **licence_fields(training.get("licence"))}
    values |= {key: stated[key] for key in KEPT if stated.get(key)}
    if not values.get("license"):
        values |= {"license": "other", "license_name": "not-stated"}
    return ModelCardData(
        **{key: value for key, value in values.items() if value},
        library_name="transformers" if facts.layout == "transformers" else "emoser",
        pipeline_tag="audio-classification",
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=list(dict.fromkeys([*TAGS, facts.config.encoder, *(stated.get("tags") or ())])),
        model_name=facts.name.split("/")[-1],
        eval_results=results or None,
    )


def _base(training: Mapping[str, Any]) -> str | None:
    """The Hub id of the encoder that training started from, if it has one."""
    base = str(training.get("base_model") or training.get("base") or "")
    return base if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and not Path(base).exists() else None


def _results(facts: CardFacts) -> list["EvalResult"]:
    """The figures of the evaluations that state their protocol."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech Emotion Recognition",
            dataset_type=re.sub(r"\W+", "-", str(found.get("dataset", "custom"))).strip("-"),
            dataset_name=f"{found.get('dataset', 'custom')}, {found['protocol']}",
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for found in stated_evaluations(facts.config.training)
        for kind, name, value, _ in _list_figures(found)
        if kind
    ]


def _list_figures(
    found: Mapping[str, Any],
) -> Iterator[tuple[str, str, float, Sequence[float] | None]]:
    """Metric of the Hub, name, value and interval of every figure of an evaluation."""
    for key, (kind, usual) in METRICS.items():
        if key in found:
            name = SEVERAL.get(key, usual) if found.get("f1_by_label") else usual
            yield kind, name, float(found[key]), found.get(f"{key}_interval")
    votes = found.get("votes") or {}
    yield from (("", name, float(votes[key]), None) for key, name in VOTES.items() if key in votes)
    intervals = found.get("dimension_intervals") or {}
    for dimension, figures in (found.get("dimensions") or {}).items():
        for key, (kind, name) in DIMENSION_METRICS.items():
            interval = intervals.get(dimension, {}).get(key)
            yield kind, f"{name} of {markdown_text(dimension)}", float(figures[key]), interval


def stated_evaluations(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The evaluations of a training that state their protocol."""
    found = training.get("evaluations") or ()
    return [item for item in found if isinstance(item, Mapping) and item.get("protocol")]


def _describe(found: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation for the template: its size in words, and its tables."""
    counts = [
        counted(found[key], word)
        for key, word in (("num_utterances", "recording"), ("num_speakers", "known speaker"))
        if found.get(key)
    ]
    tables = [_figures(found)]
    if found.get("labels") and found.get("confusion"):
        tables.append(markdown_table(confusion_table(found["labels"], found["confusion"])))
    by_label = found.get("f1_by_label") or {}
    if by_label:
        rows = [[markdown_text(name), f"{value:.3f}"] for name, value in by_label.items()]
        tables.append(markdown_table([["label", "F1"], *rows]))
    tables += [_group_table(word, found.get(key) or {}) for key, word in GROUPS.items()]
    return {
        **_as_text(found),
        "size": f" ({' of '.join(counts)})" if counts else "",
        "notes": _as_text(found.get("notes") or ()),
        "tables": list(filter(None, tables)),
    }


def _figures(found: Mapping[str, Any]) -> str:
    rows = [["figure", "value", name_interval(found.get("num_speakers"))]]
    mark = " (trained on)" if found.get("trained_on") else ""
    for _, name, value, interval in _list_figures(found):
        shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        rows.append([name, f"{value:.3f}{mark}", shown])
    return markdown_table(rows)


def _group_table(word: str, figures: Mapping[str, float]) -> str:
    """Recall by group in ascending order; "" if fewer than two groups are known."""
    known = [(value, name) for name, value in figures.items() if name]
    ranked = sorted(known, key=lambda pair: pair[0])
    if len(ranked) < 2:
        return ""
    if len(ranked) > MAX_ROWS:
        middle = len(ranked) // 2
        ranked = [*ranked[:3], *ranked[middle : middle + 1], *ranked[-3:]]
    rows = [[name, f"{value:.3f}"] for value, name in ranked]
    left_out = len(figures) > MAX_ROWS
    more = f"\n\nThe lowest, the middle and the highest of {len(figures)}." if left_out else ""
    return markdown_table([[word, "unweighted average recall"], *rows]) + more


def _describe_origin(training: Mapping[str, Any], difference: float | None) -> list[str]:
    """How the weights were made, one sentence each; empty if nothing is stated."""
    sentences = []
    source, clips, settings = (
        value if isinstance(value := training.get(key), Mapping) else None
        for key in ("converted_from", "clips", "settings")
    )
    if source is not None:
        commit = f" at commit `{source['revision']}`" if source.get("revision") else ""
        layout = source.get("layout")
        sentences.append(f"Written from `{source.get('name')}`{commit}, layout {layout}.")
    if difference is not None:
        sentences.append(f"Largest difference of a logit to that source: {difference:.1e}.")
    if training.get("base"):
        base = str(training["base"])
        shown = base if base.count("/") == 1 else PurePath(base).name  # never a local path
        licence = f" ({training['base_licence']})" if training.get("base_licence") else ""
        sentences.append(f"Fine-tuned from `{shown}`{licence}.")
    if clips is not None:
        counts = ", ".join(f"{count:,} {label}" for label, count in clips.items())
        sentences.append(f"Training clips: {counts}.")
    if settings is not None:
        chosen = ", ".join(f"{key} {settings[key]}" for key in SETTINGS if key in settings)
        sentences.append(f"Settings: {chosen}; all are in `config.json`.")
    if training.get("data_licence"):
        sentences.append(f"Licence of the training data: {training['data_licence']}.")
    elif sentences:
        sentences.append("The licence of the training data is not stated here.")
    return sentences


def _complete(data: "ModelCardData", stated: Mapping[str, Any]) -> "ModelCardData":
    """Metadata of a card that was written for emoser, with what it leaves out."""
    for key, value in stated.items():
        if value and key not in OWN:
            setattr(data, key, value)
    data.eval_results = data.eval_results or stated.get("eval_results")
    return data
