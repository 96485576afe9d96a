"""From anything audible to a prediction, alone, in a batch, and in threads."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
import transformers
from packaging.version import Version
from support.fakes import FormulaRuntime, formula_classifier
from support.models import LABELS, loud_model, random_clips, small_config
from transformers import Wav2Vec2Config, pipeline

from emoser import EmotionClassifier, Prediction
from emoser.checkpoints.save import save_model
from emoser.errors import AudioError, AudioNotFoundError, DeviceError, EmoserError

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small group-norm model, whose answers a padded batch would change."""
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    model = loud_model(small_config(Wav2Vec2Config), max_seconds=3.0)
    return save_model(model, folder, card="---\nlicense: mit\n---\n# small\n")


@pytest.fixture(scope="module")
def classifier(folder):
    return EmotionClassifier.from_pretrained(folder, device="cpu")


@pytest.fixture
def clips():
    return random_clips((16_000, 48_000, 9_999, 400, 30_123))


@pytest.fixture
def files(tmp_path, clips):
    paths = []
    for index, clip in enumerate(clips):
        paths.append(tmp_path / f"clip {index} ä.wav")
        soundfile.write(paths[-1], clip, RATE, subtype="FLOAT")
    return paths


def assert_equal(first, second, tolerance=1e-6):
    assert first.label == second.label
    assert list(first.scores) == list(second.scores)
    for label, value in first.scores.items():
        assert value == pytest.approx(second.scores[label], abs=tolerance)


def test_predictions_are_those_of_the_pipeline_of_transformers(folder, classifier, clips):
    pipe = pipeline("audio-classification", str(folder), dtype=torch.float32)
    for clip in clips[:3]:
        theirs = {item["label"]: item["score"] for item in pipe(clip, top_k=None)}
        ours = classifier.predict(clip, sampling_rate=RATE)
        assert ours.scores == pytest.approx(theirs, abs=1e-6)
        assert ours.label == max(theirs, key=theirs.get)
        assert sum(ours.scores.values()) == pytest.approx(1.0)
        assert ours.duration == pytest.approx(len(clip) / RATE)


def test_every_kind_of_source_gives_the_same_answer(classifier, files, clips):
    expected = classifier.predict(clips[0], sampling_rate=RATE)
    tensor = torch.from_numpy(clips[0]).requires_grad_()
    sources = [files[0], str(files[0]), files[0].read_bytes(), io.BytesIO(files[0].read_bytes())]
    for source in sources:
        assert_equal(classifier.predict(source), expected)
    assert_equal(classifier.predict(tensor, sampling_rate=RATE), expected)
    assert_equal(classifier.predict(np.stack([clips[0]] * 2), sampling_rate=RATE), expected)
    assert classifier.predict(files[0]).source == str(files[0])


@pytest.mark.parametrize("batch_seconds", [None, 2.0, 1000.0])
def test_a_batch_equals_each_alone_in_any_order(classifier, files, batch_seconds):
    expected = [classifier.predict(file) for file in files]
    order = [3, 0, 4, 4, 2, 1]
    batch = classifier.predict_batch([files[i] for i in order], batch_seconds=batch_seconds)
    for answer, place in zip(batch, order, strict=True):
        assert_equal(answer, expected[place])


def test_padded_batches_equal_each_alone(folder, files):
    """The path of a GPU, on the CPU: one padded batch in one forward."""
    classifier = EmotionClassifier.from_pretrained(folder, device="cpu", backend="torch")
    alone = classifier.predict_batch(files)
    runtime = classifier._predictor.runtime
    classifier._predictor.runtime = type(
        "Padded", (), {"batch_seconds": 60.0, "infer": runtime.infer_padded}
    )()
    for answer, expected in zip(classifier.predict_batch(files), alone, strict=True):
        assert_equal(answer, expected, 1e-5)


def test_a_long_recording_is_cut_and_weighted_by_length(classifier):
    long = random_clips((7 * RATE + 777,))[0]  # windows of 3 s
    answer = classifier.predict(long, sampling_rate=RATE)
    pieces = [(0, 3 * RATE), (3 * RATE, 6 * RATE), (4 * RATE + 777, 7 * RATE + 777)]
    scores = [classifier.predict(long[a:b], sampling_rate=RATE).scores for a, b in pieces]
    overlap = 2 * RATE - 777
    shares = np.array([3 * RATE, 3 * RATE - overlap / 2, 3 * RATE - overlap / 2]) / len(long)
    assert answer.num_windows == 3
    for label in LABELS:
        expected = sum(share * row[label] for share, row in zip(shares, scores, strict=True))
        assert answer.scores[label] == pytest.approx(expected, abs=1e-6)
    embedding = classifier.embed([long], sampling_rate=RATE)
    assert embedding.shape == (1, 64)


