"""The targets of emoser-tiny: frames and statistics of emoser-small's encoder for every clip.

The teacher encodes every clip once, as it was recorded: the frames, averaged over the longer frames
of emoser-tiny, and their mean and standard deviation over the clip. The student is given an
augmented window of the clip, and its targets are the frames at the same places of the clip. So they
do not depend on the augmentation, and the student learns to be invariant to it.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from network import ENCODER, SAMPLING_RATE
from numpy.typing import NDArray
from small import WINDOW, build_network
from torch import Tensor

from emoser.finetune import Utterance
from emoser.finetune.config import Augmentation
from emoser.finetune.data.augment import augment, change_speed, find_loud
from emoser.finetune.data.batches import collate, length_batches
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.progress import Progress
from emoser.models.model import EmotionModel

STEPS = {"ravdess": 1, "nemo": 1, "cremad": 1, "emogator": 3, "librispeech": 1, "picovoice": 1}
"""Every n-th clip of each corpus is used."""
HOP = math.prod(ENCODER.conv_stride)  # samples from frame to frame of the student
FIELD = 5312  # its receptive field in samples
TEACHER_HOP = 320
FIRST = 7  # of the HOP / TEACHER_HOP frames of the teacher in the student's first
LONGEST_SECONDS = 3.2  # of a window
WHOLE = 0.7  # least share of the clip in a window that has the clip's statistics as a target

AUGMENTATION = Augmentation(
    gain_decibels=0.0,
    speed_probability=0.8,
    speed_change=0.14,
    noise_probability=0.5,
    noise_decibels=(5.0, 35.0),
    tilt_probability=0.6,
    tilt_decibels=4.0,
    reverb_probability=0.25,
    telephone_probability=0.12,
    clipping_probability=0.15,
    trim_probability=0.5,
    trim_seconds=0.15,
)
SAME_SPEED = replace(AUGMENTATION, speed_probability=0.0)

Array = NDArray[np.float32]


def read_all(data: Path) -> list[Utterance]:
    """The recordings of all corpora without their emotions, corpus after corpus."""
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    return [
        Utterance(str(data / row["path"]), "speech", speaker=row["speaker"] or None, corpus=corpus)
        for corpus, step in STEPS.items()
        for row in [row for row in rows if row["corpus"] == corpus][step - 1 :: step]
    ]


class Targets(NamedTuple):
    """Windows of a batch and their targets.

    Attributes:
        samples: (B, T), padded with zeros.
        lengths: Valid samples, (B,).
        frames: Of the teacher, (B, L, D), padded with zeros.
        valid: 1 where a frame is one of the window, else 0, (B, L).
        pooled: Mean and deviation of the teacher's frames over the whole clip, (B, 2 D).
        whole: 1 where the window is most of the clip, else 0, (B,).
    """

    samples: Tensor
    lengths: Tensor
    frames: Tensor
    valid: Tensor
    pooled: Tensor
    whole: Tensor


@dataclass(frozen=True)
class TargetSet:
    """Clips and their targets.

    Attributes:
        speech: The N clips.
        recordings: Their samples.
        frames: Of the teacher for each clip, (L, D).
        pooled: Mean and deviation of the teacher's frames, (N, 2 D).
    """

    speech: list[Utterance]
    recordings: Recordings
    frames: list[NDArray[np.float16]]
    pooled: Tensor

    def select(self, speech: Sequence[Utterance]) -> "TargetSet":
        """The targets of some clips, which may have other labels here."""
        places = {item.path: place for place, item in enumerate(self.speech)}
        chosen = [item for item in speech if item.path in places]
        rows = [places[item.path] for item in chosen]
        return TargetSet(
            chosen,
            self.recordings.select(chosen),
            [self.frames[row] for row in rows],
            self.pooled[rows],
        )

    def draw(self, places: Sequence[int], generator: np.random.Generator) -> Targets:
        """An augmented window of each of some clips."""
        windows = [self._augment(place, generator) for place in places]
        samples, lengths = collate([samples for samples, _, _ in windows])
        counts = torch.tensor([len(frames) for _, frames, _ in windows])
        padded = torch.zeros(len(places), int(counts.max()), self.frames[0].shape[1])
        for row, (_, frames, _) in zip(padded, windows, strict=True):
            row[: len(frames)] = torch.from_numpy(frames)
        valid = torch.arange(padded.shape[1]) < counts[:, None]
        whole = torch.tensor([share >= WHOLE for _, _, share in windows])
        pooled = self.pooled[list(places)]
        return Targets(samples, lengths, padded, valid.float(), pooled, whole.float())

    def _augment(self, place: int, generator: np.random.Generator) -> tuple[Array, Array, float]:
        """A window, the teacher's frames for it (L, D), and its share of the clip."""
        clip = self.recordings[place]
        begin, end = 0, len(clip)
        if generator.random() < AUGMENTATION.trim_probability:
            loud, longest = find_loud(clip), AUGMENTATION.trim_seconds * SAMPLING_RATE
            before, behind = generator.uniform(0.0, longest, size=2)
            begin, end = max(loud.start - round(before), 0), min(loud.stop + round(behind), end)
        speed = 1.0
        if generator.random() < AUGMENTATION.speed_probability:
            speed += generator.uniform(-1.0, 1.0) * AUGMENTATION.speed_change
        kept, most = end - begin, int(LONGEST_SECONDS * SAMPLING_RATE * speed)
        if kept > most:
            begin += int(generator.integers(kept - most + 1))
            end = begin + most
        samples = augment(change_speed(clip[begin:end], speed), SAME_SPEED, generator)
        samples = np.pad(samples, (0, max(FIELD - len(samples), 0)))
        count = (len(samples) - FIELD) // HOP + 1
        centres = begin + (np.arange(count) * HOP + FIELD / 2.0) * speed
        frames = interpolate(self.frames[place], (centres - FIELD / 2.0) / HOP)
        return samples[: (count - 1) * HOP + FIELD], frames, (end - begin) / kept


