"""A checkpoint remembers what it was trained on, and figures on that are refused or marked."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from support.voices import voice_config, write_voices

from emoser import EmotionClassifier
from emoser.checkpoints.files import as_files
from emoser.checkpoints.save import build_model, load_model, save_model
from emoser.checkpoints.trained_on import read_stages
from emoser.errors import CheckpointError, LeakageError
from emoser.export import export
from emoser.finetune import FinetuneConfig, Utterance, cross_validate, evaluate, finetune, train
from emoser.finetune.scoring.leakage import find_overlap
from emoser.models.config import ModelConfig
from emoser.models.training_stage import TrainingStage

LABELS = ("happy", "sad")
CONFIG = FinetuneConfig(mode="entire", epochs=1, masking=False)


def read_voices(folder, prefix, seed):
    """Four clips of each of three voices, other sound for every seed."""
    folder.mkdir()
    rows = write_voices(folder, 12, num_voices=3, noise=0.02, suffix=".wav", seed=seed)
    return [
        Utterance(str(path), label, speaker=f"{prefix}{voice}", corpus="calls")
        for path, label, voice in rows
    ]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    place = tmp_path_factory.mktemp("voices")
    return [read_voices(place / name, name, seed) for seed, name in enumerate("abc")]


def learn(utterances, output, **changes):
    model = build_model(voice_config(), ModelConfig(labels=LABELS), seed=0)
    settings = {"model": model, "config": CONFIG, "device": "cpu", **changes}
    return train(utterances[:8], utterances[8:], output=output, share_speakers=True, **settings)


@pytest.fixture(scope="module")
def first(sets, tmp_path_factory):
    return learn(sets[0], tmp_path_factory.mktemp("first")).folder


def test_figures_on_training_and_validation_recordings_are_refused(first, sets):
    known, new, _ = sets
    expected = "trained on 12 of the 24 tested recordings and 3 of the 6 tested speakers (calls)"
    with pytest.raises(LeakageError) as refused:
        evaluate(first, [*known, *new])
    assert expected in str(refused.value)
    assert refused.value.exit_code == 3
    report = evaluate(first, [*known, *new], allow_trained_on=True)
    assert report.trained_on.endswith(expected)
    assert expected in str(report)
    assert evaluate(first, new).trained_on == ""


def test_recordings_are_known_by_their_sound(first, sets, tmp_path):
    known, new, _ = sets
    samples, rate = soundfile.read(known[0].path, dtype="int16")
    soundfile.write(tmp_path / "other name.flac", samples, rate)
    samples[0] += 50
    soundfile.write(tmp_path / "changed.wav", samples, rate)
    same, changed = (
        Utterance(str(tmp_path / name), "sad") for name in ("other name.flac", "changed.wav")
    )
    pieces = [replace(item, speaker=None, end=0.2) for item in known[:1]]
    stages = read_stages(as_files(first))
    assert find_overlap("it", stages, [same, *pieces, *new]).recordings == 2
    assert not find_overlap("it", stages, [changed, *new])


def test_the_protocol_says_what_is_stated_and_what_is_not_known(first, sets):
    stages, new = read_stages(as_files(first)), sets[1]
    known = find_overlap("it", stages, new).describe()
    assert known == "it states that it was trained on none of these recordings and known speakers"
    nameless = [replace(item, speaker=None, corpus=None) for item in new]
    text = find_overlap("it", stages, nameless).describe()
    assert text.startswith("it states that it was trained on none of these recordings; speaker or ")
    assert "corpus of 12 recordings is not known, so other copies" in text
    of_corpus = [replace(item, speaker=None) for item in new]
    assert "but on the corpus of 12" in find_overlap("it", stages, of_corpus).describe()
    assert "is not known" in find_overlap("it", (), new).describe()
    assert find_overlap("it", stages, sets[0]).describe().startswith("not independent: it was")


@pytest.mark.parametrize(
    ("voice", "found"),
    [
        (("calls", "A0"), True),
        (("CALLS ", "a0"), True),
        (("other", "a0"), False),
        ((None, "a0"), False),
        (("calls", "b0"), False),
    ],
    ids=str,
)
def test_speakers_are_known_by_corpus_and_name(voice, found, first):
    corpus, speaker = voice
    tested = [Utterance("none.wav", "sad", speaker=speaker, corpus=corpus)]
    assert bool(find_overlap("it", read_stages(as_files(first)), tested)) is found


def test_numbers_of_speakers_are_the_same_with_and_without_zeros():
    stage = TrainingStage.of([], [("ravdess", "01")])
    assert stage.find_speakers([("ravdess", "1"), ("ravdess", "10")]) == {("ravdess", "1")}


def test_the_record_comes_from_bases_and_teachers_too(first, sets, tmp_path):
    second = learn(sets[1], tmp_path / "second", model=first).folder
    pupil = learn(sets[2], tmp_path / "pupil", teachers=[second]).folder
    for folder, count in ((second, 24), (pupil, 36)):
        everything = [item for part in sets for item in part]
        overlap = find_overlap("it", read_stages(as_files(folder)), everything)
        assert (overlap.recordings, overlap.speakers) == (count, count // 4)


def test_copies_and_exported_graphs_keep_the_record(first, sets, tmp_path):
    EmotionClassifier.from_pretrained(first).save_pretrained(tmp_path / "copy")
    export(first, tmp_path / "graph", to="onnx")
    stages = read_stages(as_files(first))
    assert len(stages) == 1
    for name in ("copy", "graph"):
        assert read_stages(as_files(tmp_path / name)) == stages
        with pytest.raises(LeakageError):
            evaluate(tmp_path / name, sets[0])
    save_model(load_model(first), tmp_path / "again")
    assert (tmp_path / "again/trained_on.json").read_bytes() == (
        first / "trained_on.json"
    ).read_bytes()


def test_cross_validation_and_finetuning_say_what_the_base_was_trained_on(first, sets, tmp_path):
    config = FinetuneConfig(str(first), mode="frozen", epochs=1, masking=False)
    told = "trained on 12 of the 12 tested recordings and 3 of the 3 tested speakers"
    with pytest.raises(LeakageError, match=told):
        cross_validate(sets[0], config=config, setting="speakers", output=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    result = cross_validate(
        sets[0], config=config, setting="speakers", output=tmp_path / "cv", device="cpu",
        allow_trained_on=True,
    )  # fmt: skip
    assert told in result.protocol
    assert (tmp_path / "cv/summary.md").read_text().count("(trained on)") == 3 * 4
    card = (tmp_path / "cv/speaker-calls-a0/best/README.md").read_text()
    assert "trained on 4 of the 4 tested recordings and 1 of the 1 tested speaker " in card
    assert card.count("(trained on) |") == 4
    sides = {"test": sets[0], "train": [*sets[1], *sets[2][:-2]], "valid": sets[2][-2:]}
    mixed = [replace(item, split=side) for side, items in sides.items() for item in items]
    mixed[-2:] = [replace(item, speaker="d") for item in mixed[-2:]]
    result = finetune(mixed, config=config, output=tmp_path / "run", device="cpu")
    assert told in result.evaluation.protocol
    assert (tmp_path / "run/report.md").read_text().count(" (trained on) |") == 4 + 3


def test_ten_thousand_recordings_take_eighty_kilobytes():
    contents = [number.to_bytes(16, "little") for number in range(10_000)]
    voices = [("calls", str(number)) for number in range(100)]
    stage = TrainingStage.of(contents, voices)
    assert len("".join(stage.to_dict().values())) < 82_000
    others = [number.to_bytes(16, "little") for number in range(10_000, 30_000)]
    assert stage.find_recordings([*contents[::2], *others]) == set(contents[::2])
    names = np.array(["anna", "calls"])
    stored = str(TrainingStage.of(contents, [(str(names[1]), str(names[0]))]).to_dict())
    assert not any(name in stored for name in names)


def test_a_damaged_record_is_refused(first, tmp_path):
    save_model(load_model(first), tmp_path / "model")
    for text in ("{}", '{"schema": 2, "stages": []}', '{"schema": 1, "stages": [{"salt": 3}]}'):
        (tmp_path / "model/trained_on.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"trained_on\.json"):
            read_stages(as_files(tmp_path / "model"))