def test_errors_are_raised_or_returned_in_their_place(classifier, files, tmp_path):
    (tmp_path / "text.wav").write_text("no audio at all")
    sources = [files[0], tmp_path / "text.wav", tmp_path / "missing.wav", files[1]]
    answers = classifier.predict_batch(sources, on_error="return")
    kinds = [type(answer) for answer in answers]
    assert kinds == [Prediction, AudioError, AudioNotFoundError, Prediction]
    assert "missing.wav" in str(answers[2])
    assert isinstance(answers[2], FileNotFoundError)
    assert_equal(answers[3], classifier.predict(files[1]))
    with pytest.raises(AudioError, match=r"text\.wav"):
        classifier.predict_batch(sources)
    with pytest.raises(FileNotFoundError):
        classifier.predict(tmp_path / "missing.wav")


def test_a_fault_after_the_first_minutes_is_kept_in_its_place(classifier, tmp_path):
    samples = np.zeros(200 * RATE, np.float32)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "good.wav", samples[:RATE], RATE, subtype="FLOAT")
    sources = [tmp_path / "late.wav", tmp_path / "good.wav"]
    late, good = classifier.predict_batch(sources, on_error="return")
    assert isinstance(late, AudioError)
    assert_equal(good, classifier.predict(tmp_path / "good.wav"))


def test_a_generator_that_fails_does_so_after_the_finished_answers(classifier, clips):
    def sources():
        yield from clips[:3]
        raise RuntimeError("the archive ended early")

    answers = classifier.iter_predictions(sources(), sampling_rate=RATE)
    assert len([next(answers) for _ in range(3)]) == 3
    with pytest.raises(RuntimeError, match="ended early"):
        next(answers)


def test_nothing_in_gives_nothing_out(classifier):
    assert classifier.predict_batch([]) == []
    assert len(classifier.embed([])) == 0


def test_misuse_is_refused_in_one_sentence(classifier, clips):
    with pytest.raises(ValueError, match="sampling_rate is required"):
        classifier.predict(clips[0])
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        classifier.predict_batch([clips[0]], sampling_rate=RATE, on_error="ignore")
    with pytest.raises(ValueError, match="batch_seconds is 0"):
        classifier.predict_batch([clips[0]], sampling_rate=RATE, batch_seconds=0)
    with pytest.raises(TypeError, match="use predict"):
        classifier.predict_batch("one.wav")


def test_unknown_options_are_refused(folder):
    with pytest.raises(ValueError, match="backend is 'tensorflow'"):
        EmotionClassifier.from_pretrained(folder, backend="tensorflow")
    with pytest.raises(ValueError, match="dtype is 'int4'"):
        EmotionClassifier.from_pretrained(folder, dtype="int4")
    with pytest.raises(ValueError, match="device is 'toaster'"):
        EmotionClassifier.from_pretrained(folder, device="toaster")
    with pytest.raises(ValueError, match="not a known set"):
        EmotionClassifier.from_pretrained(folder, labels="plutchik")


def test_an_absent_gpu_is_named(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match="device='cpu'"):
        EmotionClassifier.from_pretrained(folder, device="cuda")


def test_bfloat16_agrees_roughly(folder, classifier, clips):
    half = EmotionClassifier.from_pretrained(
        folder, device="cpu", dtype="bfloat16", backend="torch"
    )
    assert half.info.dtype == "bfloat16"
    for clip in clips:
        expected = classifier.predict(clip, sampling_rate=RATE).scores
        assert half.predict(clip, sampling_rate=RATE).scores == pytest.approx(expected, abs=0.05)


def test_what_a_map_leaves_out_is_an_answer_of_its_own(folder, classifier, clips):
    mapped = EmotionClassifier.from_pretrained(
        folder, device="cpu", labels={"happy": "good", "sad": "bad", "angry": "bad"}
    )
    plain = classifier.predict(clips[0], sampling_rate=RATE).scores
    answer = mapped.predict(clips[0], sampling_rate=RATE)
    assert mapped.labels == ("good", "bad", "other")
    assert answer.unmapped == pytest.approx(plain["neutral"])
    assert answer.scores == pytest.approx(
        {"good": plain["happy"], "bad": plain["sad"] + plain["angry"], "other": plain["neutral"]}
    )
    assert answer.label == max(answer.scores, key=answer.scores.get)
    window = mapped.timeline(clips[0], sampling_rate=RATE, vad=None).windows[0]
    assert tuple(window.scores) == mapped.labels


