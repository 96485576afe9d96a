"""The model card of a checkpoint: what the Hub reads, and what a stranger needs to use it.

Takes what a folder says about itself and gives a `huggingface_hub.ModelCard`. A card that was
written for emoser is kept, its metadata completed; of any other the licence and language are
taken over and its text is quoted. Nothing is fetched.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.card_text import METRICS, compose_text, stated_evaluations
from emoser.checkpoints.files import CARD, GOLDEN
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

TAGS = ("speech-emotion-recognition", "emotion-recognition", "audio", "speech", "emoser")
KEPT = ("license", "license_name", "license_link", "language", "datasets", "base_model")
"""What a foreign card says that stays true of the same weights in another layout."""
OWN = ("library_name", "model_name", "eval_results", "tags")
"""What emoser knows better than the card that was there."""
FRONT = re.compile(r"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)
OURS = "from emoser import"
NAMED = re.compile(r'(from_pretrained\(|"audio-classification", )"[^"\n]*"')


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        name: What the snippets call the model: a Hub id, or the name of its folder.
        config: What stands around the encoder, with the training and where it came from.
        layout: How the folder is written: "transformers", "emoser", or another.
        num_weights: How many weights the model has.
        before: The text of the card that was there, "" without any.
        max_difference: Largest difference of a logit to the source of a conversion, else None.
        note: What must be read before everything else, such as that the folder holds a graph.
    """

    name: str
    config: ModelConfig
    layout: str
    num_weights: int
    before: str = field(default="", repr=False)
    max_difference: float | None = None
    note: str = ""


def build_card(facts: CardFacts, *, fresh: bool = False) -> "ModelCard":
    """The card of a checkpoint.

    Args:
        facts: What is known of it.
        fresh: Write the text anew also where the card before was written for emoser.
    """
    stated = read_metadata(facts.before)
    data = _metadata(facts, stated)
    if OURS in facts.before and not fresh:
        body = _rename(_body(facts.before), facts.name)
        return _join(_complete(data, stated), _put_note(body, facts.note))
    quoted = "" if OURS in facts.before else _body(facts.before).strip()
    text = compose_text(
        facts.name,
        facts.config,
        layout=facts.layout,
        num_weights=facts.num_weights,
        licence=str(data.get("license_name") or data.get("license")),
        max_difference=facts.max_difference,
    )
    if quoted:
        text += f"\n## The card of the source, as its authors wrote it\n\n{_lower(quoted)}\n"
    return _join(data, _put_note(text, facts.note))


def read_max_difference(folder: Path) -> float | None:
    """How far the logits of a converted folder were from those of its source; None unknown."""
    file = folder / GOLDEN
    if not file.is_file():
        return None
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["max_difference"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def read_card(folder: Path) -> str:
    """The text of the card in a folder, "" without any."""
    file = folder / CARD
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def read_metadata(text: str) -> dict[str, Any]:
    """The front matter of a card; empty where there is none, or none that can be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if FRONT.match(text) is None:
        return {}
    try:
        return dict(vars(ModelCard(text, ignore_metadata_errors=True).data))
    except (ValueError, TypeError, YAMLError):
        return {}


def check_card(text: str) -> list[str]:
    """What is wrong with a card, one sentence each; nothing is asked of the Hub.

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
    values |= {"license": training.get("licence"), "base_model": _base(training)}
    values |= {key: stated[key] for key in KEPT if stated.get(key)}
    if not values["license"]:
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
    """The Hub id of the encoder, where the training began with one."""
    base = str(training.get("base_model") or training.get("base") or "")
    return base if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and not Path(base).exists() else None


def _results(facts: CardFacts) -> list["EvalResult"]:
    """The figures that state their protocol."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech Emotion Recognition",
            dataset_type=re.sub(r"\W+", "-", str(found.get("dataset", "custom"))).strip("-"),
            dataset_name=f"{found.get('dataset', 'custom')}, {found['protocol']}",
            metric_type=kind,
            metric_name=name,
            metric_value=float(found[key]),
        )
        for found in stated_evaluations(facts.config.training)
        for key, (kind, name) in METRICS.items()
        if kind and key in found
    ]


def _body(text: str) -> str:
    return FRONT.sub("", text, count=1)


def _lower(text: str) -> str:
    """Headings two levels further down, so that they stay below that of the quotation."""
    return re.sub(r"^(#{1,4}) ", r"##\1 ", text, flags=re.MULTILINE)


def _put_note(text: str, note: str) -> str:
    """The text with a note below its first heading."""
    if not note:
        return text
    head, _, rest = text.lstrip().partition("\n")
    return f"{head}\n\n> {note}\n{rest}"


def _rename(text: str, name: str) -> str:
    """The same snippets, for the model under another name."""
    return NAMED.sub(lambda match: f'{match[1]}"{name}"', text)


def _complete(data: "ModelCardData", stated: Mapping[str, Any]) -> "ModelCardData":
    """What a card written for emoser states, and what it left out."""
    for key, value in stated.items():
        if value and key not in OWN:
            setattr(data, key, value)
    data.eval_results = data.eval_results or stated.get("eval_results")
    return data


def _join(data: "ModelCardData", body: str) -> "ModelCard":
    from huggingface_hub import ModelCard

    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body.strip()}\n")
