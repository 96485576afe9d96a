"""The checkpoints inside the package: small, exact, calibrated, and better than chance."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.models import pad
from transformers import AutoModelForAudioClassification, pipeline

from emoser import EmotionClassifier
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.files import as_files
from emoser.checkpoints.inspection import inspect_checkpoint
from emoser.checkpoints.resolve import BUNDLED, DEFAULT_MODEL, bundled_names
from emoser.checkpoints.save import load_model
from emoser.checkpoints.trained_on import read_stages
from emoser.cli import main
from emoser.finetune import read_corpus
from emoser.metrics import unweighted_average_recall
from emoser.models.training_stage import HASH_BYTES
from emoser.runtimes.manifest import read_manifest

TINY, SMALL = "emoser-tiny", "emoser-small"
BOTH = (TINY, SMALL)
ENCODERS = {TINY: "hubert", SMALL: "whisper"}
MAX_WEIGHTS = {TINY: 10 * 10**6, SMALL: 25 * 10**6}  # bytes of the weights, and of the graph
MAX_WHEEL = 70 * 10**6
LABELS = ("neutral", "angry", "happy", "sad")
HELD_OUT = {"ravdess": ("16", "17", "18"), "nemo": ("KS0", "KD0")}
RATE = 16_000


@pytest.fixture(scope="module")
def classifiers():
    return {name: EmotionClassifier.from_pretrained(name, device="cpu") for name in BOTH}


def whistles():
    """Three glides that anybody can make again, for the golden values."""
    clips = []
    for seconds, low, high in ((1.0, 110.0, 220.0), (2.5, 300.0, 150.0), (0.7, 180.0, 190.0)):
        times = np.arange(round(seconds * RATE)) / RATE
        phase = 2 * np.pi * (low * times + (high - low) * times**2 / (2 * seconds))
        tone = sum(np.sin(number * phase) / number for number in range(1, 12))
        clips.append((0.1 * tone * np.sin(np.pi * times / seconds)).astype(np.float32))
    return clips


def test_the_default_is_the_larger_one():
    assert set(bundled_names()) == set(BOTH)
    assert DEFAULT_MODEL == SMALL


@pytest.mark.parametrize("name", BOTH)
def test_it_is_small_and_states_its_labels_and_licence(name):
    files = as_files(BUNDLED / name)
    for file in ("model.safetensors", "model.onnx"):
        assert files.stamps[file].size <= MAX_WEIGHTS[name]
    assert files.config["emoser"]["encoder"] == ENCODERS[name]
    assert read_labels(files) == LABELS
    assert files.licence == "cc-by-nc-sa-4.0"
    assert "CC BY-NC-SA 4.0" in (files.folder / "LICENSE").read_text(encoding="utf-8")


def test_both_leave_the_wheel_below_its_limit():
    files = [file for name in BOTH for file in (BUNDLED / name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= MAX_WHEEL - 2 * 10**6


def test_the_licence_of_whisper_is_kept_beside_its_weights():
    text = (BUNDLED / SMALL / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2022 OpenAI" in text
    assert "MIT License" in text


@pytest.mark.parametrize("name", BOTH)
def test_golden_values(name, classifiers):
    file = f"golden_{name.replace('-', '_')}.json"
    golden = json.loads((Path(__file__).parents[1] / "support" / file).read_text())
    for clip, expected in zip(whistles(), golden, strict=True):
        scores = classifiers[name].predict(clip, sampling_rate=RATE).scores
        assert scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_the_stored_logits_of_known_clips_are_reproduced_and_batches_exact(name):
    """The logits in `golden.json` are those of transformers' own modules."""
    found = inspect_checkpoint(BUNDLED / name)
    assert found.golden_difference is not None
    assert found.sound


@pytest.mark.parametrize("name", BOTH)
def test_both_state_whom_they_were_trained_on(name):
    """Written by `examples/bundled/record_training.py`, to be run again after a new training."""
    (stage,) = read_stages(as_files(BUNDLED / name))
    actors = [("ravdess", f"{number:02d}") for number in range(1, 25)]
    others = [("nemo", "EB0"), ("nemo", "KS0"), ("cremad", "1001"), ("librispeech", "1001")]
    last = 15 if name == TINY else 18  # the others are held out, or no part of the data
    expected = {*actors[:last], *others[: 1 if name == TINY else 2], others[2]}
    assert stage.find_speakers([*actors, *others]) == expected
    assert stage.find_corpora(["RAVDESS", "nemo", "iemocap"]) == {"RAVDESS", "nemo"}
    assert len(stage.recordings) > 5_000 * HASH_BYTES


