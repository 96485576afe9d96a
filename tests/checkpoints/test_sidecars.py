"""Every file of a checkpoint that changes its numbers is honoured, or refused with a sentence."""

import json

import numpy as np
import pytest
import soxr
import torch
from safetensors.torch import load_file, save_file
from support.models import random_clips
from support.reference_checkpoints import CASES, RAW_LABELS, require
from transformers import pipeline

from emoser import EmotionClassifier
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.save import copy_model
from emoser.errors import CheckpointError

RAW, WHISPER, BERT = "Wav2Vec2, layer norm, layer sum", "Whisper", "Wav2Vec2Bert"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
MULTI_LABEL = "multi_label_classification"


def write(folder, case=RAW):
    CASES[case](folder)
    return folder


def change(folder, file=CONFIG, **values):
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**stated, **values}))
    return folder


def load(folder, **options):
    return EmotionClassifier.from_pretrained(folder, device="cpu", backend="torch", **options)


def ask_transformers(folder, samples, **options):
    """The scores of transformers' own pipeline, in the order of the labels."""
    pipe = pipeline("audio-classification", str(folder), dtype=torch.float32)
    found = {item["label"]: item["score"] for item in pipe(samples, top_k=None, **options)}
    return [found[name] for name in pipe.model.config.id2label.values()]


@pytest.fixture(scope="module")
def clip():
    return random_clips([24_000])[0]


SPEECHBRAIN = "SpeechBrain IEMOCAP"
RATES = {
    "a number": "sample_rate: 8000  # Hz",
    "a reference": "rate: 8_000\nsample_rate: !ref <rate>",
    "the normaliser": "audio_normalizer: !new:x.AudioNormalizer\n    mix: x\n    sample_rate: 8000",
    "both": "sample_rate: 8000\naudio_normalizer: !new:x\n    sample_rate: !ref <sample_rate>",
}


@pytest.mark.parametrize("lines", RATES.values(), ids=RATES)
def test_the_rate_of_speechbrain_is_heard(lines, clip, tmp_path):
    require(SPEECHBRAIN)
    reference = CASES[SPEECHBRAIN](tmp_path / "model")
    with (tmp_path / "model" / "hyperparams.yaml").open("a") as file:
        file.write(f"{lines}\n")
    classifier = load(tmp_path / "model")
    assert classifier.info.sampling_rate == 8_000
    expected = torch.from_numpy(soxr.resample(clip, 16_000, 8_000))
    scores = classifier.predict(clip, sampling_rate=16_000).scores
    with torch.inference_mode():
        logits = reference(expected.numpy())
    assert list(scores.values()) == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "lines",
    ["sample_rate: fast", "sample_rate: !ref <gone>", "sample_rate: 8000.5",
     "sample_rate: 8000\naudio_normalizer: !new:x\n    sample_rate: 16000", "sample_rate: 1",
     "sample_rate: 99999999999"],
)  # fmt: skip
def test_a_rate_of_speechbrain_that_has_no_meaning_is_refused(lines, tmp_path):
    require(SPEECHBRAIN)
    CASES[SPEECHBRAIN](tmp_path / "model")
    with (tmp_path / "model" / "hyperparams.yaml").open("a") as file:
        file.write(f"{lines}\n")
    with pytest.raises(CheckpointError, match="sampl"):
        load(tmp_path / "model")


