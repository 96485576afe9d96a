"""`evaluate` and validation give the scores of `predict`."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import soundfile
from support.models import loud_model, random_clips, small_config
from support.training import CONFIG

from emoser import EmotionClassifier, load_audio
from emoser.checkpoints.save import save_model
from emoser.finetune import Utterance, evaluate
from emoser.finetune.data.inputs import build_inputs
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring import evaluation
from emoser.finetune.scoring.evaluation import score_epoch
from emoser.finetune.scoring.logits import predict_logits
from emoser.finetune.scoring.models import ScoringOptions, score_models
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.freezing import freeze

RATE = 16_000
WINDOW_SECONDS = 5.0
LAYOUTS = {
    "transformers": {},
    "emoser": {"head": "dense", "activation": "tanh", "projection_size": 16},
}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Clips of many formats, whole and in pieces, without labels."""
    folder = tmp_path_factory.mktemp("clips")
    short, long = random_clips([2 * RATE, 120 * RATE])
    clips = {
        "loud.wav": (3.0 * short / np.abs(short).max(), RATE, "FLOAT"),
        "long.flac": (long, RATE, "PCM_16"),
        "eight.wav": (short, RATE, "PCM_U8"),
        "deep.wav": (short, 44_100, "PCM_24"),
        "small.mp3": (short, 22_050, None),
        "stereo.wav": (np.stack([short, short[::-1]], axis=1), 48_000, "PCM_16"),
        "quiet.wav": (short * 1e-4, RATE, "FLOAT"),
        "tiny.wav": (short[:300], RATE, "PCM_16"),
        "call.flac": (random_clips([600 * RATE], seed=1)[0], RATE, "PCM_16"),
    }
    for name, (samples, rate, subtype) in clips.items():
        soundfile.write(folder / name, samples, rate, subtype=subtype)
    rows = [Utterance(str(folder / name), "?") for name in clips if name != "call.flac"]
    call = str(folder / "call.flac")
    rows += [Utterance(call, "?", start=start, end=start + 3.3) for start in (500, 12.5, 13)]
    return [*rows, Utterance(call, "?", start=20, end=37), Utterance(call, "?", start=597)]


@lru_cache
def load_once(path):
    return load_audio(path)


def make_model(layout):
    return loud_model(
        small_config(), temperature=1.7, max_seconds=WINDOW_SECONDS, **LAYOUTS[layout]
    )


def predict_clip(classifier, call):
    """The prediction for a clip or a piece of one."""
    if call.start is None:
        return classifier.predict(call.path)
    end = None if call.end is None else round(call.end * RATE)
    piece = load_once(call.path)[round(call.start * RATE) : end]
    return classifier.predict(piece, sampling_rate=RATE)


def scores_of(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module", params=LAYOUTS)
def predicted(request, calls, tmp_path_factory):
    """A checkpoint, its scores from `predict`, and the clips labelled with its predictions."""
    folder = tmp_path_factory.mktemp(request.param)
    save_model(make_model(request.param), folder / "model")
    classifier = EmotionClassifier.from_pretrained(folder / "model", backend="torch", device="cpu")
    predictions = [predict_clip(classifier, call) for call in calls]
    labelled = [
        replace(call, label=prediction.label)
        for call, prediction in zip(calls, predictions, strict=True)
    ]
    scores = np.array(
        [[prediction.scores[name] for name in classifier.labels] for prediction in predictions]
    )
    return request.param, folder / "model", scores, labelled


@pytest.mark.parametrize("decoded", [False, True], ids=["streamed", "decoded"])
def test_evaluate_scores_every_clip_as_predict_does(predicted, decoded):
    layout, _, scores, labelled = predicted
    model = make_model(layout)
    logits = predict_logits(model, Recordings(labelled) if decoded else labelled)
    assert np.abs(scores_of(logits) - scores).max() < 1e-6
    report = evaluate(model, labelled)
    assert report.accuracy == 1.0
    assert report.num_utterances == len(labelled)


@pytest.mark.slow
def test_the_command_evaluates_with_the_runtime_of_predict(predicted):
    _, folder, _, labelled = predicted
    classifier = EmotionClassifier.from_pretrained(folder)
    labelled = [replace(call, label=predict_clip(classifier, call).label) for call in labelled]
    found = score_models([str(folder)], labelled, ScoringOptions("a test")).evaluation
    assert found.report.accuracy == 1.0


@pytest.mark.parametrize("cache", ["off", "float32"])
@pytest.mark.parametrize("mode", ["entire", "partial", "frozen"])
def test_validation_scores_every_clip_as_predict_does(
    predicted, mode, cache, tmp_path, monkeypatch
):
    layout, _, scores, labelled = predicted
    model = make_model(layout)
    config = replace(CONFIG, mode=mode, cache=cache)
    freeze(model, config)
    inputs = build_inputs(model.eval(), Recordings(labelled), config, tmp_path / "features")
    seen = []
    score = evaluation.score_logits
    monkeypatch.setattr(
        evaluation,
        "score_logits",
        lambda logits, *rest, **more: seen.append(logits) or score(logits, *rest, **more),
    )
    report = score_epoch(model, inputs, labelled, config, ProcessGroup("cpu"))
    assert report.accuracy == 1.0
    assert np.abs(np.exp(seen[0][:, : scores.shape[1]]) - scores).max() < 1e-6


def test_training_takes_at_most_a_window_of_a_long_clip(calls, tmp_path):
    model, clips = make_model("transformers").eval(), Recordings(calls[1:2])
    for mode in ("entire", "partial", "frozen"):
        config = replace(CONFIG, mode=mode)
        freeze(model, config)
        inputs = build_inputs(model, clips, config, tmp_path / f"{mode}.features")
        batch = inputs.load([0], np.random.default_rng(0))
        assert int(batch.lengths.max()) <= WINDOW_SECONDS * RATE
        assert inputs.num_samples == [120 * RATE]
