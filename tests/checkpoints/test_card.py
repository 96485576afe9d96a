"""Every folder that emoser writes has a card that a stranger can act on, and the Hub can read."""

import json
import re
from dataclasses import replace

import pytest
import soundfile
from huggingface_hub import ModelCard
from support.models import loud_model, random_clips, small_config
from support.reference_checkpoints import CASES, require

from emoser import EmotionClassifier
from emoser.checkpoints.card import build_card, check_card, read_metadata
from emoser.checkpoints.files import as_files
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.resolve import BUNDLED
from emoser.checkpoints.save import describe_model, save_model
from emoser.cli import main
from emoser.errors import CheckpointError, HubError
from emoser.models.config import ModelConfig

PARTS = (
    "Use it",
    "Outputs",
    "How well it does",
    "How it was made",
    "Preprocessing",
    "Limits",
    "What it must not be used for",
    "Licence",
)
EVALUATION = {
    "dataset": "calls",
    "protocol": "speaker-independent: 5 folds of whole speakers",
    "labels": ["sad", "happy"],
    "uar": 0.75,
    "accuracy": 0.7,
    "macro_f1": 0.72,
    "calibration_error": 0.05,
    "uar_interval": [0.7, 0.8],
    "confusion": [[7, 3], [2, 8]],
    "num_utterances": 20,
    "num_speakers": 4,
    "per_sex": {"f": 0.8, "m": 0.7},
    "per_speaker": {f"calls/{number}": number / 100 for number in range(40)},
    "notes": ["two duplicates were left out"],
}
TRAINING = {
    "base": "facebook/hubert-base-ls960",
    "licence": "cc-by-4.0",
    "language": "pl",
    "clips": {"sad": 100, "happy": 1200},
    "environment": {"emoser": "0.1.0", "torch": "2.14"},
    "evaluations": [EVALUATION, {"dataset": "secret", "uar": 0.99}],
}
THEIRS = """---
license: other
license_name: research-only
language: de
datasets: [someone/voices]
tags: [voices]
model-index:
- name: theirs
  results:
  - task: {type: audio-classification}
    dataset: {type: x, name: x}
    metrics: [{type: accuracy, value: 99.0}]
---
# Their model

It is the best.
"""


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def statements(code):
    return [line for line in code.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def model():
    return loud_model(small_config())


def facts_of(model, before="", **training):
    config = replace(model.config, training=training)
    return replace(describe_model(model, "someone/voices", card=before), config=config)


def test_a_saved_folder_has_a_card_whose_snippets_run(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "voices")
    soundfile.write(tmp_path / "call.wav", random_clips([16_000])[0], 16_000)
    card = ModelCard.load(tmp_path / "voices" / "README.md")
    assert check_card(str(card)) == []
    assert [f"## {part}" in card.text for part in PARTS] == [True] * len(PARTS)
    ours, theirs = snippets(card.text)
    assert len(statements(ours)) == len(statements(theirs)) == 3
    exec(ours, {})
    assert re.match(r"\w+ 0\.\d+ ", capsys.readouterr().out)
    exec(theirs.replace('classifier("call.wav")', "classifier"), {})
    assert "AudioClassificationPipeline" in capsys.readouterr().out


def test_a_folder_that_transformers_cannot_load_alone_says_what_it_needs(tmp_path):
    save_model(loud_model(small_config(), output_norm=True), tmp_path / "own")
    card = ModelCard.load(tmp_path / "own" / "README.md")
    assert card.data.library_name == "emoser"
    code = snippets(card.text)[1].replace('"own"', repr(str(tmp_path / "own")))
    exec(code.replace('classifier("call.wav")', "classifier"), {})


def test_figures_stand_below_their_protocol_with_intervals_and_groups(model):
    card = ModelCard(str(build_card(facts_of(model, **TRAINING))))
    assert [(item.metric_type, item.metric_value) for item in card.data.eval_results] == [
        ("recall", 0.75),
        ("accuracy", 0.7),
        ("f1", 0.72),
    ]
    assert all(EVALUATION["protocol"] in item.dataset_name for item in card.data.eval_results)
    text = card.text
    assert text.index(EVALUATION["protocol"]) < text.index("0.750")
    for part in (
        "0.700 to 0.800",
        "| sad | 7 | 3 |",
        "20 recordings of 4 known speakers",
        "- two duplicates were left out",
        "| m | 0.700 |",
        "The lowest, the middle and the highest of 40.",
        "Training clips: 100 sad, 1,200 happy.",
        "Fine-tuned from `facebook/hubert-base-ls960`",
        "The weights: cc-by-4.0.",
        "torch 2.14",
    ):
        assert part in text
    assert "| true \\ predicted | sad | happy |\n|---|---|---|\n| sad | 7 | 3 |" in text
    assert text.count("| sex of the speaker | unweighted average recall |") == 1
    assert "0.99" not in str(card)
    assert (card.data.license, card.data.language) == ("cc-by-4.0", "pl")
    assert card.data.base_model == "facebook/hubert-base-ls960"


def test_a_card_never_shows_a_folder_of_this_machine(model, tmp_path):
    card = build_card(facts_of(model, base=str(tmp_path / "my-encoder")))
    assert str(tmp_path) not in str(card)
    assert "`my-encoder`" in card.text
    assert card.data.base_model is None


def test_of_a_foreign_card_the_licence_is_kept_and_the_text_quoted(model):
    card = ModelCard(str(build_card(facts_of(model, THEIRS))))
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert (card.data.language, card.data.datasets) == ("de", ["someone/voices"])
    assert {"emoser", "voices"} <= set(card.data.tags)
    assert card.data.eval_results is None, "a figure without a protocol is not passed on"
    assert "### Their model\n\nIt is the best." in card.text
    assert card.text.index("## Use it") < card.text.index("Their model")


def test_a_card_written_for_emoser_is_kept_under_its_new_name(model, tmp_path):
    first = str(build_card(facts_of(model, **TRAINING)))
    edited = first.replace("## Limits\n", "## Limits\n\n- Only for whales.\n")
    again = build_card(replace(facts_of(model, edited), name="other/whales"))
    assert "Only for whales." in again.text
    assert 'from_pretrained("other/whales")' in again.text
    assert 'pipeline("audio-classification", "other/whales")' in again.text
    assert len(again.data.eval_results) == 3
    assert "whales" not in str(build_card(facts_of(model, edited), fresh=True)).lower()


def test_a_broken_front_matter_does_not_stop_a_save(model, tmp_path):
    for number, text in enumerate(("---\n: [\n---\n# x", "---\n- a\n---", "# plain", "---")):
        assert read_metadata(text) == {}
        save_model(model, tmp_path / str(number), card=text)
        assert check_card((tmp_path / str(number) / "README.md").read_text()) == []


LICENCES = {
    "cc-by-nc-sa-4.0": ("cc-by-nc-sa-4.0", None),
    "openrail": ("openrail", None),
    "other\nlicense_name: research-only": ("other", "research-only"),
    "apache-2.0": ("other", "not-stated"),
    "mit": ("other", "not-stated"),
}


@pytest.mark.parametrize("stated", LICENCES)
def test_a_tuned_model_inherits_a_licence_that_binds_it(stated, model, tmp_path):
    save_model(model, tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text(f"---\nlicense: {stated}\n---\n# Base\n")
    tuned = start_model(tmp_path / "base", ModelConfig(labels=("calm", "bored")), seed=0)
    save_model(tuned, tmp_path / "tuned")
    data = ModelCard.load(tmp_path / "tuned" / "README.md").data
    assert (data.license, data.get("license_name")) == LICENCES[stated]
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    (tmp_path / "tuned" / "README.md").unlink()
    licence = as_files(tmp_path / "tuned").licence
    assert licence == config["emoser"]["training"].get("licence")
    assert licence == (None if "not-stated" in LICENCES[stated] else stated.split(": ")[-1])


def test_the_bundled_card_is_fit_for_the_hub():
    card = ModelCard.load(BUNDLED / "emoser-tiny" / "README.md")
    assert check_card(str(card)) == []
    assert card.data.license == "cc-by-nc-sa-4.0"
    ours, theirs = snippets(card.text)[:2]
    assert len(statements(ours)) == len(statements(theirs)) == 3


@pytest.mark.parametrize("name", ["SpeechBrain IEMOCAP", "CTC head"])
def test_a_converted_folder_says_where_it_came_from_and_how_near_it_is(name, tmp_path, capsys):
    require(name)
    CASES[name](tmp_path / "source")
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "made")]) == 0
    card = ModelCard.load(tmp_path / "made" / "README.md")
    assert check_card(str(card)) == []
    assert "Written from `source`, layout" in card.text
    assert "Largest difference of a logit to that source:" in card.text
    assert 'from_pretrained("made")' in card.text


