"""Pretrain the network of emoser-tiny: it predicts the frames of emoser-small's encoder.

    python examples/bundled/pretrain.py --base openai/whisper-base --data PATH --output DIR

PATH holds the corpora with a table `manifest.csv`. DIR/pretrained4.pt is the network that the
recipe of `recipe.py` starts from. Run the same command again to resume an interrupted run.

As in DistilHuBERT (arXiv 2110.01900), the targets are the frames of a layer of the teacher, here
the third one of whisper-base, and their mean and deviation over the clip. No label is used, and
RAVDESS and nEMO are not, so that all speakers tested in `measure.py` are new to the network.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from distillation import AUGMENTATION, LONGEST_SECONDS, Targets, TargetSet, encode_targets, read_all
from network import ENCODER, SEED, build_network
from torch import Tensor, nn

from emoser.finetune import FinetuneConfig, Utterance
from emoser.finetune.cpu_math import quick_math
from emoser.finetune.data.batches import plan_epoch
from emoser.finetune.training.optimization import (
    WeightAverage,
    build_optimizer,
    clip_gradients,
    rate_factor,
    set_rates,
)

POOLED_WEIGHT = 0.5
LARGEST_ERROR = 4.0  # of a pooled feature, in standard deviations; larger ones are clipped
UPDATE_SECONDS = 0.3  # on one core
SAVE_EVERY, LOG_EVERY = 200, 50
DEVICE = torch.device("cpu")

FIRST_CYCLE = FinetuneConfig(
    epochs=1,
    batch_size=32,
    epoch_clips=1500 * 32,
    optimizer="muon",
    encoder_learning_rate=1.5e-3,
    head_learning_rate=1.5e-3,
    weight_decay=0.02,
    warmup=0.06,
    mode="entire",
    sampling="balanced",
    corpus_weights={"cremad": 0.32, "emogator": 0.28, "librispeech": 0.25, "picovoice": 0.15},
    crop_seconds=LONGEST_SECONDS,
    augmentation=AUGMENTATION,
    precision="bfloat16",
    seed=SEED,
)
CYCLES = (
    FIRST_CYCLE,
    FIRST_CYCLE.replace(epoch_clips=3500 * 32, seed=SEED + 1),
    FIRST_CYCLE.replace(epoch_clips=2500 * 32, seed=SEED + 2),
    FIRST_CYCLE.replace(epoch_clips=4000 * 32, seed=SEED + 3),
)
"""Each starts at the highest learning rate again, a warm restart (arXiv 1608.03983)."""
PRETRAINED = f"pretrained{len(CYCLES)}.pt"


class StudentOutput(NamedTuple):
    """The output of a student for a batch, and its errors.

    Attributes:
        logits: (B, C).
        frame_error: Mean squared error of the standardised frames, a scalar.
        pooled_error: The same of the pooled features.
        explained: Share of the variance of the frames that is explained, a scalar.
    """

    logits: Tensor
    frame_error: Tensor
    pooled_error: Tensor
    explained: Tensor


Criterion = Callable[[StudentOutput, list[int]], Tensor]
"""The loss of the output for the clips at some places, a scalar."""


class Student(nn.Module):
    """The network, and two linear layers that predict the teacher's frames and pooled features.

    The targets are standardised by their mean and deviation in the first target set.
    """

    def __init__(self, targets: TargetSet, *, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = build_network(targets.speech, seed=seed)
        frames = torch.from_numpy(np.concatenate(targets.frames[::5])).float()
        for name, values in (("frames", frames), ("pooled", targets.pooled)):
            self.register_buffer(f"{name}_mean", values.mean(dim=0))
            self.register_buffer(f"{name}_scale", values.std(dim=0) + 1e-4)
        self.to_frames = nn.Linear(ENCODER.hidden_size, frames.shape[1])
        self.to_pooled = nn.Linear(ENCODER.hidden_size, targets.pooled.shape[1])

    def forward(self, targets: Targets) -> StudentOutput:
        """Logits and errors for a batch."""
        encoded = self.model.encode(targets.samples, targets.lengths)
        output = self.model.classify(encoded)
        frames = (targets.frames - self.frames_mean) / self.frames_scale
        weights = targets.valid / targets.valid.sum()
        errors = (self.to_frames(encoded.frames).float() - frames).square().mean(dim=-1)
        error = (errors * weights).sum()
        variance = (frames.square().mean(dim=-1) * weights).sum()
        pooled = (targets.pooled - self.pooled_mean) / self.pooled_scale
        distances = self.to_pooled(output.embedding).float() - pooled
        distances = distances.clamp(-LARGEST_ERROR, LARGEST_ERROR).square().mean(dim=-1)
        pooled_error = (distances * targets.whole).sum() / targets.whole.sum().clamp(min=1.0)
        return StudentOutput(
            output.logits.float(), error, pooled_error, 1.0 - error.detach() / variance
        )


def train_student(
    student: Student, targets: TargetSet, config: FinetuneConfig, criterion: Criterion, file: Path
) -> None:
    """Train a student, or resume an interrupted run.

    It ends with the moving average of its weights, if the settings have one.

    Args:
        student: The student.
        targets: The training set.
        config: The settings.
        criterion: The loss.
        file: Of the result, which the caller writes with `write_result`; the state of an
            unfinished run is kept beside it.
    """
    optimizer = build_optimizer(
        student.model, nn.ModuleList([student.to_frames, student.to_pooled]), config
    )
    average = WeightAverage(student.model, config.schedule)
    state, first = file.with_suffix(".state"), 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        student.load_state_dict(saved["student"])
        optimizer.load_state_dict(saved["optimizer"])
        average.load(saved["average"])
        first = saved["step"]
    batches = plan_epoch(targets.speech, [], config, epoch=0)
    left = (len(batches) - first) * UPDATE_SECONDS / 60.0
    print(
        f"{file.stem}: {len(batches) - first} updates, about {left:.0f} minutes on one core",
        flush=True,
    )
    student.train()
    began = time.monotonic()
    for step in range(first, len(batches)):
        set_rates(optimizer, rate_factor(step, len(batches), config))
        torch.manual_seed(step + 1000 * config.run.seed)
        np.random.seed(step)  # transformers draws its masks there
        drawn = targets.draw(batches[step], np.random.default_rng([config.run.seed, 7, step]))
        with quick_math(DEVICE), torch.autocast("cpu", dtype=torch.bfloat16):
            output = student(drawn)
        loss = criterion(output, batches[step])
        loss.backward()
        clip_gradients(optimizer, config)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        if (step + 1) % LOG_EVERY == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            explained = f"variance explained {output.explained:.3f}"
            print(f"{step + 1} loss {loss:.3f} {explained} {pace:.2f} s", flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            content = {
                "student": student.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.tensors,
                "step": step + 1,
            }
            write(content, state)
    with average.applied():
        averaged = copy.deepcopy(student.state_dict())
    student.load_state_dict(averaged)


def write(content: object, file: Path) -> None:
    """Write a file as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".unfinished")
    torch.save(content, temporary)
    temporary.replace(file)