def interpolate(frames: NDArray[np.floating], positions: NDArray[np.floating]) -> Array:
    """Rows at fractional positions, linear between neighbours, (L, D).

    Example:
        >>> interpolate(np.array([[0.0], [10.0]]), np.array([-1.0, 0.25, 3.0])).tolist()
        [[0.0], [2.5], [10.0]]
    """
    places = np.clip(positions, 0, len(frames) - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, len(frames) - 1)
    share = (places - below)[:, None].astype(np.float32)
    return (frames[below] * (1.0 - share) + frames[above] * share).astype(np.float32)


def encode_targets(speech: Sequence[Utterance], base: str, folder: Path) -> TargetSet:
    """The targets of all clips of two of the student's frames to 30 s.

    Those of each corpus are kept in a file of the folder, and read from there the next time.

    Args:
        speech: The clips, corpus after corpus.
        base: Hub id or folder of whisper-base.
        folder: Folder of the files.

    Raises:
        ValueError: If a file is of other recordings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recordings = Recordings(speech)
    sizes = recordings.num_samples
    used = [i for i, size in zip(speech, sizes, strict=True) if FIELD + HOP <= size <= WINDOW]
    model, frames, pooled = None, [], []
    for corpus in dict.fromkeys(item.corpus for item in used):
        part = recordings.select([item for item in used if item.corpus == corpus])
        file = folder / f"{corpus}.npz"
        if not file.is_file():
            model = model or build_network(base)
            encode_corpus(model, part, file)
        with np.load(file) as stored:
            edges, values = np.cumsum(count_frames(part)), stored["frames"]
            if edges[-1] != len(values):
                raise ValueError(f"{file} is of other recordings; delete it")
            frames += np.split(values, edges[:-1])
            pooled.append(torch.from_numpy(stored["pooled"]))
    return TargetSet(used, recordings.select(used), frames, torch.cat(pooled))


def count_frames(recordings: Recordings) -> list[int]:
    """Number of the student's frames in each clip."""
    return [(size - FIELD) // HOP + 1 for size in recordings.num_samples]


@torch.inference_mode()
def encode_corpus(model: EmotionModel, recordings: Recordings, file: Path) -> None:
    """Write the teacher's frames and pooled features of the clips of a corpus."""
    frames: dict[int, NDArray[np.float16]] = {}
    counts, encoder = count_frames(recordings), model.encoder
    pooled = torch.zeros(len(recordings), model.embedding_size)
    for batch in Progress(length_batches(recordings.num_samples), f"encoding {file.stem}, batches"):
        samples, lengths = collate([recordings[place] for place in batch])
        spectrogram = encoder.extract_features(encoder.normalize(samples, lengths), lengths)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encoder.contextualize(spectrogram, lengths, all_layers=False)
        encoded = encoded._replace(frames=encoded.frames.float())
        pooled[batch] = model.classify(encoded).embedding
        for place, row, size in zip(batch, encoded.frames, encoded.num_frames, strict=True):
            frames[place] = average_frames(row[:size], counts[place]).half().numpy()
    temporary = file.with_suffix(".unfinished")
    with temporary.open("wb") as opened:
        ordered = np.concatenate([frames[place] for place in range(len(recordings))])
        np.savez(opened, frames=ordered, pooled=pooled.numpy())
    temporary.replace(file)


def average_frames(frames: Tensor, count: int) -> Tensor:
    """The teacher's frames (L, D) in the middle of each of the student's, (count, D)."""
    ratio = HOP // TEACHER_HOP
    last = FIRST + count * ratio
    padded = torch.cat([frames, frames[-1:].expand(max(last - len(frames), 0), -1)])
    return padded[FIRST:last].unflatten(0, (count, ratio)).mean(dim=1)
