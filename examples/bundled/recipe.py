"""The recipe of emoser-tiny: distillation from emoser-small.

Students start from the network of `pretrain.py`. The teacher is emoser-small without the tuning of
its third layer, with a head that is trained on the same speakers. A student learns the labels,
where the softmax of CREMA-D runs over happy and sad alone, the teacher's logits for every clip, and
its frames and pooled features; of EmoGator and read speech, all but labels. The moving average of
the weights at the last update is taken, so that no speaker chooses it. The encoder is then the mean
of the students of all seeds and of the pretrained one, which transfers better to other corpora (cf.
arXiv 2109.01903), and a linear head is fitted to its embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from distillation import TargetSet, encode_targets, read_all
from frame_head import FRAMES, Frames, encode_speech, fit_frame_head
from network import ALL_LABELS, ENCODER, SEED
from pretrain import FIRST_CYCLE, Student, StudentOutput, train_student, write_result
from small import RECIPE as TEACHER_RECIPE
from small import WINDOW, HeadConfig, fit_head, hide_labels, read_speech
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
NUM_STUDENTS = 2  # of different seeds
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
    pretrained_share=0.3,
)


@dataclass(frozen=True)
class Teacher:
    """What the heads of teachers are fitted to, and what students predict.

    Attributes:
        targets: Of all clips, with and without labels.
        copies: Frames of the labelled clips and of their varied copies.
        places: Index of each labelled clip among them, by its path.
    """

    targets: TargetSet
    copies: Sequence[Frames]
    places: Mapping[str, int]

    def predict(self, training: list[Utterance], targets: TargetSet) -> Tensor:
        """Logits (N, C) for some targets, of a head that is trained on some labelled clips.

        It was trained on the teacher's own frames and reads their means over the longer ones of
        the student, which changes 2 % of its labels.
        """
        rows = [self.places[item.path] for item in training]
        head = fit_frame_head(self.copies, rows, training)
        frames = Frames.gather(targets.frames)
        return torch.from_numpy(head.predict(frames, range(len(targets.frames))))


def load_teacher(data: Path, base: str, folder: Path) -> Teacher:
    """The outputs of the teacher's encoder, computed once and kept in a folder.

    Args:
        data: Folder of `manifest.csv`.
        base: Hub id or folder of whisper-base.
        folder: Folder of the run; what `pretrain.py` has encoded there is read.
    """
    targets = encode_targets(read_all(data), base, folder / "targets")
    speech = read_speech(data)
    copies = encode_speech(build_teacher(base), speech, folder / FRAMES)
    return Teacher(targets, copies, {item.path: place for place, item in enumerate(speech)})


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
    config = fit_config(config, targets.speech)
    files = [file.with_name(f"{file.stem}-student{number}.pt") for number in range(NUM_STUDENTS)]
    loss = None
    for number, part in enumerate(files):
        if part.is_file():
            continue
        loss = loss or DistillationLoss(targets.speech, teacher.predict(training, targets), config)
        seeded = config.replace(seed=NUM_STUDENTS * config.run.seed + number)
        student = Student(targets, seed=seeded.run.seed)
        student.load_state_dict(torch.load(start, weights_only=True))
        train_student(student, targets, seeded, loss, part)
        write_result(student.model, part)
    states = [torch.load(part, weights_only=True) for part in files]
    model = fill_network(
        {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    )
    refit_head(model, teacher.targets.recordings, training)
    write_result(model, file)


@torch.no_grad()
def refit_head(model: EmotionModel, recordings: Recordings, speech: list[Utterance]) -> None:
    """Replace the head by one that is fitted to the embeddings of whole clips and varied copies.

    They are varied as for emoser-small. Without them, a head learns how much quiet the corpora
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
    return fill_network(torch.load(file, weights_only=True))


def fill_network(state: Mapping[str, Tensor]) -> EmotionModel:
    """The network with the weights of a state dictionary."""
    model = build_model(ENCODER, ModelConfig(labels=ALL_LABELS), seed=SEED)
    model.load_state_dict(state)
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
