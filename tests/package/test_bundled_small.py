"""The scripts that make and measure emoser-small, on a tiny Whisper and on real speech."""

import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from support.models import random_clips, save_whisper_base
from support.voices import write_voices

from emoser import EmotionClassifier
from emoser.checkpoints.files import as_files
from emoser.checkpoints.inspection import inspect_checkpoint
from emoser.checkpoints.resolve import find_checkpoint
from emoser.errors import CheckpointError
from emoser.finetune import Utterance
from emoser.finetune.data import conditions
from emoser.finetune.data.inputs import pool_windows
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.runtimes.manifest import read_manifest

SCRIPTS = Path(__file__).parents[2] / "examples" / "bundled"
MODULES = (
    "train_small", "measure_small", "small", "frame_head", "last_layer", "export_graph", "train",
    "measure", "recipe", "pretrain", "distillation", "network", "egemaps_svm", "store_means",
    "measure_adaptation", "measure_robustness", "measure_transfer", "measure_speed",
)  # fmt: skip


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("train_small")
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def small(script):
    return sys.modules["small"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_whisper_base(tmp_path_factory.mktemp("whisper"))


def name_voices(rows):
    """Five actors of RAVDESS, two speakers of nEMO and two of CREMA-D."""
    return [
        Utterance(
            str(path),
            label,
            speaker=f"{who + 1:02d}" if who < 5 else f"N{who}",
            corpus=("ravdess", "nemo", "cremad")[(who > 4) + (who > 6)],
            sex="f" if who % 2 else "m",
        )
        for path, label, who in sorted(rows, key=lambda row: row[2])
    ]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    return name_voices(write_voices(folder, 72, num_voices=9, noise=0.01, suffix=".wav"))


@pytest.fixture(scope="module")
def trained(script, base, speech, tmp_path_factory):
    """Output folder of a run, its model and the figures of its folds."""
    output = tmp_path_factory.mktemp("run")
    return output, *script.train_small(str(base), speech, output)


@pytest.fixture(scope="module")
def robustness(script, base, speech, trained):
    """Answers of the fold heads, and the text of the card."""
    output, model, _ = trained
    measure = sys.modules["measure_robustness"]
    with pytest.MonkeyPatch.context() as patch:
        every, _ = conditions.list_conditions()
        chosen = {name: every[name] for name in ("clipping", "8 kHz and back", "quiet ends added")}
        patch.setattr(
            "emoser.finetune.scoring.robustness.list_conditions", lambda: (chosen, ("GSM",))
        )
        corpora = measure.answer_folds(str(base), speech, output, steps={"nemo": 2})
        read = measure.answer_conditions(model, speech[:3], measure.LABELS)
    return corpora, measure.describe(corpora, read)


@pytest.fixture(scope="module")
def checkpoint(script, trained, robustness, speech):
    output, model, evaluations = trained
    folds = script.tabulate_small(output / "emoser-small", speech, "emoser-small")
    folder = output / "emoser-small" / "checkpoint"
    targets = script.compare_targets(output / "emoser-small", speech)
    text = robustness[1]
    card = script.write_card(
        model, evaluations, speech, folds, targets, robustness=text, transfer="| new corpus |"
    )
    script.finish(model, card, folder)
    return folder


def test_a_corpus_weighs_its_share_and_its_labels_the_same(small, speech):
    weights = small.weigh_clips(speech)
    for corpus, share in small.SHARES.items():
        for label in ("happy", "sad"):
            rows = [item.corpus == corpus and item.label == label for item in speech]
            expected = share / sum(small.SHARES.values()) / 2
            assert float(weights[torch.tensor(rows)].sum()) == pytest.approx(expected, abs=1e-5)


def test_the_head_is_scikit_learns_with_a_column_per_speaker(small, speech):
    """With two labels, it has one vector of weights, and the head two opposite ones."""
    features = torch.randn(2, len(speech), 6, generator=torch.Generator().manual_seed(0))
    config = small.HeadConfig()
    head = small.fit_head(features, speech, config)
    rows, weights = features.flatten(0, 1), small.weigh_clips(speech).repeat(2) / 2
    mean = weights @ rows
    deviation = (weights @ (rows - mean).square()).sqrt() + 1e-4
    scale = torch.tensor([1.0] * 3 + [config.deviation_scale] * 3)
    voices = sorted({item.voice for item in speech})
    speakers = torch.tensor([voices.index(item.voice) for item in speech]).repeat(2)
    columns = config.speaker_scale * torch.nn.functional.one_hot(speakers, len(voices))
    table = torch.cat([(rows - mean) / deviation * scale, columns], dim=1).double()
    labels = [item.label == "sad" for item in speech] * 2
    peer = LogisticRegression(C=2 / config.ridge, tol=1e-8, max_iter=1000)
    peer.fit(table.numpy(), labels, sample_weight=weights.numpy())
    happy, sad = (small.ALL_LABELS.index(label) for label in ("happy", "sad"))
    ours = (head.weight[sad] - head.weight[happy]) * deviation / scale
    assert ours.numpy() == pytest.approx(peer.coef_[0, :6], abs=2e-3)


def test_the_head_has_the_answers_of_its_network_and_those_of_its_seeds_together(
    script, base, speech, tmp_path
):
    frame_head = sys.modules["frame_head"]
    model = script.build_network(str(base))
    copies = script.encode_speech(model, speech, tmp_path)
    some = list(range(0, len(speech), 2))
    clips = [speech[place] for place in some]
    head = frame_head.fit_frame_head(copies, some, clips, num_seeds=2)
    apart = [
        frame_head.train_head(copies, some, clips, seed).predict(copies[0], some) for seed in (0, 1)
    ]
    logits = head.predict(copies[0], some)
    assert logits == pytest.approx(np.mean(apart, axis=0), abs=5e-3 * float(np.abs(apart).max()))
    network = frame_head.put_frame_head(model, head)
    columns = [frame_head.ALL_LABELS.index(label) for label in frame_head.LABELS]
    for place, clip in enumerate(clips[:6]):
        samples = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])
        with torch.inference_mode():
            found = network(samples[None]).logits[0].numpy()
        expected = logits[place, columns]
        assert found == pytest.approx(expected, abs=5e-3 * float(np.abs(expected).max()))
    windows = Windows(Recordings(speech), sys.modules["small"].WINDOW)
    plain = pool_windows(model, windows, None)[:, 0]
    assert torch.allclose(copies[0].pool(), plain, atol=2e-3)


