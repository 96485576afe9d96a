"""`evaluate`, the command and validation answer as `predict` does, on whatever there is to hear."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.audio_files import babble, encode, write_awkward
from support.models import loud_model, small_config
from support.training import CONFIG

from emoser import EmotionClassifier, load_audio
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import save_model
from emoser.finetune import Utterance, evaluate, read_corpus
from emoser.finetune.data.inputs import build_inputs
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring.evaluation import score_epoch
from emoser.finetune.scoring.logits import infer_readable, predict_logits
from emoser.finetune.scoring.models import ScoringOptions, score_models
from emoser.finetune.scoring.report import assess
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.freezing import freeze
from emoser.runtimes.opening import open_runtime

NUM_FILES, NUM_PIECES = 200, 40
RATE = 16_000


@pytest.fixture(scope="module")
def model():
    return loud_model(small_config(), temperature=1.4, max_seconds=1.0)


@pytest.fixture(scope="module")
def classifier(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(model, folder)
    return EmotionClassifier.from_pretrained(folder, backend="torch", device="cpu")


@pytest.fixture(scope="module")
def answered(classifier, tmp_path_factory):
    """Awkward files, and pieces of a long one, with what `predict` answers for each."""
    folder = tmp_path_factory.mktemp("awkward")
    rows = [Utterance(str(file), "?") for file in write_awkward(folder, NUM_FILES)]
    call = folder / "call.flac"
    sound = babble(RATE, 120.0).copy()
    sound[40 * RATE : 50 * RATE] = 0.0
    call.write_bytes(encode(sound, RATE, "FLAC"))
    starts = np.random.default_rng(1).uniform(0.0, 110.0, NUM_PIECES).round(3)
    rows += [Utterance(str(call), "?", start=at, end=round(at + 0.2 + at / 60, 3)) for at in starts]
    rows += [
        Utterance(str(call), "?", start=41.0, end=49.0),
        Utterance(str(call), "?", start=118.0),
    ]
    whole, answers = load_audio(call), []
    for row in rows:
        source = row.path
        if row.is_piece:
            end = None if row.end is None else round(row.end * RATE)
            source = whole[round(row.start * RATE) : end]
        answers.append(classifier.predict(source, sampling_rate=RATE))
    labelled = [replace(row, label=answer.label) for row, answer in zip(rows, answers, strict=True)]
    assert len(Counter(item.label for item in labelled)) >= 4
    assert sum(item.label == "silence" for item in labelled) >= 5
    return labelled, np.array([[answer.scores[name] for name in classifier.labels]
                               for answer in answers])  # fmt: skip


def test_evaluate_agrees_with_predict_on_awkward_files(model, answered):
    labelled, scores = answered
    assert np.abs(np.exp(predict_logits(model, labelled)) - scores).max() < 1e-5
    assert np.abs(np.exp(predict_logits(model, Recordings(labelled))) - scores).max() < 1e-5
    report = evaluate(model, labelled)
    assert (report.accuracy, report.num_utterances) == (1.0, len(labelled))
    assert report.labels == (*model.config.labels, "silence")


@pytest.mark.slow
def test_the_command_agrees_with_predict_on_awkward_files(classifier, answered):
    labelled, _ = answered
    path = str(classifier.info.path)
    engine = EmotionClassifier.from_pretrained(path)  # the one that the command chooses
    relabelled = [
        item if item.is_piece else replace(item, label=engine.predict(item.path).label)
        for item in labelled
    ]
    scores = score_models([path, path], relabelled, ScoringOptions("a test"))
    found, compared = scores.evaluation, scores.comparison
    assert found.report.accuracy == 1.0
    assert compared.only_first == compared.only_second == 0


@pytest.mark.parametrize("mode", ["entire", "partial", "frozen"])
def test_validation_agrees_with_predict_on_awkward_files(mode, model, answered, tmp_path):
    labelled, _ = answered
    config = CONFIG.replace(mode=mode)
    freeze(model, config)
    inputs = build_inputs(model.eval(), Recordings(labelled), config, tmp_path / "features")
    assert score_epoch(model, inputs, labelled, config, ProcessGroup("cpu")).accuracy == 1.0


@pytest.mark.parametrize("changes", [{"sampling_rate": 8_000}, {"multi_label": True}], ids=str)
def test_evaluate_agrees_with_predict_for_other_kinds_of_models(changes, answered, tmp_path):
    labelled, _ = answered
    some = [item for item in labelled if not item.is_piece][:40]
    other = loud_model(small_config(), seed=1, max_seconds=1.0, **changes)
    save_model(other, tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(
        tmp_path / "model", backend="torch", device="cpu"
    )
    answers = [classifier.predict(item.path) for item in some]
    scores = np.array([[answer.scores[name] for name in classifier.labels] for answer in answers])
    assert np.abs(np.exp(predict_logits(other, some)) - scores).max() < 1e-5
    clips = Recordings(some, sampling_rate=other.config.sampling_rate)
    assert np.abs(np.exp(predict_logits(other, clips)) - scores).max() < 1e-5
    relabelled = [
        replace(item, label=answer.label) for item, answer in zip(some, answers, strict=True)
    ]
    assert evaluate(other, relabelled).accuracy == 1.0


@pytest.mark.slow
@pytest.mark.data
def test_evaluate_agrees_with_predict_on_all_real_speech(speech_data, tmp_path):
    """18,175 clips of six corpora: the same labels and scores from the same engine."""
    lines = (speech_data / "manifest.csv").read_text().splitlines()
    paths = [line.split(",")[1] for line in lines[1:]]
    classifier = EmotionClassifier.from_pretrained("emoser-tiny")
    answers = classifier.predict_batch([str(speech_data / path) for path in paths])
    rows = [f"{path};{answer.label}" for path, answer in zip(paths, answers, strict=True)]
    (tmp_path / "answers.csv").write_text("\n".join(["File Name;Label", *rows]), "utf-16")
    labelled = read_corpus(tmp_path / "answers.csv", root=speech_data)
    opened = open_runtime(find_checkpoint("emoser-tiny"))
    found = infer_readable(opened.runtime, opened.config, labelled)
    scores = [[answer.scores[name] for name in opened.config.labels] for answer in answers]
    assert np.abs(np.exp(found.logits) - np.array(scores)).max() < 1e-5
    report = assess(
        found.logits, labelled, opened.config.labels, protocol="a test", silent=found.silent
    ).report
    assert (report.accuracy, report.num_utterances) == (1.0, len(paths))
