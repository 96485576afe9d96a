"""Training throughput, in seconds of audio per second: emoser, the authors' recipe, transformers.

    python examples/benchmarks/finetuning.py [--steps 4] [--only NAME]

Partial fine-tuning of a base-size wav2vec 2.0 with random weights on batches of 4 clips of 4 s.
The authors' recipe needs `pip install speechbrain`. What emoser keeps of the frozen convolutions
is computed before the clock starts, as it is in every epoch but the first. At the end, a frozen
head is trained with and without what emoser keeps of the encoder.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
)

from emoser.finetune import RECIPES, Utterance, train
from emoser.finetune.setup import build_start

RATE, SECONDS, BATCH = 16_000, 4, 4
LABELS = ("neutral", "happy", "angry", "sad")
RECIPE = replace(RECIPES["PF-w2v-base"], epochs=2)


def write_clips(folder: Path, count: int) -> list[Utterance]:
    generator = np.random.default_rng(0)
    utterances = []
    for index in range(count):
        path = folder / f"{index}.wav"
        soundfile.write(path, generator.standard_normal(SECONDS * RATE) / 10, RATE)
        utterances.append(Utterance(str(path), LABELS[index % 4]))
    return utterances


def write_encoder(folder: Path) -> Path:
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def run_emoser(encoder: Path, clips: list[Utterance], folder: Path, **changes: object) -> float:
    """The second epoch of a run; the first one has filled caches of all kinds."""
    config = replace(RECIPE, base=str(encoder), save_every_steps=10**6, **changes)
    output = Path(tempfile.mkdtemp(dir=folder))
    model = build_start(config, LABELS)
    result = train(clips, clips[:1], model=model, config=config, output=output, share_speakers=True)
    return len(clips) * SECONDS / result.epochs[-1]["seconds"]


def time_steps(step: Callable[[torch.Tensor], None], clips: list[Utterance]) -> float:
    samples = [torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0]) for clip in clips]
    batches = [torch.stack(samples[at : at + BATCH]) for at in range(0, len(samples), BATCH)]
    for batch in batches:
        step(batch)
    began = time.perf_counter()
    for batch in batches:
        step(batch)
    return len(clips) * SECONDS / (time.perf_counter() - began)


def run_speechbrain(encoder: Path, clips: list[Utterance], folder: Path) -> float:
    """The authors' modules in the order of their recipe."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.losses import nll_loss
    from speechbrain.nnet.pooling import StatisticsPooling

    wrapper = Wav2Vec2(
        str(encoder), str(folder / "cache"), output_norm=True, freeze_feature_extractor=True
    )
    pooling = StatisticsPooling(return_std=False)
    head = Linear(input_size=768, n_neurons=4, bias=False)
    optimizers = (
        torch.optim.Adam(head.parameters(), lr=1e-4),
        torch.optim.Adam(wrapper.parameters(), lr=1e-5),
    )
    modules = torch.nn.ModuleList([wrapper, head]).train()

    def step(batch: torch.Tensor) -> None:
        lengths = torch.ones(len(batch))
        frames = pooling(wrapper(batch, lengths), lengths)
        scores = torch.log_softmax(head(frames).squeeze(1), dim=-1)
        nll_loss(scores, torch.arange(len(batch)) % 4).backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return time_steps(step, clips)


def run_trainer(encoder: Path, clips: list[Utterance], folder: Path, *, bf16: bool) -> float:
    """The Trainer of transformers on its own classification model."""
    model = Wav2Vec2ForSequenceClassification.from_pretrained(
        encoder, num_labels=4, classifier_proj_size=768, dtype=torch.float32
    )
    model.freeze_feature_encoder()
    model.config.apply_spec_augment = False
    rows = [
        {
            "input_values": torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0]),
            "labels": index % 4,
        }
        for index, clip in enumerate(clips)
    ]
    arguments = TrainingArguments(
        str(folder / "trainer"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=2,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16,
        disable_tqdm=True,
        logging_strategy="no",
        max_grad_norm=5.0,
    )
    result = Trainer(model, arguments, train_dataset=rows).train()
    return 2 * len(clips) * SECONDS / result.metrics["train_runtime"]


def compare_frozen(encoder: Path, clips: list[Utterance], folder: Path) -> None:
    """An epoch of the SUPERB head with kept layers, and with the encoder in every step."""
    frozen = {"base": str(encoder), "epochs": 2, "batch_size": BATCH}
    speeds = {}
    for cache in ("float32", "off"):
        config = replace(RECIPES["Frozen-w2v-base"], cache=cache, **frozen)
        model = build_start(config, LABELS)
        output = Path(tempfile.mkdtemp(dir=folder))
        result = train(
            clips, clips[:1], model=model, config=config, output=output, share_speakers=True
        )
        speeds[cache] = len(clips) * SECONDS / result.epochs[-1]["seconds"]
    ratio = speeds["float32"] / speeds["off"]
    print(f"frozen head: kept {speeds['float32']:.0f}, not kept {speeds['off']:.1f}: {ratio:.0f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=4, help="updates that are timed")
    parser.add_argument("--only", help="part of the name of what to run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = write_encoder(folder / "encoder")
        clips = write_clips(folder, arguments.steps * BATCH)
        runs: dict[str, Callable[[], float]] = {
            "SpeechBrain float32": lambda: run_speechbrain(encoder, clips, folder),
            "Trainer float32": lambda: run_trainer(encoder, clips, folder, bf16=False),
            "Trainer bfloat16": lambda: run_trainer(encoder, clips, folder, bf16=True),
            "emoser float32": lambda: run_emoser(encoder, clips, folder),
            "emoser float32, nothing kept": lambda: run_emoser(encoder, clips, folder, cache="off"),
            "emoser bfloat16": lambda: run_emoser(encoder, clips, folder, precision="bfloat16"),
        }
        for title, run in runs.items():
            if arguments.only is None or arguments.only in title:
                print(f"{title:32s} {run():6.2f} s of audio per s", flush=True)
        if arguments.only is None or arguments.only in "frozen":
            compare_frozen(encoder, clips, folder)


if __name__ == "__main__":
    main()
