"""The scripts that train and evaluate emoser-tiny: splits, distillation, calibration."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import save_whisper_base
from support.voices import write_voices

from emoser.checkpoints.save import build_model
from emoser.finetune import Utterance
from emoser.finetune.config import Augmentation
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.models.config import ModelConfig

SCRIPTS = Path(__file__).parents[2] / "examples" / "bundled"
MODULES = (
    "measure", "recipe", "network", "egemaps_svm", "train", "pretrain", "store_means", "small",
    "measure_small", "measure_adaptation", "measure_robustness", "distillation",
    "frame_head", "last_layer",
)  # fmt: skip


@pytest.fixture(scope="module")
def measure():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("measure")
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def speech():
    voices = [("ravdess", f"{actor:02d}") for actor in range(1, 19)]
    voices += [("nemo", name) for name in ("EB0", "KD0", "KS0")] + [("cremad", "1001")]
    return [
        Utterance(f"{corpus}-{speaker}-{label}.wav", label, speaker=speaker, corpus=corpus)
        for corpus, speaker in voices
        for label in (("happy", "sad") if corpus == "cremad" else ("neutral", "fear", "sad"))
    ]


def test_fold_k_holds_the_actors_whose_number_minus_one_is_k_modulo_five(measure, speech):
    splits = measure.split_folds(speech)
    tested = [
        sorted({item.speaker for item in split.test if item.corpus == "ravdess"})
        for split in splits
    ]
    assert tested[0] == ["01", "06", "11", "16"]
    assert sorted(name for names in tested for name in names) == [f"{n:02d}" for n in range(1, 19)]
    assert {item.corpus for item in splits[0].training} == {"ravdess", "nemo", "cremad"}


def test_every_speaker_of_nemo_is_tested_once(measure, speech):
    tested = [
        name
        for split in measure.split_folds(speech)
        for name in {item.speaker for item in split.test if item.corpus == "nemo"}
    ]
    assert sorted(tested) == ["EB0", "KD0", "KS0"]


@pytest.mark.parametrize("plan", ["folds", "cross"])
def test_no_tested_speaker_is_trained_on(measure, speech, plan):
    for split in measure.PLANS[plan](speech):
        voices = {item.voice for item in split.test}
        assert voices
        assert not voices & {item.voice for item in split.training}


def test_across_corpora_no_label_of_the_tested_corpus_is_learned(measure, speech):
    for split in measure.split_corpora(speech):
        (tested,) = {item.corpus for item in split.test}
        assert tested not in {item.corpus for item in split.training}


def test_corpora_that_are_missing_leave_the_others_as_they_are(measure, speech):
    recipe = sys.modules["recipe"]
    rest = [item for item in speech if item.corpus != "nemo"]
    weights = recipe.fit_config(recipe.RECIPE, rest).data.corpus_weights
    assert weights == {"ravdess": 0.28, "cremad": 0.12}


def test_figures_are_those_of_what_was_stored(measure, speech, tmp_path):
    splits = measure.split_folds(speech)
    for split in splits[:2]:  # neutral and fear are right, sad is taken for neutral
        logits = np.zeros((len(split.test), 8), np.float32)
        for row, item in zip(logits, split.test, strict=True):
            chosen = "neutral" if item.label == "sad" else item.label
            row[measure.ALL_LABELS.index(chosen)] = 1.0
        measure.store(
            tmp_path / "folds" / "emoser-tiny-1" / f"{split.name}.npz", logits, measure.ALL_LABELS
        )
    lines = [
        [cell.strip() for cell in line.split("|")] for line in measure.tabulate(tmp_path, speech)
    ]
    assert [cells[2:6] for cells in lines[2:]] == [
        ["emoser-tiny", "1", "2 of 5", "0.500"],  # RAVDESS, neutral and sad of four classes
        ["emoser-tiny", "1", "2 of 5", "0.667"],  # fear of eight classes beside them
        ["emoser-tiny", "1", "2 of 5", "0.500"],  # nEMO
    ]


@pytest.fixture(scope="module")
def distillation(measure):
    return sys.modules["distillation"]


@pytest.fixture(scope="module")
def pretrain(measure):
    return sys.modules["pretrain"]


@pytest.fixture(scope="module")
def recipe(measure):
    return sys.modules["recipe"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(save_whisper_base(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Labelled clips of three corpora, and some of EmoGator; one in five is too short."""
    folder = tmp_path_factory.mktemp("voices")
    rows = write_voices(folder, 64, num_voices=4, noise=0.01, suffix=".wav")
    corpora = ("ravdess", "nemo", "cremad", "emogator")
    found = [
        Utterance(str(path), label, speaker="01", corpus=corpora[who]) for path, label, who in rows
    ]
    return sorted(found, key=lambda item: corpora.index(item.corpus))


