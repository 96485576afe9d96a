"""An experiment of the paper, from corpus folders to a table beside the paper's results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emoser.checkpoints.atomic import write_text
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.corpora import iemocap, read_corpus
from emoser.finetune.data.annotations import choose_targets
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.cross_validation import (
    TABLE,
    ExperimentResult,
    cross_validate,
    describe_folds,
)
from emoser.finetune.recipes import PAPER_RESULTS, RECIPES
from emoser.finetune.training.distributed import ProcessGroup


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        recipe: A name of `RECIPES`.
        setting: A setting of `protocols.build_splits`.
        corpora: Names of corpora.
        roots: The folder of each corpus.
        labels: The labels to keep; empty for all.
        speakers: "name", or "upstream" for the authors' assignment in IEMOCAP.
        improvised: Whether scripted dialogues are left out.
        num_seeds: Number of seeds of "sd".
        num_folds: Number of folds of "groups".
        skip_unreadable: Whether recordings that cannot be read are left out.
        allow_trained_on: Whether the base may have been trained on tested recordings or speakers.
    """

    recipe: str
    setting: str
    corpora: tuple[str, ...]
    roots: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    speakers: str = "name"
    improvised: bool = False
    num_seeds: int = 5
    num_folds: int = 5
    skip_unreadable: bool = False
    allow_trained_on: bool = False

    def __post_init__(self) -> None:
        """Check recipe and corpora.

        Raises:
            ValueError: If the recipe is unknown, or corpora and roots differ in number.
        """
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe is {self.recipe!r}, allowed are {', '.join(RECIPES)}")
        if len(self.corpora) != len(self.roots):
            raise ValueError(
                f"{len(self.corpora)} corpora and {len(self.roots)} roots; pass one root per corpus"
            )


def reproduce(
    experiment: Experiment, *, config: FinetuneConfig, output: Path, device: str = "auto"
) -> tuple[ExperimentResult, str]:
    """Run or resume an experiment; returns the result and its table, which is also written.

    Changes of `config` from the recipe are listed in the table.

    Raises:
        FileNotFoundError: If recordings are missing.
        ValueError: If a corpus is not the one of the literature, or does not fit the setting.
    """
    found = read_utterances(experiment)
    processes = ProcessGroup(device)
    result = cross_validate(
        found,
        config=config,
        setting=experiment.setting,
        output=output,
        num_seeds=experiment.num_seeds,
        num_folds=experiment.num_folds,
        device=processes,
        skip_unreadable=experiment.skip_unreadable,
        allow_trained_on=experiment.allow_trained_on,
    )
    title = f"{experiment.recipe} on {' + '.join(experiment.corpora)}, {experiment.setting}"
    beside = [
        *_describe_data(experiment, found),
        *_describe_changes(experiment, config),
        *(f"- {note[0].upper()}{note[1:]}." for note in result.pooled.notes[1:]),
        _describe_paper(experiment, config),
    ]
    table = describe_folds(result, title=title, beside=beside)
    processes.write(lambda: write_text(output / TABLE, table))
    return result, table


def read_utterances(experiment: Experiment) -> list[Utterance]:
    """The utterances of all corpora of an experiment.

    Raises:
        FileNotFoundError: If recordings are missing.
        ValueError: If no utterance is left.
    """
    found: list[Utterance] = []
    for corpus, root in zip(experiment.corpora, experiment.roots, strict=True):
        if corpus == "iemocap":
            found += iemocap.read(root, speakers=experiment.speakers)
        else:
            found += read_corpus(corpus, root=root)
    if experiment.labels:
        found = [item for item in found if item.label in experiment.labels]
    if experiment.improvised:
        found = [item for item in found if item.style == "improvised"]
    found = choose_targets(found, "labels")
    if not found:
        raise ValueError("no recording has one of these labels; change labels or improvised")
    return found


def _describe_data(experiment: Experiment, utterances: Sequence[Utterance]) -> list[str]:
    part = "improvised only" if experiment.improvised else "all recordings"
    speakers = len({item.voice for item in utterances})
    lines = [f"- {len(utterances)} utterances of {speakers} speakers, {part}."]
    if experiment.speakers == "upstream":
        lines.append("- Speakers as the authors' code assigns them, which is wrong for 65 turns.")
    return lines


def _describe_changes(experiment: Experiment, config: FinetuneConfig) -> list[str]:
    before, now = RECIPES[experiment.recipe].flat(), config.flat()
    changes = [f"{key} {value}" for key, value in now.items() if value != before[key]]
    return [f"- Changed from the recipe: {', '.join(changes)}."] if changes else []


def _describe_paper(experiment: Experiment, config: FinetuneConfig) -> str:
    stated = PAPER_RESULTS.get((experiment.recipe, experiment.setting))
    if stated is None:
        return "- The paper: no public figure for this recipe and setting."
    same_base = config.base == RECIPES[experiment.recipe].base
    comparable = experiment.corpora == ("iemocap",) and same_base and not experiment.improvised
    kind = "same corpus and setting" if comparable else "not comparable"
    return f"- The paper: accuracy {stated[0]:.2f} % on IEMOCAP ({stated[1]}); {kind}."
