"""The checkpoint inside the package: small, exact, calibrated, and better than chance."""

import json

import numpy as np
import pytest
import soundfile
import torch
from support.models import pad
from transformers import AutoModelForAudioClassification, pipeline

from emoser import EmotionClassifier
from emoser.checkpoints.configs import read_labels
from emoser.checkpoints.files import as_files
from emoser.checkpoints.resolve import BUNDLED
from emoser.checkpoints.save import load_model
from emoser.finetune import read_corpus
from emoser.metrics import unweighted_average_recall

FOLDER = BUNDLED / "emoser-tiny"
LABELS = ("neutral", "angry", "happy", "sad")
HELD_OUT = {"ravdess": ("16", "17", "18"), "nemo": ("KS0", "KD0")}
RATE = 16_000


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier.from_pretrained(device="cpu")


def whistles():
    """Three glides that anybody can make again, for the golden values."""
    clips = []
    for seconds, low, high in ((1.0, 110.0, 220.0), (2.5, 300.0, 150.0), (0.7, 180.0, 190.0)):
        times = np.arange(round(seconds * RATE)) / RATE
        phase = 2 * np.pi * (low * times + (high - low) * times**2 / (2 * seconds))
        tone = sum(np.sin(number * phase) / number for number in range(1, 12))
        clips.append((0.1 * tone * np.sin(np.pi * times / seconds)).astype(np.float32))
    return clips


def test_it_is_small_and_says_what_it_is():
    files = as_files(FOLDER)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 20 * 2**20
    assert files.config["model_type"] == "hubert"
    assert read_labels(files) == LABELS
    assert files.licence == "cc-by-nc-sa-4.0"
    assert "CC BY-NC-SA 4.0" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_golden_values(classifier):
    golden = json.loads(
        (FOLDER.parents[2] / "tests" / "support" / "golden_emoser_tiny.json").read_text()
    )
    for clip, expected in zip(whistles(), golden, strict=True):
        scores = classifier.predict(clip, sampling_rate=RATE).scores
        assert scores == pytest.approx(expected, abs=1e-4)


def test_transformers_alone_gives_the_same_numbers(classifier):
    pipe = pipeline("audio-classification", str(FOLDER), dtype=torch.float32)
    for clip in whistles():
        theirs = {item["label"]: item["score"] for item in pipe(clip, top_k=None)}
        assert classifier.predict(clip, sampling_rate=RATE).scores == pytest.approx(
            theirs, abs=1e-6
        )
    _, report = AutoModelForAudioClassification.from_pretrained(FOLDER, output_loading_info=True)
    assert not any(report.values())


def test_batches_are_exact_from_four_hundred_samples_to_thirty_seconds():
    model = load_model(FOLDER)
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
def test_it_hears_emotions_in_voices_it_never_met(classifier, speech_data):
    """The speakers of its card that it was not trained on; chance is 0.25."""
    utterances = [
        item
        for item in read_corpus(speech_data / "manifest.csv")
        if item.speaker in HELD_OUT.get(item.corpus, ()) and item.label in LABELS
    ]
    utterances = [  # every sixth of nEMO is enough here; its card has the whole
        item for index, item in enumerate(utterances) if item.corpus == "ravdess" or index % 6 == 0
    ]
    answers = classifier.predict_batch([item.path for item in utterances])
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
def test_real_speech_gives_the_same_answer_in_every_format(classifier, speech_data, tmp_path):
    file = sorted((speech_data / "ravdess").rglob("*.flac"))[0]
    samples, rate = soundfile.read(file, dtype="float32")
    expected = classifier.predict(file).scores
    for name, subtype in (("a.wav", "PCM_24"), ("b.aiff", "PCM_16"), ("c.wav", "FLOAT")):
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        assert classifier.predict(tmp_path / name).scores == pytest.approx(expected, abs=1e-3)