@pytest.fixture(scope="module")
def targets(distillation, base, clips, tmp_path_factory):
    return distillation.encode_targets(clips, base, tmp_path_factory.mktemp("targets"))


def test_the_field_of_a_frame_is_that_of_the_encoder(distillation):
    model = build_model(distillation.ENCODER, ModelConfig(labels=("neutral", "sad")), seed=0)
    lengths = torch.tensor([distillation.FIELD, distillation.FIELD + distillation.HOP])
    assert model.encoder.min_samples == distillation.FIELD
    assert model.encoder.count_frames(lengths).tolist() == [1, 2]


def test_the_averaged_frames_of_the_teacher_are_in_the_middle_of_those_of_the_student(distillation):
    """Frame j of Whisper is around sample 320 j + 80."""
    centres = distillation.TEACHER_HOP * torch.arange(60.0)[:, None] + 80.0
    averaged = distillation.average_frames(centres, 9)[:, 0]
    middles = distillation.HOP * torch.arange(9.0) + distillation.FIELD / 2.0
    assert float((averaged - middles).abs().max()) < 0.5 * distillation.TEACHER_HOP
    assert len(distillation.average_frames(centres[:12], 3)) == 3  # beyond the last, it is repeated


def test_targets_are_kept_and_those_of_other_clips_refused(distillation, base, clips, tmp_path):
    first = distillation.encode_targets(clips, base, tmp_path)
    again = distillation.encode_targets(clips, "no model", tmp_path)
    alone = distillation.encode_targets(first.speech[:1], base, tmp_path / "alone")
    assert 0.5 * len(clips) < len(first.speech) < len(clips)
    assert torch.equal(first.pooled, again.pooled)
    assert all(map(np.array_equal, first.frames, again.frames))
    assert torch.allclose(first.pooled[0], alone.pooled[0], atol=0.05)  # in bfloat16
    with pytest.raises(ValueError, match="of other recordings; delete it"):
        distillation.encode_targets(clips[2:], base, tmp_path)


