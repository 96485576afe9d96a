"""Training throughput, in seconds of audio per second: emoser, the authors' recipe, transformers.

    python examples/benchmarks/finetuning.py [--rounds 3] [--only NAME]

A base-size wav2vec 2.0 with random weights learns from batches of 4 clips of 4 s: all but the
convolutions ("PF"), or everything ("EF"), with dropout and without layer drop, so that all do the
same work. All implementations take turns and make two updates per round, so that a noisy machine
affects them equally; the second update is timed, with warm caches, and the median is printed. The
authors' recipe needs `pip install speechbrain`. bfloat16 is left out on processors without bfloat16
arithmetic. Finally a frozen head is trained with and without the kept outputs of the encoder, and
the logits of both are compared.
"""

import argparse
import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    logging,
)

from emoser.bench.machine import describe_machine
from emoser.checkpoints.save import load_model
from emoser.finetune import RECIPES, Utterance, train
from emoser.finetune.data.inputs import build_inputs
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.freezing import freeze
from emoser.finetune.training.loss import TrainingLoss, build_targets
from emoser.finetune.training.optimization import build_optimizer
from emoser.finetune.training.steps import Stepper

RATE, SECONDS, BATCH = 16_000, 4, 4
LABELS = ("neutral", "happy", "angry", "sad")
MODES = {"PF": "partial", "EF": "entire"}
FROZEN_CLIPS, SHORT = 12, 1  # of the frozen head, which encodes each clip in every step
TOLERANCE = 1e-5

Steps = Iterator[None]


def write_clips(folder: Path, count: int, seconds: int = SECONDS) -> list[Utterance]:
    generator = np.random.default_rng(0)
    utterances = []
    for index in range(count):
        path = folder / f"{seconds}-{index}.wav"
        soundfile.write(path, generator.standard_normal(seconds * RATE) / 10, RATE)
        utterances.append(Utterance(str(path), LABELS[index % 4]))
    return utterances


def write_encoder(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(layerdrop=0.0, **changes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def step_emoser(
    encoder: Path, clips: list[Utterance], folder: Path, recipe: str, **changes: Any
) -> Steps:
    """Updates as in `emoser.finetune.train`; kept features are computed before the first one."""
    config = replace(RECIPES[f"{recipe}-w2v-base"], base=str(encoder), **changes)
    model = build_initial_model(config, LABELS)
    processes = ProcessGroup("auto")
    freeze(model, config)
    model.to(processes.device).eval()
    file = Path(tempfile.mkdtemp(dir=folder)) / "training.features"
    inputs = build_inputs(model, Recordings(clips), config, file)
    loss = TrainingLoss(config.optimisation, size=model.encoder.hidden_size)
    stepper = Stepper(
        model=model,
        loss=loss,
        optimizer=build_optimizer(model, loss, config),
        config=config,
        processes=processes,
        num_steps=1000,
    )
    targets = build_targets(clips, LABELS, restricted={})
    for step in range(1000):
        stepper.update(range(BATCH), inputs, targets, step)
        yield


def step_speechbrain(encoder: Path, clips: list[Utterance], folder: Path, recipe: str) -> Steps:
    """The authors' modules in the order of their recipe."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.losses import nll_loss
    from speechbrain.nnet.pooling import StatisticsPooling

    wrapper = Wav2Vec2(
        str(encoder),
        str(folder / "cache"),
        output_norm=True,
        freeze_feature_extractor=recipe == "PF",
    )
    pooling = StatisticsPooling(return_std=False)
    head = Linear(input_size=768, n_neurons=4, bias=False)
    optimizers = (
        torch.optim.Adam(head.parameters(), lr=1e-4),
        torch.optim.Adam(wrapper.parameters(), lr=1e-5),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    modules = torch.nn.ModuleList([wrapper, head]).to(device).train()
    samples = [torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0]) for clip in clips]
    batch = torch.stack(samples[:BATCH]).to(device)
    lengths, targets = torch.ones(BATCH, device=device), torch.arange(BATCH, device=device) % 4
    while True:
        frames = pooling(wrapper(batch, lengths), lengths)
        scores = torch.log_softmax(head(frames).squeeze(1), dim=-1)
        nll_loss(scores, targets).backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield


class Stepwise(TrainerCallback):
    """Makes a Trainer in its own thread do one update at a time."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.last = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the first request."""
        self.done.release()
        self.go.acquire()

    def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> None:
        """Report the update, and wait for the next request."""
        self.done.release()
        self.go.acquire()
        control.should_training_stop = self.last


def step_trainer(
    encoder: Path, clips: list[Utterance], folder: Path, recipe: str, *, bf16: bool = False
) -> Steps:
    """The Trainer of transformers on its own classification model."""
    model = Wav2Vec2ForSequenceClassification.from_pretrained(
        encoder, num_labels=4, classifier_proj_size=768, dtype=torch.float32
    )
    if recipe == "PF":
        model.freeze_feature_encoder()
    model.config.apply_spec_augment = False
    rows = [
        {
            "input_values": torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0]),
            "labels": index % 4,
        }
        for index, clip in enumerate(clips)
    ]
    stepwise = Stepwise()
    arguments = TrainingArguments(
        str(folder / "trainer"),
        per_device_train_batch_size=BATCH,
        max_steps=1000,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16,
        disable_tqdm=True,
        logging_strategy="no",
        max_grad_norm=5.0,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[stepwise])
    thread = threading.Thread(target=trainer.train, daemon=True)
    thread.start()
    stepwise.done.acquire()
    try:
        while True:
            stepwise.go.release()
            stepwise.done.acquire()
            yield
    finally:
        stepwise.last = True
        stepwise.go.release()
        thread.join()


