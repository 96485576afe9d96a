"""From a table to a model, a report and a comparison, as a user meets them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import balanced_accuracy_score
from support.models import random_clips
from support.voices import RATE, save_voice_base, write_voices
from transformers import HubertForSequenceClassification, Wav2Vec2FeatureExtractor

from emoser import EmotionClassifier
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.cli import main
from emoser.errors import CheckpointError
from emoser.finetune import FinetuneConfig, Utterance, cross_validate, finetune, read_corpus
from emoser.finetune.config import Augmentation
from emoser.finetune.experiments import split_run
from emoser.finetune.experiments.cross_validation import describe_folds
from emoser.finetune.experiments.finetuning import check_classes, choose_split
from emoser.finetune.experiments.start import build_initial_model, fit_settings
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.comparison import compare
from emoser.finetune.scoring.report import assess, to_markdown
from emoser.metrics import accuracy, bootstrap_interval


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_voice_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two emotions, high and low, of six voices, in a CSV file; one file is there twice."""
    folder = tmp_path_factory.mktemp("voices")
    rows = ["path,label,speaker,sex"]
    for path, label, voice in write_voices(folder, 72, num_voices=6, noise=0.02, suffix=".wav"):
        rows.append(f"{path.name},{label},{voice},{'fm'[voice % 2]}")
    (folder / "again.wav").write_bytes((folder / "3.wav").read_bytes())
    rows.append("again.wav,happy,1,m")
    (folder / "calls.csv").write_text("\n".join(rows) + "\n")
    return folder / "calls.csv"