@pytest.mark.data
def test_the_command_refuses_figures_on_training_recordings(speech_data, tmp_path, capsys):
    """Also under another name, in another lossless format, and without a speaker."""
    samples, rate = soundfile.read(speech_data / "ravdess/Actor_01/03-01-03-01-01-01-01.flac")
    soundfile.write(tmp_path / "call.wav", samples, rate, subtype="PCM_16")
    (tmp_path / "calls.csv").write_text("path,label\ncall.wav,happy\n")
    command = ["evaluate", TINY, str(tmp_path / "calls.csv")]
    assert main(command) == 3
    refused = capsys.readouterr().err
    assert "emoser-tiny was trained on 1 of the 1 tested recording, so the figures" in refused
    assert main([*command, "--allow-trained-on"]) == 0
    assert "protocol: not independent: emoser-tiny was trained on 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", BOTH)
def test_the_graph_in_the_package_is_that_of_its_weights(name):
    files = as_files(BUNDLED / name)
    assert read_manifest(files).weights == files.content_hash
    torch_scores, onnx_scores = (
        EmotionClassifier.from_pretrained(name, device="cpu", backend=backend)
        for backend in ("torch", "onnx")
    )
    for clip in whistles():
        ours = torch_scores.predict(clip, sampling_rate=RATE).scores
        assert onnx_scores.predict(clip, sampling_rate=RATE).scores == pytest.approx(ours, abs=1e-5)


def test_transformers_alone_gives_the_same_numbers_for_the_small_hubert(classifiers):
    folder = BUNDLED / TINY
    pipe = pipeline("audio-classification", str(folder), dtype=torch.float32)
    for clip in whistles():
        theirs = {item["label"]: item["score"] for item in pipe(clip, top_k=None)}
        assert classifiers[TINY].predict(clip, sampling_rate=RATE).scores == pytest.approx(
            theirs, abs=1e-6
        )
    _, report = AutoModelForAudioClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())


@pytest.mark.parametrize("name", BOTH)
def test_batches_are_exact_from_four_hundred_samples_to_thirty_seconds(name):
    model = load_model(BUNDLED / name)
    generator = np.random.default_rng(0)
    clips = [
        *whistles(),
        *(generator.standard_normal(n).astype(np.float32) for n in (400, 480_000)),
    ]
    with torch.inference_mode():
        alone = torch.cat([model(torch.from_numpy(clip)[None]).logits for clip in clips])
        batched = model(*pad(clips)).logits
    assert (batched - alone).abs().max() <= 1e-5 * max(alone.abs().max(), 1.0)


@pytest.mark.data
def test_the_tiny_one_recognises_emotions_of_speakers_that_it_was_not_trained_on(
    classifiers, speech_data
):
    """The held-out speakers of its card; chance is 0.25. emoser-small was trained on all."""
    utterances = [
        item
        for item in read_corpus(speech_data / "manifest.csv")
        if item.speaker in HELD_OUT.get(item.corpus, ()) and item.label in LABELS
    ]
    utterances = [  # every sixth of nEMO is enough here; its card has the whole
        item for index, item in enumerate(utterances) if item.corpus == "ravdess" or index % 6 == 0
    ]
    answers = classifiers[TINY].predict_batch([item.path for item in utterances])
    for corpus, floor in (("ravdess", 0.50), ("nemo", 0.50)):
        pairs = [
            (item.label, answer.label)
            for item, answer in zip(utterances, answers, strict=True)
            if item.corpus == corpus
        ]
        truth, predicted = zip(*pairs, strict=True)
        indices = [[LABELS.index(label) for label in side] for side in (truth, predicted)]
        assert unweighted_average_recall(*indices) > floor


@pytest.mark.data
@pytest.mark.parametrize("name", BOTH)
def test_real_speech_gives_the_same_answer_in_every_format(
    name, classifiers, speech_data, tmp_path
):
    classifier = classifiers[name]
    file = sorted((speech_data / "ravdess").rglob("*.flac"))[0]
    samples, rate = soundfile.read(file, dtype="float32")
    expected = classifier.predict(file).scores
    for name, subtype in (("a.wav", "PCM_24"), ("b.aiff", "PCM_16"), ("c.wav", "FLOAT")):
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        assert classifier.predict(tmp_path / name).scores == pytest.approx(expected, abs=1e-3)