def has_bfloat16() -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(describe_machine()["bfloat16"])


def list_implementations(
    encoder: Path, clips: list[Utterance], folder: Path
) -> dict[str, Callable[[], Steps]]:
    runs: dict[str, Callable[[], Steps]] = {}
    for name in MODES:
        runs[f"{name} SpeechBrain float32"] = lambda name=name: step_speechbrain(
            encoder, clips, folder, name
        )
        runs[f"{name} Trainer float32"] = lambda name=name: step_trainer(
            encoder, clips, folder, name
        )
        runs[f"{name} emoser float32"] = lambda name=name: step_emoser(encoder, clips, folder, name)
    runs["PF emoser float32, nothing kept"] = lambda: step_emoser(
        encoder, clips, folder, "PF", cache="off"
    )
    if not has_bfloat16():
        print("bfloat16: not measured, this processor has no arithmetic for it")
        return runs
    for name in MODES:
        runs[f"{name} Trainer bfloat16"] = lambda name=name: step_trainer(
            encoder, clips, folder, name, bf16=True
        )
        runs[f"{name} emoser bfloat16"] = lambda name=name: step_emoser(
            encoder, clips, folder, name, precision="bfloat16"
        )
    return runs


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def race(runs: dict[str, Callable[[], Steps]], rounds: int) -> dict[str, float]:
    """Audio seconds per second of every implementation; they take turns."""
    steps = {title: run() for title, run in runs.items()}
    seconds: dict[str, list[float]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, implementation in steps.items():
            next(implementation)
            synchronize()
            began = time.perf_counter()
            next(implementation)
            synchronize()
            seconds[title].append(time.perf_counter() - began)
    for implementation in steps.values():
        implementation.close()
    return {title: BATCH * SECONDS / statistics.median(each) for title, each in seconds.items()}


def print_table(speeds: dict[str, float]) -> None:
    print(
        f"{'audio seconds per second':32s} {'speed':>7s} {'x SpeechBrain':>14s} {'x Trainer':>10s}"
    )
    for title, speed in speeds.items():
        mode = title[:2]
        kind = "bfloat16" if "bfloat16" in title else "float32"
        ratios = [
            f"{speed / speeds[other]:.2f}" if other in speeds else "-"
            for other in (f"{mode} SpeechBrain float32", f"{mode} Trainer {kind}")
        ]
        print(f"{title:32s} {speed:7.2f} {ratios[0]:>14s} {ratios[1]:>10s}")


def compare_frozen(encoder: Path, folder: Path) -> None:
    """An epoch of the SUPERB head with kept layers, and with the encoder in every step."""
    clips = write_clips(folder, FROZEN_CLIPS, SHORT)
    seconds, models = {}, {}
    frozen = replace(RECIPES["Frozen-w2v-base"], base=str(encoder), batch_size=BATCH, epochs=2)
    for cache in ("float32", "off"):
        config = replace(frozen, cache=cache)
        output = Path(tempfile.mkdtemp(dir=folder))
        model = build_initial_model(config, LABELS)
        result = train(
            clips, clips[:1], model=model, config=config, output=output, share_speakers=True
        )
        seconds[cache] = min(epoch["seconds"] for epoch in result.epochs)
        models[cache] = load_model(result.folder).eval()
    samples = torch.from_numpy(soundfile.read(clips[0].path, dtype="float32")[0])[None]
    with torch.inference_mode():
        logits = {cache: model(samples).logits for cache, model in models.items()}
    difference = float((logits["float32"] - logits["off"]).abs().max())
    if difference > TOLERANCE:
        raise SystemExit(f"the frozen head differs by {difference:.1e} with what is kept")
    ratio = seconds["off"] / seconds["float32"]
    print(
        f"frozen head, an epoch of {FROZEN_CLIPS} clips: kept {1000 * seconds['float32']:.1f} ms, "
        f"not kept {1000 * seconds['off']:.0f} ms: {ratio:.0f} x; logits {difference:.1e} apart"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="updates of each that are timed")
    parser.add_argument("--only", help="part of the name of what to run, such as PF or frozen")
    arguments = parser.parse_args()
    wanted = arguments.only or ""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = write_encoder(folder / "encoder")
        clips = write_clips(folder, 2 * BATCH)
        runs = list_implementations(encoder, clips, folder)
        for mode in MODES:  # one mode at a time, to limit memory
            chosen = {title: run for title, run in runs.items()
                      if title.startswith(mode) and wanted in title}  # fmt: skip
            if chosen:
                print_table(race(chosen, arguments.rounds))
                gc.collect()
        if wanted in "frozen":
            compare_frozen(encoder, folder)


if __name__ == "__main__":
    main()
