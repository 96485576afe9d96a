"""Score the model after an epoch, from whatever form its clips are kept in.

Several processes share the clips. Knows nothing of how training goes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.batches import length_batches
from emoser.finetune.data.inputs import Inputs, run_model
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.evaluation import Report, score_logits
from emoser.models.model import EmotionModel

if TYPE_CHECKING:
    from emoser.finetune.training.distributed import ProcessGroup


def score_epoch(
    model: EmotionModel,
    inputs: Inputs,
    utterances: Sequence[Utterance],
    config: FinetuneConfig,
    processes: "ProcessGroup",
) -> Report:
    """The figures of a model on its validation set; every clip passes as if it were alone.

    Args:
        model: Is put into eval mode.
        inputs: Its clips.
        utterances: What they are.
        config: Says between which labels to decide.
        processes: Who shares the work.
    """
    model.eval()
    own = length_batches(inputs.num_samples)[processes.rank :: processes.count]
    rows: list[tuple[list[int], list[list[float]]]] = []
    with torch.inference_mode():
        for batch in own:
            loaded = inputs.load(batch).to(processes.device)
            rows.append((batch, run_model(model, loaded).logits.float().cpu().tolist()))
    logits = np.zeros((len(utterances), len(model.config.labels)), dtype=np.float32)
    for indices, values in processes.gather(rows):
        logits[indices] = values
    labels = config.data.evaluation_labels or model.config.labels
    return score_logits(logits, utterances, model.config.labels, labels=labels)
