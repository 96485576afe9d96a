"""Protocols: which speakers and recordings are in which set, and that none leaks."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoser.finetune import Utterance
from emoser.finetune.protocols import (
    build_splits,
    check_split,
    drop_duplicates,
    find_duplicates,
    split_randomly,
)

LABELS = ("neutral", "happy", "angry", "sad")


def make_sessions(per_speaker=8):
    """Five sessions of two speakers, as in IEMOCAP."""
    return [
        Utterance(
            f"{speaker}-{index}.wav",
            LABELS[index % 4],
            speaker=str(speaker),
            corpus="iemocap",
            session=str((speaker + 1) // 2),
            sentence=f"script{index % 3}",
        )
        for speaker in range(1, 11)
        for index in range(per_speaker)
    ]


def make_corpus(num_speakers, per_speaker=3, corpus="calls"):
    return [
        Utterance(f"{corpus}{who}-{index}.wav", LABELS[index % 4], speaker=str(who), corpus=corpus)
        for who in range(num_speakers)
        for index in range(per_speaker)
    ]


def speakers(items):
    return {item.speaker for item in items}


def test_a_random_split_of_iemocap_has_the_sizes_of_the_paper():
    items = [Utterance(f"{index}.wav", "sad") for index in range(5531)]
    split = split_randomly(items, seed=1993)
    assert (len(split.training), len(split.validation), len(split.test)) == (4424, 553, 554)


def test_five_seeds_give_five_speaker_dependent_splits():
    splits = build_splits(make_sessions(), "sd", seed=7)
    assert [split.seed for split in splits] == [7, 8, 9, 10, 11]
    assert len({frozenset(split.test) for split in splits}) == 5
    assert splits == build_splits(make_sessions(), "sd", seed=7)
    for split in splits:
        assert split.protocol.startswith("speaker-dependent")
        assert not split.speaker_independent


def test_each_of_ten_folds_tests_a_speaker_and_validates_on_the_partner():
    splits = build_splits(make_sessions(), "si")
    assert [split.name for split in splits] == [f"speaker {n}" for n in range(1, 11)]
    for number, split in enumerate(splits, start=1):
        partner = number + 1 if number % 2 else number - 1
        assert speakers(split.test) == {str(number)}
        assert speakers(split.validation) == {str(partner)}
        assert len(speakers(split.training)) == 8
        assert split.speaker_independent


def test_five_session_folds_validate_on_a_fifth_of_the_rest():
    splits = build_splits(make_sessions(), "superb")
    assert len(splits) == 5
    for split in splits:
        assert len({item.session for item in split.test}) == 1
        assert len(split.validation) == (len(split.training) + len(split.validation)) // 5
        assert split.speaker_independent


def test_every_speaker_is_tested_once():
    splits = build_splits(make_corpus(6), "speakers")
    assert [speakers(split.test) for split in splits] == [{str(n)} for n in range(6)]


@given(st.integers(3, 12), st.integers(3, 6), st.integers(0, 5))
def test_grouped_folds_test_every_utterance_once_and_share_no_speaker(number, folds, seed):
    items = make_corpus(number) + make_corpus(number // 2, corpus="other")
    if folds > number + number // 2:
        return
    splits = build_splits(items, "groups", num_folds=folds, seed=seed)
    assert Counter(item for split in splits for item in split.test) == Counter(items)
    for split in splits:
        sides = (split.training, split.validation, split.test)
        voices = [{item.voice for item in side} for side in sides]
        assert sum(map(len, voices)) == len(set().union(*voices))


def test_grouped_folds_spread_every_corpus():
    items = make_corpus(10) + make_corpus(5, corpus="other")
    for split in build_splits(items, "si", num_folds=5):
        assert {item.corpus for item in split.test} == {"calls", "other"}


@pytest.mark.parametrize(
    ("setting", "items", "message"),
    [
        ("loso", make_corpus(4), "allowed are sd, si"),
        ("groups", make_corpus(2), "at least 3 folds"),
        ("sessions", make_corpus(4), "has no session"),
        ("speakers", [Utterance("a.wav", "sad")], "has no speaker"),
        ("speakers", make_corpus(2), "training is empty"),
        ("si", [replace(item, session="1") for item in make_corpus(3)], "two are needed"),
    ],
    ids=["name", "folds", "sessions", "speaker", "two", "three in a session"],
)
def test_a_corpus_that_does_not_fit_the_protocol_is_refused(setting, items, message):
    with pytest.raises(ValueError, match=message):
        build_splits(items, setting)


def test_a_leak_is_refused():
    split = build_splits(make_sessions(), "si")[0]
    with pytest.raises(ValueError, match="validated on: iemocap/1"):
        check_split(replace(split, training=(*split.training, split.test[0])))
    again = replace(split.test[0], speaker="99")
    with pytest.raises(ValueError, match=r"in two sets: 1-0\.wav"):
        check_split(replace(split, validation=(again,)))


def test_the_share_of_test_sentences_in_the_training_set():
    split = build_splits(make_sessions(), "si")[0]
    assert split.shared_sentences == 1.0
    alone = replace(split, test=(replace(split.test[0], sentence="new"), split.test[1]))
    assert alone.shared_sentences == 0.5
    assert build_splits(make_corpus(6), "speakers")[0].shared_sentences is None


def test_the_same_audio_under_two_names_is_found(tmp_path):
    for name, content in (("a", b"xyz"), ("b", b"xyz"), ("c", b"xyw"), ("d", b"long")):
        (tmp_path / f"{name}.wav").write_bytes(content)
    items = [Utterance(str(tmp_path / f"{name}.wav"), "sad", speaker="x") for name in "abcd"]
    assert find_duplicates(items) == [(items[0], items[1])]
    kept, dropped = drop_duplicates(items)
    assert kept == [items[0], *items[2:]]
    assert dropped == [items[1]]
    assert drop_duplicates([items[2], items[2]]) == ([items[2]], [items[2]])
    with pytest.raises(ValueError, match="different labels or speakers"):
        drop_duplicates([items[0], replace(items[1], label="angry")])


@pytest.mark.data
def test_the_known_duplicate_of_ravdess_is_found(speech_data):
    from emoser.finetune import read_corpus

    groups = find_duplicates(read_corpus("ravdess", root=speech_data / "ravdess"))
    names = [sorted(item.path.rsplit("/", 1)[1] for item in group) for group in groups]
    assert names == [["03-01-03-01-02-01-07.flac", "03-01-03-01-02-02-07.flac"]]
