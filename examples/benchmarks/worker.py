"""The worker process of `speed.py`: that of `emoser bench`, with SpeechBrain and files added."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shapes import LABELS

from emoser import load_audio
from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import time_calls
from emoser.bench.worker import TASKS, LoadedEngine, load_engine, main


def load(job: Mapping[str, Any]) -> LoadedEngine:
    """An engine of emoser, the transformers pipeline, or SpeechBrain."""
    return load_speechbrain(job["model"]) if job["runtime"] == "speechbrain" else load_engine(job)


def load_speechbrain(folder: str) -> LoadedEngine:
    """SpeechBrain's EncoderClassifier with the same encoder, mean pooling and a linear layer."""
    import torch
    from speechbrain.dataio.encoder import CategoricalEncoder
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.pooling import StatisticsPooling

    class Unchanged(torch.nn.Module):
        def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return features

    encoder = Wav2Vec2(folder, folder + "-cache", output_norm=True, freeze=True)
    labels = CategoricalEncoder()
    labels.update_from_iterable(LABELS)
    labels.expect_len(len(LABELS))
    classifier = EncoderClassifier(
        modules={
            "compute_features": encoder,
            "mean_var_norm": Unchanged(),
            "embedding_model": StatisticsPooling(return_std=False),
            "classifier": Linear(input_size=encoder.model.config.hidden_size, n_neurons=4),
        },
        hparams={"label_encoder": labels},
        run_opts={"device": "cpu"},
    )
    return LoadedEngine(
        classifier,
        lambda clip: classifier.classify_batch(torch.as_tensor(clip)[None]),
        (),
        {"runtime": "speechbrain", "dtype": "float32"},
    )


def time_files(engine: LoadedEngine, task: Mapping[str, Any]) -> dict[str, Any]:
    """Time to predict the first `count` files of a folder.

    emoser chooses its own batches. The pipeline has no decoder of its own and no choice of batch
    size: it gets soundfile, soxr and `batch`. With "ready", emoser gets decoded samples instead.
    """
    paths = sorted(str(path) for path in Path(task["folder"]).iterdir())[: task["count"]]
    if task.get("ready"):
        clips = [load_audio(path) for path in paths]
        predict = partial(engine.model.predict_batch, clips, sampling_rate=SAMPLING_RATE)
        return {"times": time_calls(predict, seconds=0.0)}
    start = time.perf_counter()
    if engine.facts["runtime"] == "transformers":
        predict_files(engine.model, paths, batch_size=task["batch"])
    else:
        engine.model.predict_batch(paths)
    return {"times": [time.perf_counter() - start]}


def predict_files(pipeline: Any, paths: list[str], *, batch_size: int) -> None:
    """Decode files and pass them to the transformers pipeline."""
    import soundfile
    import soxr

    def read(path: str) -> dict[str, Any]:
        samples, rate = soundfile.read(path, dtype="float32")
        return {"raw": soxr.resample(samples, rate, SAMPLING_RATE), "sampling_rate": SAMPLING_RATE}

    list(pipeline((read(path) for path in paths), batch_size=batch_size))


if __name__ == "__main__":
    main(load=load, tasks={**TASKS, "files": time_files})
