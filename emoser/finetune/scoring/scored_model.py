"""A model of any kind as it is scored: its engine, its labels, and what it was trained on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.trained_on import read_stages
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.models import Classifier, Model, find_files
from emoser.finetune.scoring.leakage import Overlap, find_overlap
from emoser.finetune.scoring.logits import Inferred, as_runtime, infer_readable
from emoser.labels import LabelMap
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.models.training_stage import TrainingStage
from emoser.runtimes import Runtime
from emoser.runtimes.opening import open_runtime


@dataclass(frozen=True)
class ScoredModel:
    """An opened model.

    Attributes:
        name: Its name in reports.
        runtime: The engine.
        config: Its configuration.
        trained_on: What it was trained on, as far as it is stated.
        label_map: From the labels of the checkpoint to those of its answers; None if equal.
    """

    name: str
    runtime: Runtime
    config: ModelConfig
    trained_on: tuple[TrainingStage, ...] = ()
    label_map: LabelMap | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its answers."""
        return self.config.labels if self.label_map is None else self.label_map.labels

    @property
    def outputs(self) -> tuple[str, ...]:
        """The labels and dimensions of its answers, the columns of `infer`."""
        return (*self.labels, *self.config.dimensions)

    def rename(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Recordings whose labels, where the checkpoint has them, are those of its answers."""
        known = self.label_map
        if known is None:
            return list(utterances)
        answers = [known.labels[target] for target in known.targets]
        names = dict(zip(self.config.labels, answers, strict=True))
        return [item.rename(names) for item in utterances]

    def compare(self, utterances: Sequence[Utterance]) -> Overlap:
        """What it was trained on of these recordings and their speakers."""
        return find_overlap(self.name, self.trained_on, utterances)

    def infer(self, utterances: Sequence[Utterance], *, skip_unreadable: bool = False) -> Inferred:
        """Its outputs for all recordings that can be read.

        Raises:
            AudioError: As `infer_readable`.
        """
        found = infer_readable(
            self.runtime, self.config, utterances, skip_unreadable=skip_unreadable
        )
        return found._replace(logits=self.map_logits(found.logits))

    def map_logits(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logarithms of the scores of its answers from those of the checkpoint's labels.

        Dimensions, which follow, stay as they are.
        """
        if self.label_map is None:
            return logits
        independent, count = self.config.multi_label, len(self.config.labels)
        rows = [
            self.label_map.apply(row, multi_label=independent)[0]
            for row in np.exp(logits[:, :count].astype(np.float64)).tolist()
        ]
        smallest = np.finfo(np.float32).tiny
        mapped = np.log(np.maximum(rows, smallest)).astype(np.float32)
        return np.concatenate([mapped, logits[:, count:]], axis=1)


@contextmanager
def opened(model: Model) -> Iterator[ScoredModel]:
    """A model of any kind, opened; a model of torch is restored afterwards.

    Raises:
        CheckpointError: If it does not load.
        HubError: If it cannot be downloaded.
        TypeError: If it is no model.
    """
    if isinstance(model, EmotionModel):
        with as_runtime(model) as runtime:
            yield ScoredModel("the model", runtime, model.config, model.trained_on)
    elif isinstance(model, Classifier):
        own = model.predictor
        stages = read_stages(find_files(model))
        yield ScoredModel(model.info.name, own.runtime, own.config, stages, own.label_map)
    else:
        files = find_files(model)
        found = open_runtime(files)
        yield ScoredModel(str(model), found.runtime, found.config, read_stages(files))