def test_info_says_what_was_loaded(classifier, folder):
    info = classifier.info
    assert (info.name, info.encoder, info.licence) == ("small", "wav2vec2", "mit")
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert info.parameters > 10_000
    assert info.raw_labels == LABELS
    assert info.to_dict()["sampling_rate"] == RATE


def test_saving_gives_a_folder_with_the_same_answers(classifier, clips, tmp_path):
    classifier.save_pretrained(tmp_path / "copy")
    copy = EmotionClassifier.from_pretrained(tmp_path / "copy", device="cpu")
    assert_equal(
        copy.predict(clips[0], sampling_rate=RATE), classifier.predict(clips[0], sampling_rate=RATE)
    )
    assert (tmp_path / "copy" / "README.md").is_file()


def test_threads_share_a_classifier_and_no_global_state_changes(classifier, clips):
    expected = [classifier.predict(clip, sampling_rate=RATE) for clip in clips]
    before = (torch.is_grad_enabled(), torch.get_num_threads(), torch.random.get_rng_state())
    gate = threading.Barrier(8)

    def predict_all(_):
        gate.wait()
        return [classifier.predict(clip, sampling_rate=RATE) for clip in clips * 3]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(predict_all, range(8)):
            for answer, reference in zip(answers, expected * 3, strict=True):
                assert_equal(answer, reference)
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == before[:2]
    # transformers 5.17 draws a number for layer drop in evaluation too; 5.23 does not.
    if Version(transformers.__version__) >= Version("5.23"):
        assert torch.equal(torch.random.get_rng_state(), before[2])


def test_predicting_in_a_caller_with_gradients_leaves_them_on(classifier, clips):
    weight = torch.ones(2, requires_grad=True)
    classifier.predict(clips[0], sampling_rate=RATE)
    (weight * 2).sum().backward()
    assert weight.grad is not None


def test_one_source_is_not_taken_for_several(classifier, tmp_path):
    path = tmp_path / "call.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    samples = np.zeros(16_000, np.float32)
    row = {"array": samples, "sampling_rate": 16_000}
    with path.open("rb") as file:
        for one in (file, row, (16_000, samples), bytearray(9), str(path), samples, 5, None):
            with pytest.raises(TypeError, match=r"sources is one .*; pass a list of them"):
                classifier.predict_batch(one)
            with pytest.raises(TypeError, match="sources is one"):
                classifier.embed(one)


def test_a_column_of_a_table_is_predicted(classifier, tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "call.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    with pytest.raises(TypeError, match="sources is one DataFrame; pass a list of them"):
        classifier.predict_batch(pandas.DataFrame({"path": [str(path)]}))
    column = pandas.Series([str(path)] * 2, index=[7, 3])
    assert classifier.predict_batch(column) == [classifier.predict(path)] * 2


def test_a_missing_file_is_the_same_error_everywhere(classifier, tmp_path):
    missing = tmp_path / "nowhere.wav"
    errors = []
    for predict in (
        classifier.predict,
        classifier.timeline,
        lambda path: classifier.predict_batch([path]),
    ):
        with pytest.raises(FileNotFoundError, match="does not exist") as caught:
            predict(missing)
        errors.append(caught.value)
    errors += classifier.predict_batch([missing], on_error="return")
    assert len({(type(error), str(error)) for error in errors}) == 1
    assert all(isinstance(error, AudioError) for error in errors)


def test_embeddings_take_a_channel_and_return_errors_in_their_place(tmp_path):
    classifier = formula_classifier()
    left, right = random_clips([RATE, RATE])
    stereo = np.stack([left, right])
    (row,) = classifier.embed([stereo], sampling_rate=RATE, channel="right")
    assert np.array_equal(row, FormulaRuntime.logits_of(right))
    rows = classifier.embed(
        [left, tmp_path / "none.wav", right, None], sampling_rate=RATE, on_error="return"
    )
    assert [isinstance(row, EmoserError) for row in rows] == [False, True, False, True]
    assert np.array_equal(rows[0], FormulaRuntime.logits_of(left))
    assert np.array_equal(
        np.stack(rows[::2]),
        classifier.embed([left, right], sampling_rate=RATE, batch_seconds=30.0, progress=True),
    )
    with pytest.raises(EmoserError):
        classifier.embed([left, b"no sound"], sampling_rate=RATE)
    with pytest.raises(ValueError, match="on_error"):
        classifier.embed([left], sampling_rate=RATE, on_error="ignore")
