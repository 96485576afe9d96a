"""Labels, label maps and predictions."""

import copy
import dataclasses
import json

import pytest

from emoser.labels import ALIASES, CANONICAL_LABELS, LABEL_SETS, canonical_labels, map_labels
from emoser.models.config import ModelConfig
from emoser.results.prediction import Prediction
from emoser.results.segments import Segment, TimelineWindow
from emoser.results.timeline import Timeline

PUBLISHED = {
    "superb": ("neu", "hap", "ang", "sad"),
    "speechbrain": ("neu", "ang", "hap", "sad"),
    "ehcalabres": ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised"),
    "r-f": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "aesdd": ("anger", "disgust", "fear", "happiness", "sadness"),
    "dunnbc22": ("SAD", "ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL"),
    "odyssey": ("Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral"),
    "emotion2vec": ("生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral",
                    "其他/other", "难过/sad", "吃惊/surprised", "<unk>"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_spellings_become_canonical_names(name):
    labels = canonical_labels(PUBLISHED[name])
    assert set(labels) <= set(CANONICAL_LABELS)
    assert len(set(labels)) == len(labels)


def test_aliases_and_sets_end_in_canonical_names():
    assert set(ALIASES.values()) <= set(CANONICAL_LABELS)
    for members in LABEL_SETS.values():
        assert set(members) | set(members.values()) <= set(CANONICAL_LABELS)


def test_two_labels_never_become_one():
    assert canonical_labels(["anger", "angry", "sad"]) == ("anger", "angry", "sad")


def test_what_a_map_leaves_out_becomes_other():
    mapped = map_labels(("neutral", "happy", "fear", "sad"), "iemocap4")
    values, unmapped = mapped.apply([0.1, 0.2, 0.4, 0.3])
    assert mapped.labels == ("neutral", "happy", "sad", "other")
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert unmapped == pytest.approx(0.4)
    whole = map_labels(("neutral", "happy"), "ekman")
    assert whole.labels == ("neutral", "happy")
    assert whole.apply([0.25, 0.75]) == ([0.25, 0.75], 0.0)


def test_other_joins_a_label_of_that_name():
    mapped = map_labels(("angry", "fear", "sad"), {"fear": "other", "angry": "bad"})
    assert mapped.labels == ("bad", "other")
    assert mapped.apply([0.5, 0.2, 0.3]) == ([0.5, 0.5], 0.3)


def test_independent_scores_are_mapped_to_the_highest():
    mapped = map_labels(("angry", "fear", "happy"), {"angry": "bad", "fear": "bad"})
    assert mapped.apply([0.9, 0.8, 0.7], multi_label=True) == ([0.9, 0.7], 0.7)


@pytest.mark.parametrize("key", ["angry", "ANG", "anger", "Angry "])
def test_keys_of_a_map_may_be_spelled_in_any_known_way(key):
    mapped = map_labels(("angry", "sad"), {key: "bad"}, raw=("ANG", "sad"))
    assert mapped.labels == ("bad", "other")


def test_names_are_given_to_outputs_without_names():
    outputs = ("LABEL_0", "LABEL_1")
    assert map_labels(outputs, ["calm", "angry"]).labels == ("calm", "angry")
    partial = map_labels(outputs, {"LABEL_1": "angry"})
    assert partial.labels == ("angry", "other")
    assert partial.apply([0.3, 0.7]) == ([0.7, 0.3], 0.3)
    with pytest.raises(ValueError, match=r"3 names \(a, b, c\) and the checkpoint has 2 outputs"):
        map_labels(outputs, ["a", "b", "c"])
    with pytest.raises(ValueError, match="all different"):
        map_labels(outputs, ["a", "a"])
    with pytest.raises(ValueError, match=r"names its outputs itself \(angry, sad\)"):
        map_labels(("angry", "sad"), ["sad", "angry"])
    assert map_labels(("angry", "sad"), ["anger", "sad"]).labels == ("anger", "sad")
    with pytest.raises(ValueError, match="maps angry to a and to b"):
        map_labels(("angry", "sad"), {"angry": "a", "anger": "b"})


def test_mapping_refuses_labels_that_are_not_there():
    with pytest.raises(ValueError, match="bored"):
        map_labels(("happy", "sad"), {"bored": "x"})
    with pytest.raises(ValueError, match="none of the labels"):
        map_labels(("arousal",), "ekman")


def test_a_prediction_is_frozen_plain_and_prints_well():
    answer = Prediction.from_scores(
        {"neutral": 0.1, "angry": 0.7, "sad": 0.2}, duration=3.25, quality=("clipped",), model="m"
    )
    assert (answer.label, answer.score) == ("angry", 0.7)
    assert answer.top(2) == [("angry", 0.7), ("sad", 0.2)]
    assert json.loads(json.dumps(answer.to_dict()))["quality"] == ["clipped"]
    assert str(answer) == "angry 0.70 (sad 0.20, neutral 0.10), 3.2 s, clipped"
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.label = "sad"


def test_a_dimensional_prediction_has_no_label():
    answer = Prediction.from_scores(
        {}, duration=1.0, dimensions={"arousal": 0.6, "dominance": 0.5, "valence": 0.4}
    )
    assert answer.label is None
    assert answer.score is None
    assert str(answer) == "arousal 0.60, dominance 0.50, valence 0.40, 1.0 s"
    with pytest.raises(ValueError, match="both are empty"):
        Prediction.from_scores({}, duration=1.0)


def test_a_configuration_survives_its_block_and_refuses_nonsense():
    config = ModelConfig(labels=("happy", "sad"), raw_labels=("hap", "sad"), max_seconds=9.0)
    assert ModelConfig.from_block(json.loads(json.dumps(config.to_block()))) == config
    with pytest.raises(ValueError, match=r"normalization is 'loud'.*distinct"):
        ModelConfig(labels=("a", "a"), normalization="loud")
    with pytest.raises(ValueError, match="schema 99"):
        ModelConfig.from_block({"schema": 99, "labels": ["a"]})
    with pytest.raises(ValueError, match="unknown fields"):
        ModelConfig.from_block({**config.to_block(), "colour": "red"})


def test_predictions_and_segments_and_timelines_hash_as_they_compare():
    answers = [Prediction.from_scores({"sad": 1.0}, duration=2.0) for _ in range(2)]
    assert len({*answers, Prediction.from_scores({"sad": 0.9}, duration=2.0)}) == 2
    segment = Segment(0.0, 1.0, "emotion", "sad", 0.5, {"sad": 0.5}, dimensions={"valence": 0.1})
    window = TimelineWindow(0.0, 1.0, {"sad": 0.5})
    timeline = Timeline((window,), (segment,), duration=1.0, labels=("sad",))
    assert len({segment, window, timeline, copy.deepcopy(timeline)}) == 3


def test_a_flat_row_is_one_row_of_a_frame():
    pandas = pytest.importorskip("pandas")
    answers = [
        Prediction.from_scores(
            {"sad": 0.75, "happy": 0.25},
            duration=2.0,
            quality=("clipped", "short"),
            dimensions={"valence": 0.5},
        ),
        Prediction.from_scores({"sad": 0.25, "happy": 0.75}, duration=1.0),
    ]
    frame = pandas.DataFrame(answer.to_dict(flat=True) for answer in answers)
    assert frame["score_happy"].tolist() == [0.25, 0.75]
    assert frame["dimension_valence"].isna().tolist() == [False, True]
    assert frame["quality"].tolist() == ["clipped short", ""]
    assert frame.map(pandas.api.types.is_scalar).all(axis=None)
