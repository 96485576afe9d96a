"""The recipe of emoser-tiny: distillation from emoser-small.

It starts from the network of `pretrain.py`. The teacher is the encoder of emoser-small with a
linear head that is fitted to the same training speakers. The student learns the labels, where the
softmax of CREMA-D runs over happy and sad alone, the teacher's logits for every clip, and its
frames and pooled features; of EmoGator and read speech, all but labels. The moving average of the
weights at the last update is taken, so that no speaker chooses it. The encoder is then the mean of
these weights and the pretrained ones, which transfers better to other corpora (cf. arXiv
2109.01903), and the linear head is fitted to its embeddings, as that of the teacher is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from distillation import TargetSet, encode_targets, read_all
from network import ALL_LABELS, ENCODER, SEED
from pretrain import FIRST_CYCLE, Student, StudentOutput, train_student, write_result
from small import RECIPE as TEACHER_RECIPE
from small import WINDOW, HeadConfig, fit_head, hide_labels, pool_speech, read_speech
from small import build_network as build_teacher
from torch import Tensor

from emoser.checkpoints.save import build_model
from emoser.finetune import FinetuneConfig, Utterance
from emoser.finetune.data.inputs import pool_windows
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.training.loss import distillation_loss, masked_cross_entropy, soften
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

UNLABELLED = ("emogator", "librispeech", "picovoice")  # EmoGator's labels are not used
FRAMES_WEIGHT, POOLED_WEIGHT = 0.5, 1.0
HEAD = HeadConfig(ridge=0.02, deviation_scale=1.0)  # of the head at the end

RECIPE = FIRST_CYCLE.replace(
    epoch_clips=900 * 32,
    encoder_learning_rate=6e-4,
    head_learning_rate=6e-4,
    weight_decay=0.03,
    warmup=0.1,
    corpus_weights={
        "ravdess": 0.28,
        "nemo": 0.40,
        "cremad": 0.12,
        "emogator": 0.10,
        "librispeech": 0.05,
        "picovoice": 0.05,
    },
    distillation_weight=0.6,
    distillation_temperature=2.0,
    label_smoothing=0.05,
    ema_decay=0.99,
    pretrained_share=0.5,
)


@dataclass(frozen=True)
class Teacher:
    """What the heads of teachers are fitted to, and what students predict.

    Attributes:
        targets: Of all clips, with and without labels.
        features: Pooled features of the labelled clips and of their varied copies,
            (1 + copies, N, D).
        places: Index of each labelled clip among the N, by its path.
    """

    targets: TargetSet
    features: Tensor
    places: Mapping[str, int]


def load_teacher(data: Path, base: str, folder: Path) -> Teacher:
    """The outputs of the teacher's encoder, computed once and kept in a folder.

    Args:
        data: Folder of `manifest.csv`.
        base: Hub id or folder of whisper-base.
        folder: Folder of the run; what `pretrain.py` has encoded there is read.
    """
    targets = encode_targets(read_all(data), base, folder / "targets")
    speech = read_speech(data)
    features = pool_speech(build_teacher(base), speech, folder / "features")
    return Teacher(targets, features, {item.path: place for place, item in enumerate(speech)})


def fit_config(config: FinetuneConfig, utterances: Sequence[Utterance]) -> FinetuneConfig:
    """The settings without the corpora that are absent."""
    corpora = {item.corpus for item in utterances}
    weights = {k: v for k, v in config.data.corpus_weights.items() if k in corpora}
    return config.replace(corpus_weights=weights)


def train_network(
    training: list[Utterance], teacher: Teacher, file: Path, *, config: FinetuneConfig, start: Path
) -> None:
    """Train a network and write its weights, or resume an interrupted run.

    Args:
        training: The labelled training set.
        teacher: Of this training set, and of all clips without labels.
        file: File for the weights, see `read_network`.
        config: `RECIPE` or a variant; absent corpora are left out.
        start: The network that `pretrain.py` wrote.
    """
    others = [item for item in teacher.targets.speech if item.corpus in UNLABELLED]
    targets = teacher.targets.select([*training, *others])
    rows = [teacher.places[item.path] for item in training]
    head = fit_head(teacher.features[:, rows], training)
    logits = torch.from_numpy(head.predict(targets.pooled))
    student = Student(targets, seed=config.run.seed)
    student.load_state_dict(torch.load(start, weights_only=True))
    config = fit_config(config, targets.speech)
    loss = DistillationLoss(targets.speech, logits, config)
    train_student(student, targets, config, loss, file)
    refit_head(student.model.eval(), teacher.targets.recordings, training)
    write_result(student.model, file)


@torch.no_grad()
def refit_head(model: EmotionModel, recordings: Recordings, speech: list[Utterance]) -> None:
    """Replace the head by one that is fitted to the embeddings of whole clips and varied copies.

    The copies are those of the teacher. Without them, a head learns how much quiet the corpora
    leave before and after a voice.
    """
    windows = Windows(recordings.select(speech), WINDOW)
    copies = [pool_windows(model, windows, TEACHER_RECIPE, copy=copy)[:, 0] for copy in (0, 1)]
    with torch.enable_grad():
        fitted = fit_head(torch.stack(copies), speech, HEAD)
    model.head.classifier.weight.copy_(fitted.weight)
    model.head.classifier.bias.copy_(fitted.bias)


def read_network(file: Path) -> EmotionModel:
    """A trained network for all eight labels, in eval mode."""
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=SEED)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


class DistillationLoss:
    """The loss of a student's output: labels, the teacher's logits, frames and pooled features.

    Args:
        speech: The N clips of the training set.
        logits: Of the teacher, (N, C).
        config: The settings.
    """

    def __init__(self, speech: Sequence[Utterance], logits: Tensor, config: FinetuneConfig) -> None:
        self.settings, self.logits = config.optimisation, logits
        self.labelled = torch.tensor([item.corpus not in UNLABELLED for item in speech])
        self.labels = torch.tensor(
            [ALL_LABELS.index(item.label) if item.label in ALL_LABELS else 0 for item in speech]
        )
        self.allowed = hide_labels(speech) == 0.0

    def __call__(self, output: StudentOutput, places: list[int]) -> Tensor:
        """The loss of the output for the clips at some places, a scalar."""
        rows, settings = torch.tensor(places), self.settings
        temperature = settings.distillation_temperature
        every = torch.ones_like(output.logits, dtype=torch.bool)
        soft = soften(self.logits[rows], every, temperature)
        distilled = distillation_loss(output.logits, soft, every, temperature=temperature)
        labelled = self.labelled[rows]
        known = rows[labelled]
        supervised = masked_cross_entropy(
            output.logits[labelled],
            self.labels[known],
            self.allowed[known],
            smoothing=settings.label_smoothing,
        )
        loss = torch.lerp(supervised, distilled, settings.distillation_weight)
        return loss + FRAMES_WEIGHT * output.frame_error + POOLED_WEIGHT * output.pooled_error
