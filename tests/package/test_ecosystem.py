"""emoser inside datasets, pandas and scikit-learn."""

import pickle

import numpy as np
import pytest
import soundfile
from support.fakes import LABELS, formula_classifier

from emoser import EmotionClassifier, to_frame
from emoser.errors import EmoserError

RATE = 16_000
FILES = ["examples/audio/plain.wav", "examples/audio/telephone.wav"]


@pytest.fixture
def files(tmp_path):
    """Three recordings, one of silence, and a file that is none."""
    generator = np.random.default_rng(0)
    for name, level in (("a.wav", 0.1), ("b.wav", 0.3), ("c.wav", 0.0)):
        soundfile.write(tmp_path / name, level * generator.standard_normal(RATE), RATE)
    (tmp_path / "d.wav").write_bytes(b"no sound")
    return [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav", "d.wav")]


@pytest.mark.parametrize("column", ["audio", "path"])
def test_a_dataset_is_mapped_with_the_classifier(files, column):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({column: files, "label": [0, 1, 2, 3]})
    if column == "audio":
        rows = rows.cast_column("audio", datasets.Audio(decode=False))
    classifier = formula_classifier()
    mapped = rows.map(classifier, batched=True, batch_size=2, load_from_cache_file=False)
    expected = classifier.predict_batch(files, on_error="return")
    assert mapped["emotion"][:3] == [answer.label for answer in expected[:3]]
    assert mapped["emotion"][2:] == ["silence", ""]
    assert mapped["emotion_angry"][0] == pytest.approx(expected[0].scores["angry"])
    assert mapped["emotion_error"][:3] == [""] * 3
    assert mapped["emotion_error"][3]
    assert mapped["label"] == [0, 1, 2, 3]


def test_rows_of_decoded_arrays_are_mapped(files):
    samples, _ = soundfile.read(files[0], dtype="float32")
    columns = formula_classifier()({"audio": [{"array": samples, "sampling_rate": RATE}]})
    assert columns["emotion"] == [formula_classifier().predict(files[0]).label]


def test_rows_without_recordings_are_refused():
    with pytest.raises(ValueError, match="columns text, label; one with the recordings"):
        formula_classifier()({"text": ["a"], "label": [1]})


def test_predictions_and_errors_become_a_frame(files):
    pandas = pytest.importorskip("pandas")
    answers = formula_classifier().predict_batch(files, on_error="return")
    frame = to_frame(answers)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["label"].tolist()[:3] == [answer.label for answer in answers[:3]]
    assert np.allclose(frame[[f"score_{name}" for name in LABELS]].sum(axis=1)[:3], 1)
    assert frame["error"].notna().tolist() == [False, False, False, True]


def test_a_timeline_becomes_a_frame_of_its_segments(files):
    pytest.importorskip("pandas")
    timeline = formula_classifier().timeline(files[0])
    frame = to_frame(timeline)
    assert len(frame) == len(timeline.segments)
    assert frame["end"].iloc[-1] == timeline.duration
    assert frame["score_sad"].iloc[0] == timeline.segments[0].scores["sad"]


@pytest.fixture
def embedder():
    pytest.importorskip("sklearn")
    from emoser.bulk.embedder import EmotionEmbedder

    return EmotionEmbedder("emoser-tiny", device="cpu", backend="torch")


ESTIMATOR_CHECKS = (
    "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed",
    "check_valid_tag_types", "check_no_attributes_set_in_init", "check_mixin_order",
    "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params", "check_fit_score_takes_y",
    "check_estimators_overwrite_params", "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self", "check_readonly_memmap_input", "check_estimators_unfitted",
    "check_estimators_dtypes", "check_pipeline_consistency", "check_estimators_pickle",
    "check_f_contiguous_array_estimator", "check_transformer_preserve_dtypes",
    "check_transformers_unfitted", "check_transformer_n_iter",
    "check_methods_sample_order_invariance", "check_methods_subset_invariance",
    "check_fit2d_1sample", "check_fit2d_1feature", "check_dict_unchanged", "check_fit_idempotent",
    "check_fit_check_is_fitted",
)  # fmt: skip


class TestEmbedder:
    """The transformer, by the checks of scikit-learn whose tables may be rows of samples.

    Left out are those that want an error for rows of another length, for sparse tables, and for
    texts, all of which a list of recordings may hold or never holds.
    """

    @pytest.mark.parametrize("name", ESTIMATOR_CHECKS)
    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
    def test_a_check_of_scikit_learn_passes(self, embedder, name):
        from sklearn.base import clone
        from sklearn.utils import estimator_checks

        check = getattr(estimator_checks, name, None)
        if check is None:
            pytest.skip(f"this scikit-learn has no {name}")
        check("EmotionEmbedder", clone(embedder).set_params(sampling_rate=RATE))

    def test_it_embeds_in_a_pipeline_clones_and_pickles(self, embedder):
        from sklearn.base import clone
        from sklearn.exceptions import NotFittedError
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        classifier = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu", backend="torch")
        fitted = clone(embedder).fit(FILES)
        assert np.array_equal(fitted.transform(FILES), classifier.embed(FILES))
        copy = pickle.loads(pickle.dumps(fitted))
        assert np.array_equal(copy.transform(FILES), fitted.transform(FILES))
        with pytest.raises(NotFittedError):
            clone(fitted).transform(FILES)
        with pytest.raises(EmoserError):
            fitted.transform([b"no sound"])
        pipeline = make_pipeline(clone(embedder), LogisticRegression()).fit(FILES, ["a", "b"])
        assert pipeline.predict(FILES).tolist() == ["a", "b"]