def test_the_layer_that_is_tuned_is_the_last_one_of_the_encoder(script, base, speech, tmp_path):
    """Before the tuning it has the frames of transformers, and afterwards those of its network."""
    last_layer = sys.modules["last_layer"]
    layers = script.open_layers(str(base), speech, tmp_path)
    some = list(range(0, len(speech), 3))  # several labels of each corpus, or the loss is zero
    clips = [speech[place] for place in some]
    head = sys.modules["frame_head"].fit_frame_head(layers.heads.copies, some, clips, num_seeds=2)
    frames = layers.copies[0]
    plain = last_layer.LastLayer(layers.model, head)
    with torch.inference_mode():
        found = plain(*last_layer.take(frames, some))
    expected, _ = layers.heads.copies[0].take(some)
    assert float((found - expected).abs().max()) < 5e-3 * float(expected.abs().max())
    start = last_layer.start_last_layer(layers.model, head, frames, some)
    logits = head.predict(layers.heads.copies[0], some)
    scale = float(np.abs(logits).max())
    assert start.predict(frames, some) == pytest.approx(logits, abs=0.02 * scale)
    learned = last_layer.tune_last_layer(start, layers.copies, some, clips, seed=0)
    moved = learned["layer.fc1.weight"] - start.layer.fc1.weight
    assert float(moved.abs().max()) > 1e-4  # weight decay alone moves them less
    mixed = last_layer.mix_states(start, learned)
    tuned = last_layer.LastLayer.restore(layers.model, mixed)
    network = last_layer.put_last_layer(layers.model, tuned)
    columns = [script.ALL_LABELS.index(label) for label in last_layer.LABELS]
    logits = tuned.predict(frames, some)[:, columns]
    for place, clip in enumerate(clips[:6]):
        samples = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])
        with torch.inference_mode():
            answer = network(samples[None]).logits[0].numpy()
        assert answer == pytest.approx(logits[place], abs=5e-3 * float(np.abs(logits).max()))


