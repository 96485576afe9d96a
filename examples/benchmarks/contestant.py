"""One side of a benchmark, in a process of its own: it is started by the other scripts here.

Loads a model with emoser, transformers' pipeline or SpeechBrain, answers one clip and says so;
then reads tasks, one JSON object per line, and answers each with the seconds that it took.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shapes import LABELS, RATE, make_clip

from emoser.bench.machine import read_peak


def open_speechbrain(folder: str) -> tuple[Callable, Callable]:
    """SpeechBrain's EncoderClassifier around the same encoder, pooled and classified linearly."""
    import torch
    from speechbrain.dataio.encoder import CategoricalEncoder
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.pooling import StatisticsPooling

    encoder = Wav2Vec2(folder, folder + "-cache", output_norm=True, freeze=True)
    labels = CategoricalEncoder()
    labels.update_from_iterable(LABELS)
    labels.expect_len(len(LABELS))
    classifier = EncoderClassifier(
        modules={
            "compute_features": encoder,
            "mean_var_norm": same(),
            "embedding_model": StatisticsPooling(return_std=False),
            "classifier": Linear(input_size=encoder.model.config.hidden_size, n_neurons=4),
        },
        hparams={"label_encoder": labels},
        run_opts={"device": "cpu"},
    )

    def predict(samples: object) -> object:
        return classifier.classify_batch(torch.as_tensor(samples)[None])

    def predict_files(paths: list[str], batch: int) -> None:
        for at in range(0, len(paths), batch):
            clips = [classifier.load_audio(path, savedir=None) for path in paths[at : at + batch]]
            longest = max(map(len, clips))
            lengths = torch.tensor([len(clip) / longest for clip in clips])
            padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
            classifier.classify_batch(padded, lengths)

    return predict, predict_files


def same() -> object:
    """A module that gives features as they came."""
    import torch

    class Same(torch.nn.Module):
        def forward(self, features: object, lengths: object) -> object:
            return features

    return Same()


def open_emoser(job: dict) -> tuple[Callable, Callable]:
    """A classifier of emoser, which chooses its own batches."""
    from emoser import EmotionClassifier

    classifier = EmotionClassifier.from_pretrained(
        job["model"], device="cpu", dtype=job["dtype"], backend=job["runtime"]
    )
    job.update(runtime=classifier.info.backend, dtype=classifier.info.dtype)
    return (
        lambda clip: classifier.predict(clip, sampling_rate=RATE),
        lambda paths, batch: classifier.predict_batch(paths),
    )


def open_pipeline(folder: str) -> tuple[Callable, Callable]:
    """The pipeline of transformers, fed by soundfile and soxr (it has no decoder of its own)."""
    import soundfile
    import soxr
    import torch

    from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers

    from transformers import pipeline  # isort: skip

    listen = pipeline("audio-classification", folder, device="cpu", dtype=torch.float32)

    def read(path: str) -> dict:
        samples, rate = soundfile.read(path, dtype="float32")
        return {"raw": soxr.resample(samples, rate, RATE), "sampling_rate": RATE}

    def predict_files(paths: list[str], batch: int) -> None:
        list(listen((read(path) for path in paths), batch_size=batch))

    return lambda clip: listen({"raw": clip, "sampling_rate": RATE}), predict_files


def open_side(job: dict) -> tuple[Callable, Callable]:
    """What predicts one clip, and what predicts files in batches of a size."""
    if job["runtime"] == "speechbrain":
        return open_speechbrain(job["model"])
    return open_pipeline(job["model"]) if job["runtime"] == "transformers" else open_emoser(job)


def main() -> None:
    """Answer tasks until the standard input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.argv[1])
    try:
        predict, predict_files = open_side(job)
        predict(make_clip(4.0))
    except Exception as error:  # the table says why a side is missing
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}), file=out, flush=True)
        return
    print(json.dumps(job), file=out, flush=True)
    for task in map(json.loads, sys.stdin):
        times = []
        if "clip" in task:
            clip = make_clip(task["clip"])
            predict(clip)
            for _ in range(task["repeats"]):
                began = time.perf_counter()
                predict(clip)
                times.append(time.perf_counter() - began)
        else:
            paths = sorted(str(path) for path in Path(task["folder"]).iterdir())[: task["count"]]
            began = time.perf_counter()
            predict_files(paths, task["batch"])
            times.append(time.perf_counter() - began)
        print(json.dumps({"times": times, "peak_mib": read_peak()}), file=out, flush=True)


if __name__ == "__main__":
    main()