def test_a_window_has_the_frames_at_its_places_in_the_clip(distillation, monkeypatch):
    """The samples are a ramp over the clip, and the frames are numbered."""
    size, kept = 80_000, slice(16_000, 64_000)
    ramp = np.arange(size, dtype=np.float32) / size
    monkeypatch.setattr(distillation, "SAME_SPEED", Augmentation.off())
    monkeypatch.setattr(distillation, "find_loud", lambda clip: kept)
    numbers = np.arange((size - distillation.FIELD) // distillation.HOP + 1, dtype=np.float16)
    pooled = torch.ones(1, 2)
    made = distillation.TargetSet([Utterance("a", "sad")], [ramp], [numbers[:, None]], pooled)
    drawn = made.draw([0] * 20, np.random.default_rng(0))
    for row, length, frames, valid in zip(*drawn[:4], strict=True):
        count = int(valid.sum())
        centres = distillation.HOP * np.arange(count) + distillation.FIELD // 2
        assert int(length) == centres[-1] + distillation.FIELD // 2
        places = row.numpy()[centres] * size
        expected = frames[:count, 0].numpy() * distillation.HOP + distillation.FIELD / 2
        assert np.abs(places - expected).max() < 0.02 * distillation.HOP
    assert 0 < float(drawn.whole.sum()) < 20  # 3.2 s are most of 3 s, and not of 5 s


def few(config, updates):
    """Settings for a few updates of eight clips."""
    return config.replace(epoch_clips=8 * updates, batch_size=8)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    pretrain, targets, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 2)
    config = few(pretrain.FIRST_CYCLE, 5).replace(
        corpus_weights={}, ema_decay=0.9, pretrained_share=0.5
    )

    def run(criterion, file):
        student = pretrain.Student(targets, seed=0)
        pretrain.train_student(student, targets, config, criterion, file)
        return student.state_dict()

    steps = []

    def fail_once(output, places):
        steps.append(places)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return output.frame_error

    whole = run(lambda output, _: output.frame_error, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(fail_once, tmp_path / "broken.pt")
    resumed = run(fail_once, tmp_path / "broken.pt")
    assert len(steps) == 4 + 3
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_network_is_the_mean_of_its_students_and_its_head_is_fitted_at_the_end(
    recipe, pretrain, base, clips, targets, tmp_path
):
    small, labelled = sys.modules["small"], [item for item in clips if item.corpus != "emogator"]
    copies = recipe.encode_speech(recipe.build_teacher(base), labelled, tmp_path / "frames")
    places = {item.path: place for place, item in enumerate(labelled)}
    teacher = recipe.Teacher(targets, copies, places)
    pretrain.write(pretrain.Student(targets, seed=0).state_dict(), tmp_path / "start.pt")
    recipe.train_network(
        labelled,
        teacher,
        tmp_path / "end.pt",
        config=few(recipe.RECIPE, 2),
        start=tmp_path / "start.pt",
    )
    students = [recipe.read_network(tmp_path / f"end-student{number}.pt") for number in (0, 1)]
    states, model = [one.state_dict() for one in students], recipe.read_network(tmp_path / "end.pt")
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
    for name, value in model.state_dict().items():
        if not name.startswith("head."):
            assert torch.allclose(value, (states[0][name] + states[1][name]) / 2, atol=1e-6), name
    windows = Windows(Recordings(labelled), small.WINDOW)
    pooled = [recipe.pool_windows(model, windows, small.RECIPE, copy=copy)[:, 0] for copy in (0, 1)]
    fitted = small.fit_head(torch.stack(pooled), labelled, recipe.HEAD)
    assert torch.allclose(model.head.classifier.weight, fitted.weight, atol=1e-3)
    assert torch.allclose(model.head.classifier.bias, fitted.bias, atol=1e-3)


def test_the_loss_of_a_clip_without_labels_is_that_of_the_teacher_alone(recipe, pretrain):
    speech = [Utterance("a", "sad", corpus="ravdess"), Utterance("b", "happy", corpus="ravdess")]
    speech += [Utterance("c", label, corpus="emogator") for label in ("sad", "happy")]
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    config = recipe.RECIPE.replace(label_smoothing=0.0)
    loss = recipe.DistillationLoss(speech, logits, config)
    errors = torch.tensor(0.25), torch.tensor(2.0)
    output = pretrain.StudentOutput(logits, *errors, torch.tensor(0.0))
    soft = torch.softmax(logits / 2.0, dim=1)
    distilled = 4.0 * -(soft * soft.log()).sum(dim=1).mean()
    chosen = torch.log_softmax(logits[:2, [2, 3]], dim=1)  # happy and sad: all labels it has
    supervised = -(chosen[0, 1] + chosen[1, 0]) / 2
    expected = 0.6 * distilled + 0.4 * supervised + 0.5 * 0.25 + 1.0 * 2.0
    assert float(loss(output, [0, 1, 2, 3])) == pytest.approx(float(expected), abs=1e-5)


def test_a_temperature_never_comes_from_the_speakers_that_it_is_scored_on(measure):
    generator = np.random.default_rng(0)
    logits = 2.0 * generator.standard_normal((4000, 4))
    truth = (logits + generator.gumbel(size=(4000, 4))).argmax(axis=1)  # drawn by their softmax
    truths = [truth[:2000], truth[2000:]]
    alike = [logits[:2000] * 5.0, logits[2000:] * 5.0]  # both five times too sure
    assert measure.cross_calibrate(alike, truths) < 0.03
    assert measure.cross_calibrate([alike[0], logits[2000:]], truths) > 0.1