def test_no_tested_speaker_is_trained_on_and_every_speaker_is_tested_once(script, speech):
    plans = list(sys.modules["measure_small"].plan_splits(speech))
    for _, split in plans:
        tested = {item.voice for item in split.test}
        assert tested
        assert not tested & {item.voice for item in split.training}
    for plan, corpus in (("actors", "ravdess"), ("speakers", "nemo")):
        found = [item for name, split in plans if name == plan for item in split.test]
        assert len(found) == sum(item.corpus == corpus for item in speech)
        assert {item.corpus for item in found} == {corpus}


def test_no_method_has_met_the_corpus_that_it_is_compared_on(script, base, speech, tmp_path):
    transfer = sys.modules["measure_transfer"]
    bursts = [replace(item, corpus="emogator") for item in speech if item.corpus == "cremad"]
    splits = transfer.split_all(speech, bursts)
    assert [{item.corpus for item in split.test} for split in splits] == [
        {"ravdess"}, {"nemo"}, {"cremad"}, {"emogator"},
    ]  # fmt: skip
    for split in splits:
        assert not {item.corpus for item in split.training} & {split.test[0].corpus, "emogator"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["egemaps_svm"], "has_opensmile", lambda: False)
        table = transfer.compare_corpora(str(base), speech, bursts, tmp_path)
    _, _, *lines = table.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"| {row.title}" for row in transfer.ROWS]
    with np.load(tmp_path / "transfer" / "frozen probe" / "without nemo.npz") as kept:
        rows = [item.label in transfer.LABELS for item in splits[1].test]
        columns = [list(kept["labels"]).index(label) for label in transfer.LABELS]
        found = kept["logits"][rows][:, columns].argmax(axis=1)
    labels = [item.label for item in splits[1].test if item.label in transfer.LABELS]
    truth = [transfer.LABELS.index(label) for label in labels]
    expected = balanced_accuracy_score(truth, found)
    assert f"{expected:.3f} (" in lines[1].split(" | ")[3]
    assert lines[1].endswith("| - |")