def write_result(module: nn.Module, file: Path) -> None:
    """Write the weights of a finished run, and remove its state."""
    write(module.state_dict(), file)
    file.with_suffix(".state").unlink(missing_ok=True)


def read_pretraining(data: Path) -> list[Utterance]:
    """The recordings of the pretraining."""
    return [item for item in read_all(data) if item.corpus in FIRST_CYCLE.data.corpus_weights]


def disable_masking(student: Student) -> None:
    """Train without dropout and masks: the many targets of a frame regularise enough."""
    student.model.encoder.config.apply_spec_augment = False
    for part in student.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    speech = read_pretraining(arguments.data)
    print(f"{len(speech)} recordings; to encode them takes about 4 minutes on one core")
    targets = encode_targets(speech, arguments.base, arguments.output / "targets")
    student = Student(targets, seed=SEED)
    disable_masking(student)
    for number, config in enumerate(CYCLES, start=1):
        file = arguments.output / f"pretrained{number}.pt"
        if file.is_file():
            student.load_state_dict(torch.load(file, weights_only=True))
            continue
        train_student(
            student,
            targets,
            config,
            lambda output, _: output.frame_error + POOLED_WEIGHT * output.pooled_error,
            file,
        )
        write_result(student, file)


if __name__ == "__main__":
    main()