def test_the_command_prints_checks_and_writes(model, tmp_path, capsys):
    save_model(model, tmp_path / "voices")
    file = tmp_path / "voices" / "README.md"
    file.write_text("# A note")
    assert main(["card", str(tmp_path / "voices")]) == 0
    shown = capsys.readouterr().out
    assert check_card(shown) == []
    assert "### A note" in shown
    assert file.read_text() == "# A note"
    assert main(["card", str(tmp_path / "voices"), "--write", "--name", "a/b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert 'from_pretrained("a/b")' in file.read_text()
    file.write_text(file.read_text().replace("AI Act", "law").replace("2024/1689", ""))
    assert main(["card", str(tmp_path / "voices")]) == 4
    assert "must not be used for" in capsys.readouterr().err
    assert main(["card", "emoser-tiny", "--write"]) == 2
    assert "emoser convert emoser-tiny FOLDER" in capsys.readouterr().err


def test_a_rehearsed_upload_checks_the_card_and_sends_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    save_model(model, tmp_path / "voices")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "voices", device="cpu")
    assert classifier.push_to_hub("someone/voices", dry_run=True).endswith("/someone/voices")
    for name in ("voices", "a/b/c", "some one/voices"):
        with pytest.raises(HubError, match=r"owner|is not a valid Hub id"):
            classifier.push_to_hub(name, dry_run=True)
    file = tmp_path / "voices" / "README.md"
    file.write_text(file.read_text().replace("AI Act", "law").replace("2024/1689", ""))
    with pytest.raises(CheckpointError, match="cannot be published: it does not say"):
        classifier.push_to_hub("someone/voices", dry_run=True)


def test_an_exported_folder_says_that_it_is_a_graph(model, tmp_path):
    pytest.importorskip("onnxruntime")
    from emoser.export import export

    for name, source in (("bundled", "emoser-tiny"), ("plain", save_model(model, tmp_path / "x"))):
        export(source, tmp_path / name)
        card = ModelCard.load(tmp_path / name / "README.md")
        assert check_card(str(card)) == []
        assert card.data.library_name == "emoser"
        assert "> This folder is a graph (onnx, float32)" in card.text
        assert "Largest difference of a logit:" in card.text
        assert f'from_pretrained("{name}")' in card.text