def test_an_interrupted_run_reads_the_frames_and_weights_that_it_has(script, trained, base, speech):
    output, model, _ = trained
    files = sorted((output / "frames").iterdir())
    assert [file.name for file in files] == [
        f"{corpus}-copy{copy}.npz" for corpus in ("cremad", "nemo", "ravdess") for copy in (0, 1, 2)
    ]
    for folder in ("inner", "emoser-small/heads", "emoser-small/layers"):
        files += sorted((output / folder).iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    again, _ = script.train_small(str(base), speech, output)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert torch.equal(again.head.classifier.weight, model.head.classifier.weight)
    with pytest.raises(ValueError, match="other recordings"):
        script.train_small(str(base), speech[1:], output)


def test_the_checkpoint_has_half_the_bytes_and_the_same_numbers(trained, checkpoint):
    _, model, _ = trained
    classifier = EmotionClassifier.from_pretrained(checkpoint, device="cpu", backend="torch")
    for clip in random_clips([400, 8_000, 30_000]):
        with torch.inference_mode():
            logits = model(torch.from_numpy(clip)[None]).logits[0] / model.config.temperature
        scores = classifier.predict(clip, sampling_rate=16_000).scores
        assert list(scores.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-3)
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size < 2.2 * sum(item.numel() for item in model.parameters())
    assert as_files(checkpoint).licence == "cc-by-nc-sa-4.0"
    assert inspect_checkpoint(checkpoint).sound


def test_its_graph_has_half_the_bytes_too_and_the_same_numbers(checkpoint):
    torch_scores, onnx_scores = (
        EmotionClassifier.from_pretrained(checkpoint, device="cpu", backend=backend)
        for backend in ("torch", "onnx")
    )
    for clip in random_clips([400, 8_000, 30_000]):
        ours = torch_scores.predict(clip, sampling_rate=16_000).scores
        theirs = onnx_scores.predict(clip, sampling_rate=16_000).scores
        assert theirs == pytest.approx(ours, abs=1e-4)
    assert json.loads((checkpoint / "emoser_runtime.json").read_text())["format"] == "onnx"


def test_it_can_be_adapted_and_storing_the_means_again_changes_nothing(checkpoint, speech):
    stated = json.loads((checkpoint / "config.json").read_text())["emoser"]["mean_logits"]
    assert len(stated) == 4
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    assert sys.modules["store_means"].store_means(checkpoint, speech) == tuple(stated)
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before


def test_means_are_stored_in_a_checkpoint_without_them_and_its_graph_stays(
    checkpoint, speech, tmp_path
):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    config = json.loads((folder / "config.json").read_text())
    means = config["emoser"].pop("mean_logits")
    (folder / "config.json").write_text(json.dumps(config))
    script = sys.modules["store_means"]
    manifest = read_manifest(as_files(folder))
    bare = replace(manifest, config=replace(manifest.config, mean_logits=()))
    replace(bare, weights=as_files(folder).content_hash).write(folder)
    clips = random_clips([9_000 + 100 * place for place in range(9)])
    classifier = EmotionClassifier.from_pretrained(folder, device="cpu", backend="onnx")
    with pytest.raises(CheckpointError, match="does not state mean_logits"):
        classifier.adapt(clips, sampling_rate=16_000)
    assert script.store_means(folder, speech) == tuple(means)
    assert script.find_graph(as_files(folder)).config.mean_logits == tuple(means)
    again = EmotionClassifier.from_pretrained(folder, device="cpu", backend="onnx")
    assert again.adapt(clips, sampling_rate=16_000).num_recordings == 9


def test_the_adaptation_is_measured_on_unseen_speakers(script, trained, base, speech):
    output, _, _ = trained
    measure = importlib.import_module("measure_adaptation")
    layers = script.open_layers(str(base), speech, output)
    rows = {
        title: list(measure.fit_speakers(layers, speech, *plan))
        for title, plan in measure.ROWS.items()
    }
    assert list(map(len, rows.values())) == [5, 2, 2, 5]
    assert {len(speaker.truth) for found in rows.values() for speaker in found} == {8}
    lines = list(measure.tabulate(rows))
    assert any(line.startswith("| 4 mixed | 8 | ") for line in lines)


def test_a_checkpoint_is_scored_on_the_speakers_that_it_holds_out(script, speech):
    names = {"01": "16", "02": "18", "N5": "KS0"}
    items = [replace(item, speaker=names.get(item.speaker, item.speaker)) for item in speech]
    measure = importlib.import_module("measure_adaptation")
    found = measure.score_speakers("emoser-tiny", items)
    assert {corpus: len(rows) for corpus, rows in found.items()} == {"ravdess": 2, "nemo": 1}
    clips = [item for item in items if item.speaker == "18"]
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu", backend="torch")
    answers = classifier.predict_batch([item.path for item in clips])
    scores = [[answer.scores[label] for label in measure.LABELS] for answer in answers]
    assert softmax(found["ravdess"][1].logits, axis=1) == pytest.approx(np.array(scores), abs=1e-5)
    assert [measure.LABELS[place] for place in found["ravdess"][1].truth] == [
        item.label for item in clips
    ]


def test_an_offset_of_a_voice_is_found_and_removed(script):
    """Speakers whose logits are right but for a shift of their own: all is gained back."""
    measure = importlib.import_module("measure_adaptation")
    truth = np.arange(200) % 4
    right = np.eye(4)[truth]
    speaker = measure.Speaker(right + np.array([0.0, 3.0, 0.0, 0.0]), truth, (0.25,) * 4)
    lost = 1.0 - measure.score_uar(*speaker[:2])
    assert lost == pytest.approx(0.75)
    assert measure.gain(speaker, 32, "even", 0) == pytest.approx(lost)
    assert measure.gain(speaker, 32, "one", 0) < lost


def test_its_card_has_the_figures_of_the_folds(checkpoint):
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert "| RAVDESS, 4 classes, 5 folds | emoser-small |" in card
    assert "| nEMO to RAVDESS, 4 classes |" in card
    assert "Targets that are reached: " in card
    assert "$" not in card


def test_other_conditions_are_answered_by_heads_that_were_not_trained_on_the_speaker(
    script, trained, robustness, checkpoint, speech
):
    output, _, _ = trained
    corpora, text = robustness
    measure = sys.modules["measure_small"]
    for corpus, plan, step in (("ravdess", "actors", 1), ("nemo", "speakers", 2)):
        splits = measure.PLANS[plan](speech)
        own = {
            id(item): np.load(output / "emoser-small" / plan / f"{split.name}.npz")["logits"][place]
            for split in splits
            for place, item in enumerate(split.test)
        }
        columns = [sys.modules["network"].ALL_LABELS.index(label) for label in measure.LABELS]
        found = corpora[corpus]
        assert len(found.utterances) == 8 * len(splits) // step
        for item, (answer, *_) in zip(found.utterances, found.answers, strict=True):
            logits = own[id(item)][columns]  # of frames in half precision
            assert logits[answer] >= logits.max() - 5e-3 * np.abs(logits).max()
        changed = (found.answers[:, 1:] != found.answers[:, :1]).mean(axis=0)
        assert list(found.changed.values()) == pytest.approx(changed.tolist())
    lines = text.splitlines()
    assert lines[0].startswith("| recordings | RAVDESS, 40: UAR |")
    assert "| nEMO, 8: UAR |" in lines[0]
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| as they are", "| clipping", "| 8 kHz and back", "| quiet ends added",
    ]  # fmt: skip
    assert "Not measured, for want of an encoder: GSM." in text
    assert text in (checkpoint / "README.md").read_text(encoding="utf-8")


