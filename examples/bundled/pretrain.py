"""Pretrain the network of emoser-tiny on speech without labels.

    python examples/bundled/pretrain.py --data PATH --output DIR

PATH holds the corpora with a table `manifest.csv`. DIR/network.pt is the encoder that the recipe of
`recipe.py` starts from. Run the same command again to resume an interrupted run.

The task is that of HuBERT (arXiv 2106.07447): half of the frames are masked, and the network
predicts the cluster of each quarter of a frame. There are two sets of clusters: of MFCCs with their
derivatives, and of pitch, periodicity and level, which MFCCs hardly represent. As in WavLM (arXiv
2110.13900) the clusters are those of the clean clip, while the input of the network has reverb,
noise, telephone lines and other microphones added. RAVDESS and nEMO are not used, so that all
speakers tested in `measure.py` are new to the network.
"""

import argparse
import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from network import ENCODER, SAMPLING_RATE, SEED, build_network
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import compute_deltas
from torchaudio.transforms import MFCC
from tqdm import tqdm

from emoser.finetune import FinetuneConfig, Utterance
from emoser.finetune.config import Augmentation
from emoser.finetune.data.acoustics import track_voice
from emoser.finetune.data.augment import augment, change_speed
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.training.cpu_math import quick_math
from emoser.finetune.training.optimization import build_optimizer, rate_factor, set_rates
from emoser.models.model import EmotionModel