NAMES = {name: index for index, name in enumerate(RAW_LABELS)}
STALE = {f"LABEL_{index}": index for index in range(4)}
UNAMBIGUOUS = {
    "text": {"label2id": {name: str(index) for name, index in NAMES.items()}},
    "stale": {"label2id": STALE},
    "stale beside names": {"label2id": {**NAMES, **STALE, "LABEL_9": 9}},
    "some of the names": {"label2id": {"neu": 0}},
    "other case": {"label2id": {name.upper(): index for name, index in NAMES.items()}},
    "names in label2id alone": {"id2label": {i: f"LABEL_{i}" for i in range(4)}},
    "no id2label": {"id2label": None},
    "no label2id": {"label2id": None},
    "number of labels": {"num_labels": 4},
}
CONTRADICTIONS = {
    "swapped": ({"label2id": {"neu": "1", "HAP": "0"}}, "contradicts id2label"),
    "unknown name": ({"label2id": {**NAMES, "bored": 4}}, "contradicts id2label"),
    "index a word": ({"label2id": {"neu": "first"}}, "index in label2id is not a number"),
    "index a fraction": ({"label2id": {"neu": 0.5}}, "index in label2id is not a number"),
    "a list": ({"label2id": list(RAW_LABELS)}, "label2id is a list"),
    "an index twice": ({"id2label": {"0": "a", "00": "b", "1": "c", "2": "d"}}, "appears twice"),
    "a gap in label2id alone": (
        {"id2label": None, "label2id": {"a": 0, "b": 2, "c": 3, "d": 4}},
        "are not 0 to 3",
    ),
    "number of labels": ({"num_labels": 7}, "num_labels is 7 and there are 4 labels"),
}


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_labels_that_are_unambiguous_are_read(name, tmp_path):
    folder = change(write(tmp_path / "model"), **UNAMBIGUOUS[name])
    assert load_checkpoint(folder).model.config.raw_labels == RAW_LABELS or name == "other case"
    assert load_checkpoint(folder).model.config.labels == ("neutral", "happy", "angry", "sad")


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_labels_that_contradict_are_refused(name, tmp_path):
    changes, message = CONTRADICTIONS[name]
    folder = change(write(tmp_path / "model"), **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_a_checkpoint_without_names_gets_them_at_loading(tmp_path, clip):
    folder = change(write(tmp_path / "model"), id2label=None, label2id=None)
    plain = load(folder).predict(clip, sampling_rate=16_000).scores
    assert list(plain) == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    names = ["calm", "bored", "angry", "sad"]
    for labels in (names, dict(zip(plain, names, strict=True))):
        answer = load(folder, labels=labels).predict(clip, sampling_rate=16_000)
        assert list(answer.scores) == names
        assert list(answer.scores.values()) == list(plain.values())
        load(folder, labels=labels).save_pretrained(tmp_path / "named", overwrite=True)
        assert ask_transformers(tmp_path / "named", clip) == pytest.approx(
            list(plain.values()), abs=1e-5
        )
        assert load(tmp_path / "named").labels == tuple(names)
        load(folder, labels=labels).push_to_hub("someone/named", dry_run=True)
    with pytest.raises(ValueError, match="has 3 names"):
        load(folder, labels=names[:3])


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_independent_labels_get_the_scores_of_the_pipeline(backend, tmp_path, clip):
    pytest.importorskip({"torch": "torch", "onnx": "onnxruntime"}.get(backend, backend))
    folder = change(write(tmp_path / "model"), problem_type=MULTI_LABEL)
    expected = ask_transformers(folder, clip, function_to_apply="sigmoid")
    classifier = EmotionClassifier.from_pretrained(folder, device="cpu", backend=backend)
    answer = classifier.predict(clip, sampling_rate=16_000)
    assert list(answer.scores.values()) == pytest.approx(expected, abs=1e-4)
    assert sum(answer.scores.values()) != pytest.approx(1.0, abs=0.05)
    window = classifier.timeline(clip, sampling_rate=16_000, vad=None).windows[0]
    assert list(window.scores.values()) == pytest.approx(expected, abs=1e-4)


def test_independent_labels_stay_so_in_a_copy(tmp_path, clip):
    folder = change(write(tmp_path / "model"), problem_type=MULTI_LABEL)
    copy_model(folder, tmp_path / "copy")
    expected = ask_transformers(folder, clip)
    assert ask_transformers(tmp_path / "copy", clip) == pytest.approx(expected, abs=1e-6)
    scores = load(tmp_path / "copy").predict(clip, sampling_rate=16_000).scores
    assert list(scores.values()) == pytest.approx(expected, abs=1e-5)
    change(tmp_path / "copy", problem_type=None)
    assert load_checkpoint(tmp_path / "copy").model.config.multi_label


def test_windows_and_temperature_of_independent_labels(tmp_path):
    folder = change(write(tmp_path / "model"), problem_type=MULTI_LABEL)
    copy_model(folder, tmp_path / "copy")
    block = json.loads((tmp_path / "copy" / CONFIG).read_text())["emoser"]
    change(tmp_path / "copy", emoser={**block, "max_seconds": 1.0, "temperature": 2.0})
    clips = random_clips([16_000, 16_000])
    with torch.inference_mode():
        model = load_checkpoint(folder).model
        logits = [model(torch.from_numpy(part)[None]).logits[0] for part in clips]
    expected = sum((row / 2.0).sigmoid() for row in logits) / 2
    answer = load(tmp_path / "copy").predict(np.concatenate(clips), sampling_rate=16_000)
    assert answer.num_windows == 2
    assert list(answer.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(("case", "rate"), [(RAW, 8_000), (RAW, 22_050), (BERT, 8_000)])
def test_a_checkpoint_gets_its_own_rate(case, rate, tmp_path, clip):
    folder = change(write(tmp_path / "model", case), PREPROCESSOR, sampling_rate=rate)
    samples = soxr.resample(clip, 16_000, rate, quality="HQ")
    expected = ask_transformers(folder, samples)
    classifier = load(folder)
    answer = classifier.predict(clip, sampling_rate=16_000)
    assert list(answer.scores.values()) == pytest.approx(expected, abs=1e-4)
    assert answer.duration == pytest.approx(1.5)
    assert (
        answer.quality
        == load(write(tmp_path / "usual")).predict(clip, sampling_rate=16_000).quality
    )
    assert classifier.info.sampling_rate == rate
    native = classifier.predict(samples, sampling_rate=rate)
    assert native.scores == pytest.approx(dict(answer.scores), abs=1e-5)
    copy_model(folder, tmp_path / "copy")
    assert ask_transformers(tmp_path / "copy", samples) == pytest.approx(expected, abs=1e-5)


def test_the_rate_in_config_counts_where_the_preprocessor_states_none(tmp_path):
    folder = change(write(tmp_path / "model"), sampling_rate=8_000)
    with pytest.raises(CheckpointError, match=r"16,000 Hz in the preprocessor and 8,000 Hz in"):
        load_checkpoint(folder)
    (folder / PREPROCESSOR).unlink()
    assert load_checkpoint(folder).model.config.sampling_rate == 8_000


def test_the_rate_stays_in_a_copy_and_must_agree_with_it(tmp_path):
    folder = change(write(tmp_path / "model"), PREPROCESSOR, sampling_rate=8_000)
    copy_model(folder, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / PREPROCESSOR).read_text())["sampling_rate"] == 8_000
    change(tmp_path / "copy", PREPROCESSOR, sampling_rate=16_000)
    with pytest.raises(CheckpointError, match="sampling_rate is 16000 and the emoser block says"):
        load_checkpoint(tmp_path / "copy")


@pytest.mark.parametrize("case", [WHISPER, BERT])
def test_spectrograms_are_of_samples_as_they_are(case, tmp_path, clip):
    """The feature extractors of spectrograms store `do_normalize` and do not read it."""
    folder = change(write(tmp_path / "model", case), PREPROCESSOR, do_normalize=True)
    expected = ask_transformers(folder, clip)
    scores = load(folder).predict(clip, sampling_rate=16_000).scores
    assert list(scores.values()) == pytest.approx(expected, abs=1e-4)


def test_a_shorter_whisper_takes_what_its_positions_cover(tmp_path, clip):
    folder = change(write(tmp_path / "model", WHISPER), max_source_positions=100)
    with pytest.raises(CheckpointError, match="chunk_length is 30 and the encoder takes 2"):
        load_checkpoint(folder)
    change(folder, PREPROCESSOR, chunk_length=2, n_samples=32_000, nb_max_frames=200)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.embed_positions.weight"] = tensors["encoder.embed_positions.weight"][:100]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    scores = load(folder).predict(clip, sampling_rate=16_000).scores
    assert list(scores.values()) == pytest.approx(ask_transformers(folder, clip), abs=1e-4)
    assert load(folder).info.max_seconds == 2.0
    copy_model(folder, tmp_path / "copy")
    assert ask_transformers(tmp_path / "copy", clip) == pytest.approx(
        list(scores.values()), abs=1e-4
    )


FAULTS = {
    "problem_type": (RAW, CONFIG, {"problem_type": "ranking"}, "problem_type is 'ranking'"),
    "do_normalize": (RAW, PREPROCESSOR, {"do_normalize": "false"}, "do_normalize is 'false'"),
    "rate a word": (RAW, PREPROCESSOR, {"sampling_rate": "fast"}, "sampling_rate is 'fast'"),
    "rate a fraction": (RAW, PREPROCESSOR, {"sampling_rate": 0.5}, "sampling_rate is 0.5"),
    "extractor": (
        RAW,
        PREPROCESSOR,
        {"feature_extractor_type": "WhisperFeatureExtractor"},
        "takes the output of Wav2Vec2FeatureExtractor",
    ),
    "Whisper n_fft": (WHISPER, PREPROCESSOR, {"n_fft": 512}, "n_fft is 512 and the encoder takes"),
    "Whisper hop": (WHISPER, PREPROCESSOR, {"hop_length": 320}, "hop_length is 320"),
    "Whisper bins": (WHISPER, PREPROCESSOR, {"feature_size": 128}, "feature_size is 128"),
    "Whisper rate": (WHISPER, PREPROCESSOR, {"sampling_rate": 8_000}, "sampling_rate is 8000"),
    "BERT stride": (BERT, PREPROCESSOR, {"stride": 4}, "stride is 4"),
    "BERT bins": (BERT, PREPROCESSOR, {"num_mel_bins": 40}, "num_mel_bins is 40"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_settings_that_have_no_answer_are_refused(name, tmp_path):
    case, file, changes, message = FAULTS[name]
    folder = change(write(tmp_path / "model", case), file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)