SETTINGS = ["--mode", "entire", "--epochs", "8", "--encoder-learning-rate", "2e-3",
            "--head-learning-rate", "2e-3", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def run(table, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "calls"
    command = ["finetune", str(table), "--base", str(base), "--output", str(folder), *SETTINGS]
    assert main(command) == 0
    return folder, command


def test_a_table_becomes_a_model_that_emoser_and_transformers_load_alike(run):
    folder, _ = run
    classifier = EmotionClassifier.from_pretrained(folder / "best", device="cpu")
    assert set(classifier.labels) == {"happy", "sad"}
    clip = random_clips([RATE])[0]
    ours = classifier.predict(clip, sampling_rate=RATE).scores
    theirs = HubertForSequenceClassification.from_pretrained(folder / "best").eval()
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder / "best")
    inputs = features(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**inputs).logits.softmax(dim=-1)[0]
    for index, label in theirs.config.id2label.items():
        assert ours[label] == pytest.approx(float(expected[index]), abs=1e-5)


def test_the_run_leaves_report_card_and_picture_with_the_protocol(run):
    folder, _ = run
    report = json.loads((folder / "report.json").read_text())
    assert report["protocol"].startswith("speaker-independent")
    assert report["notes"] == ["1 duplicate left out"]
    assert report["report"]["uar"] > 0.9
    assert set(report["report"]["per_sex"]) <= {"f", "m"}
    text = (folder / "report.md").read_text()
    assert "Protocol: speaker-independent" in text
    assert "range over 2 speakers, too few for an interval" in text
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    card = (folder / "best" / "README.md").read_text()
    assert "Protocol: speaker-independent" in card
    assert "Not for decisions about people" in card


def test_the_temperature_of_the_validation_set_is_in_the_weights(run):
    folder, _ = run
    result = json.loads((folder / "result.json").read_text())
    stated = EmotionClassifier.from_pretrained(folder / "best", device="cpu").info.training
    assert result["temperature"] > 0.0
    assert stated["protocol"].startswith("speaker-independent")


def test_the_tuned_model_adapts_to_a_voice(run, table):
    folder, _ = run
    classifier = EmotionClassifier.from_pretrained(folder / "best", device="cpu")
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    files = [table.parent / name for name, _, voice, _ in rows if voice == "2"]
    adapted = classifier.adapt(files)
    assert adapted.num_recordings == len(files) == 12
    right = [label for _, label, voice, _ in rows if voice == "2"]
    assert [answer.label for answer in adapted.predict_batch(files)] == right


def test_the_same_command_again_changes_nothing(run, capsys):
    folder, command = run
    before = (folder / "best" / "model.safetensors").read_bytes()
    assert main(command) == 0
    assert (folder / "best" / "model.safetensors").read_bytes() == before
    assert "protocol: speaker-independent" in capsys.readouterr().out


def test_low_rank_additions_are_part_of_the_saved_weights(table, base, tmp_path):
    config = FinetuneConfig(base=str(base), mode="lora", epochs=1, lora_rank=2)
    result = finetune(read_corpus(table), config=config, output=tmp_path, device="cpu")
    tensors = load_model(result.folder).state_dict()
    assert not [name for name in tensors if "lora" in name]


def test_evaluate_gives_figures_and_a_paired_comparison(run, table, tmp_path, capsys):
    folder, _ = run
    best = str(folder / "best")
    command = ["evaluate", best, str(table), "--against", best, "--output", str(tmp_path), "--json"]
    assert main(command) == 3
    refused = capsys.readouterr().err
    speakers = 6 - len(json.loads((folder / "report.json").read_text())["report"]["per_speaker"])
    assert f"{speakers} of the 6 tested speakers (own recordings), so the figures would" in refused
    assert main([*command, "--allow-trained-on"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["protocol"].startswith("not independent: ")
    assert values["report"]["trained_on"] in refused
    assert values["comparison"]["trained_on"] == values["report"]["trained_on"]
    figures = (tmp_path / "report.md").read_text().split("## Training")[0]
    assert figures.count(" % (trained on)") == 3 + 2 + 6  # in all, by sex, by speaker
    assert values["comparison"]["difference"] == 0.0
    assert values["comparison"]["p_value"] == 1.0
    assert values["report"]["num_utterances"] == 73
    assert (tmp_path / "report.md").is_file()


@pytest.mark.slow
def test_a_dry_run_reports_whether_the_model_can_overfit(table, base, tmp_path, capsys):
    command = ["finetune", str(table), "--base", str(base), "--output", str(tmp_path)]
    assert main([*command, "--dry-run", *SETTINGS]) == 0
    assert "yes (accuracy" in capsys.readouterr().out


def test_a_wrong_path_is_found_before_the_first_step(tmp_path, capsys):
    (tmp_path / "calls.csv").write_text("path,label\nnone.wav,sad\n")
    command = ["finetune", str(tmp_path / "calls.csv"), "--output", str(tmp_path / "run")]
    assert main(command) == 3
    assert "none.wav" in capsys.readouterr().err


def test_a_kept_head_begins_with_what_the_base_knows(base):
    config = FinetuneConfig(base="emoser-tiny", keep_head=True)
    model = build_initial_model(config, ("sad", "bored", "angry"))
    theirs = load_model(find_checkpoint("emoser-tiny").folder)
    names = theirs.config.labels
    for row, label in ((0, "sad"), (2, "angry")):
        known = theirs.head.classifier.weight[names.index(label)]
        assert torch.equal(model.head.classifier.weight[row], known)
    drawn = build_initial_model(replace(config, keep_head=False), ("sad", "bored", "angry"))
    assert torch.equal(model.head.classifier.weight[1], drawn.head.classifier.weight[1])
    assert not torch.equal(model.head.classifier.weight[0], drawn.head.classifier.weight[0])
    plain = build_initial_model(replace(config, base=str(base)), ("sad",))
    same = build_initial_model(replace(config, base=str(base), keep_head=False), ("sad",))
    assert torch.equal(plain.head.classifier.weight, same.head.classifier.weight)


def test_the_base_and_the_mode_choose_what_is_left_to_them(base):
    small = fit_settings(FinetuneConfig(), find_checkpoint(str(base)))
    large = FinetuneConfig().for_width(768)
    assert small.model.keep_head is large.model.keep_head is True
    assert (small.schedule.epochs, large.schedule.epochs) == (15, 10)
    rates = [config.optimisation.encoder_learning_rate for config in (small, large)]
    assert rates == [1e-4, 1e-5]
    assert small.data.crop_seconds == large.data.crop_seconds == 8.0
    frozen = FinetuneConfig(mode="frozen").for_width(768)
    assert not frozen.varies  # so that layers are kept
    assert frozen.schedule.epochs == 100
    stated = FinetuneConfig(epochs=3, keep_head=False, mode="frozen", crop_seconds=2.0)
    assert stated.for_width(64).replace(augmentation="auto", encoder_learning_rate="auto") == stated
    assert FinetuneConfig(head="attention").for_width(64).model.keep_head is False
    assert build_initial_model(FinetuneConfig(str(base), head="projector"), ("sad", "happy"))
    with pytest.raises(ValueError, match="epochs is 'most', must be above 0, or 'auto'"):
        FinetuneConfig(epochs="most")


def test_python_and_the_command_train_with_the_same_settings(table, base, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(split_run, "train", lambda *_, config, **__: seen.append(config) or 1 / 0)
    for mode in ("partial", "frozen"):
        with pytest.raises(ZeroDivisionError):
            main(["finetune", str(table), "--base", str(base), "--mode", mode, "--output",
                  str(tmp_path)])  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            finetune(
                read_corpus(table), config=FinetuneConfig(str(base), mode=mode), output=tmp_path
            )
        assert seen[-1] == seen[-2]


def test_the_help_states_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    small, large = FinetuneConfig().for_width(64), FinetuneConfig().for_width(768)
    assert f"(default: {small.schedule.epochs} for small encoders" in text
    assert f"else {large.schedule.epochs}; 100 with --mode frozen)" in text
    assert f"(default: {small.optimisation.encoder_learning_rate} for small encoders" in text
    assert f"(default: {small.optimisation.head_learning_rate})" in text
    assert f"(default: {small.data.batch_size})" in text


def people(number, clips=6, **changes):
    return [
        Utterance(
            f"{who}-{index}.wav", "happy" if index % 2 else "sad", speaker=str(who), **changes
        )
        for who in range(number)
        for index in range(clips)
    ]


def test_speakers_are_kept_apart_unless_asked_otherwise():
    split = choose_split(people(6), "auto")
    assert split.speaker_independent
    random = choose_split(people(6), "random")
    assert random.protocol.startswith("speaker-dependent")
    anonymous = [replace(item, speaker=None) for item in people(6)]
    assert choose_split(anonymous, "auto").protocol.startswith("speaker-dependent")


def test_half_known_speakers_are_refused_unless_random_is_asked_for():
    mixed = [*people(4), Utterance("x.wav", "sad")]
    with pytest.raises(ValueError, match="split='random'"):
        choose_split(mixed, "auto")
    assert choose_split(mixed, "random")


def test_the_column_split_is_taken_and_its_leaks_refused():
    sides = ("train", "dev", "test")
    items = [replace(item, split=sides[int(item.speaker) % 3]) for item in people(6)]
    split = choose_split(items, "auto")
    assert {item.speaker for item in split.test} == {"2", "5"}
    leaking = [replace(items[0], split="test"), *items[1:]]
    with pytest.raises(ValueError, match="validated on: 0"):
        choose_split(leaking, "column")
    with pytest.raises(ValueError, match="has maybe"):
        choose_split([replace(items[0], split="maybe"), *items[1:]], "column")


def test_classes_with_too_few_clips_are_named():
    items = [*people(6), Utterance("x.wav", "bored", speaker="0")]
    split = choose_split(items, "speakers")
    with pytest.raises(ValueError, match=r"bored has \d clips? in training and needs 5"):
        check_classes(split, ("happy", "sad", "bored"))


CONFIG = FinetuneConfig(
    mode="frozen",
    epochs=2,
    head_learning_rate=1e-2,
    crop_seconds=None,
    augmentation=Augmentation.off(),
    batch_size=8,
)


@pytest.mark.parametrize("setting", ["si", "sd"])
def test_an_experiment_tests_every_fold_once_and_is_resumed_where_it_stopped(
    setting, table, base, tmp_path, monkeypatch
):
    utterances = read_corpus(table)[:-1]
    config = replace(CONFIG, base=str(base))
    train = split_run.train
    calls = []

    def fail_third(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    arguments = {"config": config, "setting": setting, "num_folds": 3, "num_seeds": 3}
    with monkeypatch.context() as patch:
        patch.setattr(split_run, "train", fail_third)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(utterances, output=tmp_path / "a", device="cpu", **arguments)
        calls.clear()
        patch.setattr(split_run, "train", lambda *a, **k: calls.append(1) or train(*a, **k))
        resumed = cross_validate(utterances, output=tmp_path / "a", device="cpu", **arguments)
        assert len(calls) == 1
    whole = cross_validate(utterances, output=tmp_path / "b", device="cpu", **arguments)
    assert resumed == whole
    assert len(whole.folds) == 3
    if setting == "si":
        assert whole.pooled.report.num_utterances == len(utterances)
    independent = whole.protocol.startswith("speaker-independent")
    assert independent == (setting == "si")
    assert whole.mean("uar") == pytest.approx(np.mean([fold.uar for fold in whole.folds]))
    assert whole.protocol in describe_folds(whole)
    assert whole.protocol in (tmp_path / "b" / "summary.md").read_text()
    changed = {**arguments, "config": replace(config, epochs=3)}
    with pytest.raises(CheckpointError, match="another experiment"):
        cross_validate(utterances, output=tmp_path / "b", device="cpu", **changed)


def write_nemo(folder, speakers=("EB0", "IC0", "KS0", "MP0"), seconds=0.3):
    generator = np.random.default_rng(0)
    for who in speakers:
        for emotion in ("happiness", "sadness"):
            for sentence in range(3):
                clip = generator.standard_normal(int(seconds * RATE)) / 10
                soundfile.write(folder / f"{who}_{emotion}_{sentence}.wav", clip, RATE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        "PF-hbt-large",
        pytest.param("Frozen-hbt-base", marks=pytest.mark.slow),
        pytest.param("EF-w2v-base", marks=pytest.mark.slow),
    ],
)
def test_reproduce_runs_a_recipe_and_stands_beside_the_paper(recipe, base, tmp_path, capsys):
    corpus = tmp_path / "nemo"
    corpus.mkdir()
    write_nemo(corpus)
    command = [
        "reproduce", recipe, "--corpus", "nemo", "--root", str(corpus), "--setting", "groups",
        "--folds", "4", "--epochs", "1", "--base", str(base), "--device", "cpu",
        "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "Protocol: speaker-independent" in table
    assert "Changed from the recipe: base" in table
    assert "The paper:" in table
    assert "100 % of the test clips with a known text speak one trained on" in table
    assert (tmp_path / "run" / "summary.md").read_text() == table.rstrip("\n") + "\n"
    assert (tmp_path / "run" / "confusion.png").is_file()
    classifier = EmotionClassifier.from_pretrained(tmp_path / "run" / "fold-1" / "best")
    assert set(classifier.labels) == {"happy", "sad"}


def test_an_unknown_recipe_is_refused_with_the_names(capsys):
    command = ["reproduce", "PF-xyz", "--corpus", "nemo", "--root", ".", "--output", "x"]
    assert main(command) == 2
    assert "PF-hbt-large" in capsys.readouterr().err


def scored(seed, utterances):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((len(utterances), 2)).astype(np.float32)


def test_figures_are_those_of_scikit_learn_and_intervals_hold_them():
    utterances = people(8)
    logits = scored(0, utterances)
    evaluation = assess(logits, utterances, ("happy", "sad"), protocol="made up")
    truth = [("happy", "sad").index(item.label) for item in utterances]
    expected = balanced_accuracy_score(truth, logits.argmax(axis=1))
    assert evaluation.report.uar == pytest.approx(expected)
    low, high = evaluation.uar_interval
    assert low <= expected <= high
    assert "Protocol: made up." in to_markdown(evaluation, title="x")


def test_a_comparison_is_paired():
    utterances = people(8)
    first, second = scored(0, utterances), scored(1, utterances)
    labels = ("happy", "sad")
    columns = (labels, ("sad", "happy"))
    comparison = compare((first, second), columns, utterances, names=("a", "b"), labels=labels)
    assert comparison.difference == pytest.approx(comparison.uars[0] - comparison.uars[1])
    low, high = comparison.interval
    assert low <= comparison.difference <= high
    assert "McNemar" in str(comparison)


def test_an_interval_over_few_speakers_is_wider_than_over_clips():
    generator = np.random.default_rng(0)
    truth = np.zeros(200, dtype=int)
    predicted = np.repeat(generator.random(4) < 0.5, 50).astype(int)
    predicted[::7] = 1 - predicted[::7]
    speakers = np.repeat(range(4), 50).tolist()
    wide = bootstrap_interval(truth, predicted, speakers, accuracy)
    narrow = bootstrap_interval(truth, predicted, list(range(200)), accuracy)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_the_fitted_temperature_has_the_lowest_cross_entropy():
    generator = np.random.default_rng(0)
    truth = generator.integers(4, size=500)
    logits = 3.0 * generator.standard_normal((500, 4)) + 4.0 * np.eye(4)[truth]
    best = fit_temperature(logits, truth)
    losses = {
        factor: float(
            torch.nn.functional.cross_entropy(
                torch.from_numpy(logits / (best * factor)), torch.from_numpy(truth)
            )
        )
        for factor in (0.95, 1.0, 1.05)
    }
    assert losses[1.0] < min(losses[0.95], losses[1.05])


def test_fine_tuning_refuses_one_audio_under_two_labels(table, base, tmp_path):
    utterances = read_corpus(table)
    torn = [*utterances[:-1], replace(utterances[-1], label="sad")]
    with pytest.raises(ValueError, match="different labels or speakers"):
        finetune(torn, config=replace(CONFIG, base=str(base)), output=tmp_path)