CORPORA = ("cremad", "librispeech", "picovoice")
SPEEDS = (0.9, 1.0, 1.1)
HOP = math.prod(ENCODER.conv_stride)  # samples from frame to frame of the encoder
FIELD = 5312  # receptive field of a frame in samples
PARTS = 4  # of a frame, each with its own cluster
PART_HOP = HOP // PARTS
FIRST_CENTRE = (FIELD - HOP + PART_HOP) // 2  # sample in the middle of the first part
WINDOW, VOICE_HOP = 512, 160  # samples of the analysis of sound and voice
SOUND_CLUSTERS, VOICE_CLUSTERS = 100, 50
CLUSTERED_ROWS = 150_000
SHORTEST_FRAMES = 6  # of a training clip
STEPS = 8000
BATCH, CROP_FRAMES = 24, 37  # 3 s
SPARE_FRAMES = -(-(FIELD - HOP) // HOP)  # receptive field beyond the last hop
MASK_STARTS, MASK_FRAMES = 0.2, 3  # about half of all frames
UNMASKED_WEIGHT = 0.2  # of frames that are not masked
SAVE_EVERY, LOG_EVERY = 200, 25
DEVICE = torch.device("cpu")

AUGMENTATION = Augmentation(
    speed_probability=0.0,
    noise_probability=0.6,
    noise_decibels=(3.0, 30.0),
    tilt_probability=0.6,
    tilt_decibels=4.0,
    reverb_probability=0.25,
    telephone_probability=0.1,
)

CONFIG = FinetuneConfig(
    optimizer="muon",
    encoder_learning_rate=1.5e-3,
    head_learning_rate=1.5e-3,
    weight_decay=0.02,
    warmup=0.06,
    mode="entire",
    precision="bfloat16",
)


class Clip(NamedTuple):
    """Speech and the clusters of its frames.

    Attributes:
        samples: At 16 kHz, 16 bit, (T,).
        clusters: Of sound and of voice in each part of a frame, (L, P, 2).
    """

    samples: NDArray[np.int16]
    clusters: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Input and targets of a step.

    Attributes:
        samples: Waveforms, (B, T).
        clusters: Targets of the parts of each frame, (B, L, P, 2).
        masked: Whether a frame is masked, (B, L).
    """

    samples: Tensor
    clusters: Tensor
    masked: Tensor


class Guesser(nn.Module):
    """The encoder, and two linear layers that predict the clusters of the parts of its frames."""

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.model = model
        counts = (SOUND_CLUSTERS, VOICE_CLUSTERS)
        self.heads = nn.ModuleList(
            nn.Linear(ENCODER.hidden_size, PARTS * count) for count in counts
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the accuracy of the sound clusters of masked frames."""
        encoder = self.model.encoder
        features = encoder.extract_features(encoder.normalize(batch.samples, None), None)
        frames = encoder.backbone(features, mask_time_indices=batch.masked)[0]
        weights = torch.where(batch.masked, 1.0, UNMASKED_WEIGHT)
        weights = (weights / weights.sum() / PARTS).repeat_interleave(PARTS)
        predicted = [
            layer(frames).float().flatten().unflatten(0, (len(weights), -1)) for layer in self.heads
        ]
        losses = [
            functional.cross_entropy(logits, truth, reduction="none")
            for logits, truth in zip(predicted, batch.clusters.flatten(0, 2).unbind(1), strict=True)
        ]
        right = predicted[0].argmax(dim=1) == batch.clusters[..., 0].flatten()
        hits = right[batch.masked.repeat_interleave(PARTS)].float().mean()
        return ((losses[0] + losses[1]) * weights).sum(), hits


def read_speech(data: Path) -> list[Utterance]:
    """All recordings of the corpora, with and without emotion."""
    with open(data / "manifest.csv", encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["corpus"] in CORPORA]
    return [Utterance(data / row["path"], "speech", corpus=row["corpus"]) for row in rows]


def describe_sounds(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """MFCCs of the parts of the encoder's frames with two derivatives, (L, 39)."""
    analysis = MFCC(
        SAMPLING_RATE,
        n_mfcc=13,
        melkwargs={"n_fft": WINDOW, "hop_length": PART_HOP, "n_mels": 40, "center": False},
    )
    centred = torch.from_numpy(samples[FIRST_CENTRE - WINDOW // 2 :])
    first = analysis(centred / centred.std().clamp(min=1e-4))  # (13, L)
    second = compute_deltas(first)
    return torch.cat([first, second, compute_deltas(second)]).T.numpy()


def describe_voice(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pitch, periodicity and level of the same with one derivative, (L, 6)."""
    ratio = PART_HOP // VOICE_HOP  # a part is the mean of so many frames
    tracks = track_voice(samples[FIRST_CENTRE - WINDOW // 2 - (ratio - 1) * VOICE_HOP // 2 :])
    tracks = np.column_stack([tracks[:, 0] * tracks[:, 1], tracks[:, 1], tracks[:, 2] / 20.0])
    size = len(tracks) // ratio
    slow = tracks[: size * ratio].reshape(size, ratio, -1).mean(axis=1)
    steps = np.gradient(slow, axis=0)
    return np.concatenate([slow, steps], axis=1).astype(np.float32)


def cut_rows(
    descriptions: list[NDArray[np.float32]], samples: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """The rows that belong to frames of the encoder."""
    size = PARTS * ((len(samples) - FIELD) // HOP + 1)
    return [rows[:size] for rows in descriptions]


def cluster(rows: list[NDArray[np.float32]], count: int) -> list[NDArray[np.int64]]:
    """The nearest of `count` centres for every row, from k-means on a subset of the rows."""
    everything = np.concatenate(rows)
    mean, deviation = everything.mean(axis=0), everything.std(axis=0) + 1e-6
    chosen = np.random.default_rng(SEED).choice(
        len(everything), min(CLUSTERED_ROWS, len(everything)), replace=False
    )
    means = MiniBatchKMeans(count, batch_size=4096, n_init=3, random_state=SEED)
    means.fit((everything[chosen] - mean) / deviation)
    return [means.predict((part - mean) / deviation).astype(np.int64) for part in rows]


def prepare(utterances: list[Utterance]) -> list[Clip]:
    """Every clip at every speed, with the clusters of its frames."""
    recordings = Recordings(utterances)
    clips, sounds, voices = [], [], []
    for index in tqdm(range(len(recordings)), "clusters"):
        for speed in SPEEDS:
            samples = change_speed(recordings[index], speed)
            if len(samples) < FIELD + HOP * SHORTEST_FRAMES:
                continue
            sound, voice = cut_rows([describe_sounds(samples), describe_voice(samples)], samples)
            size = min(len(sound), len(voice)) // PARTS * PARTS
            sounds.append(sound[:size])
            voices.append(voice[:size])
            clips.append(np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16))
    named = zip(
        clips, cluster(sounds, SOUND_CLUSTERS), cluster(voices, VOICE_CLUSTERS), strict=True
    )
    return [
        Clip(samples, np.stack([sound, voice], axis=1).reshape(-1, PARTS, 2))
        for samples, sound, voice in named
    ]


def draw_batch(clips: list[Clip], step: int) -> Batch:
    """The batch of a step: random crops of random clips, augmented, with random masks."""
    generator = np.random.default_rng([SEED, 7, step])
    size = (CROP_FRAMES - 1) * HOP + FIELD
    weights = np.array([len(clip.clusters) for clip in clips], dtype=np.float64)
    chosen = generator.choice(len(clips), BATCH, p=weights / weights.sum())
    samples = np.zeros((BATCH, size), np.float32)
    clusters = np.zeros((BATCH, CROP_FRAMES, PARTS, 2), np.int64)
    for row, index in enumerate(chosen):
        clip = clips[index]
        # A short clip is repeated: its frames stay where they are.
        repeats = -(-(CROP_FRAMES + SPARE_FRAMES) // len(clip.clusters))
        whole = np.tile(clip.samples[: len(clip.clusters) * HOP], repeats)
        names = np.tile(clip.clusters, (repeats, 1, 1))
        start = int(generator.integers(len(names) - CROP_FRAMES - SPARE_FRAMES + 1))
        piece = whole[start * HOP : start * HOP + size].astype(np.float32) / 32768.0
        varied = augment(piece, AUGMENTATION, generator)
        samples[row, : len(varied)] = varied[:size]
        clusters[row] = names[start : start + CROP_FRAMES]
    starts = generator.random((BATCH, CROP_FRAMES)) < MASK_STARTS
    hidden = np.zeros_like(starts)
    for shift in range(MASK_FRAMES):
        hidden[:, shift:] |= starts[:, : CROP_FRAMES - shift]
    return Batch(*(torch.from_numpy(part) for part in (samples, clusters, hidden)))


def build_guesser(utterances: list[Utterance]) -> Guesser:
    """The network with its two layers and a frozen filter bank."""
    torch.manual_seed(SEED)
    model = build_network(utterances, seed=SEED)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # masking is enough
    return Guesser(model)


def learn(guesser: Guesser, clips: list[Clip], output: Path) -> None:
    """Train, or resume from the state in the folder; writes `network.pt`."""
    learning = [item for item in guesser.parameters() if item.requires_grad]
    optimizer = build_optimizer(guesser.model, guesser.heads, CONFIG)
    state, first = output / "state.pt", 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        guesser.load_state_dict(saved["guesser"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    guesser.train()
    began = time.monotonic()
    for step in range(first, STEPS):
        set_rates(optimizer, rate_factor(step, STEPS, CONFIG))
        torch.manual_seed(step)
        np.random.seed(step)  # transformers draws its feature masks there
        with quick_math(DEVICE, CONFIG), torch.autocast("cpu", dtype=torch.bfloat16):
            loss, hits = guesser(draw_batch(clips, step))
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % LOG_EVERY == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"{step + 1} loss {loss:.3f} hits {hits:.3f} {pace:.3f} s", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            write(
                {
                    "guesser": guesser.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
                state,
            )
    write(guesser.model.encoder.state_dict(), output / "network.pt")


def write(content: object, file: Path) -> None:
    """Write a file as a whole or not at all."""
    temporary = file.with_suffix(".unfinished")
    torch.save(content, temporary)
    temporary.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    utterances = read_speech(arguments.data)
    print(f"{len(utterances)} recordings")
    learn(build_guesser(utterances), prepare(utterances), arguments.output)


if __name__ == "__main__":
    main()