def test_speeds_are_those_of_the_same_pieces_by_every_method(script, base, monkeypatch):
    speed = importlib.import_module("measure_speed")
    monkeypatch.setattr(speed, "NUM_ROUNDS", 1)
    monkeypatch.setattr(speed, "CHECKPOINTS", speed.CHECKPOINTS[1:2])
    monkeypatch.setattr(speed, "has_opensmile", lambda: False)
    found = {name: (size, method) for name, size, method in speed.list_methods(str(base))}
    assert list(found) == ["emoser-tiny, float32, torch", "stock Whisper, float32, 30 s"]
    pieces = random_clips([64_000] * 5)
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu", backend="torch")
    size, method = found["emoser-tiny, float32, torch"]
    assert size == pytest.approx(8.6, abs=0.1)
    assert method(pieces) == classifier.predict_batch(pieces, sampling_rate=16_000)
    answers = found["stock Whisper, float32, 30 s"][1](pieces)
    assert [tuple(answer.logits.shape) for answer in answers] == [(4, 4), (1, 4)]
    rates = speed.measure({name: method for name, (_, method) in found.items()}, pieces)
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.parametrize("name", ["emoser-tiny", "emoser-small"])
def test_the_cards_of_the_package_have_the_sections_of_their_templates(name):
    """Texts and headings of the templates, whose figures stand in the cards."""
    template = SCRIPTS / ("card.md" if name == "emoser-tiny" else "card_small.md")
    card = " ".join(find_checkpoint(name).card.split())
    for part in template.read_text(encoding="utf-8").split("---", 2)[2].split("\n\n"):
        for piece in re.split(r"\$\w+", " ".join(part.split())):
            assert piece.strip() in card, piece


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run_ends_above_a_frozen_probe_on_a_tenth_of_it(script, speech_data, tmp_path):
    folder = speech_data.parent / "pretrained" / "whisper-base"
    if not folder.is_dir():
        pytest.skip(f"no Whisper in {folder}")
    speech = sys.modules["small"].read_speech(speech_data)
    recipe, probe = script.run_quick(str(folder), speech, tmp_path)
    assert recipe > probe > 0.45  # chance is 0.225
