"""`emoser models`, `emoser doctor` and `emoser convert`."""

import json
import shutil

import pytest
from support.reference_checkpoints import CASES, require

from emoser.checkpoints.catalog import CATALOG
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.cli import doctor, main


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def write(name):
        if name not in made:
            require(name)
            made[name] = tmp_path_factory.mktemp("commands") / "model"
            CASES[name](made[name])
        return made[name]

    return write


def run(capsys, *words):
    code = main([str(word) for word in words])
    return code, capsys.readouterr()


def test_models_lists_the_catalog_and_the_recipes_of_the_paper(capsys):
    code, shown = run(capsys, "models", "--json")
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert code == 0
    catalog = [row for row in rows if row["kind"] == "catalog"]
    assert len(catalog) == len(CATALOG)
    assert not any(row["checked"] for row in catalog)
    assert all(row["protocol"] for row in catalog if row["claim"])
    recipes = {row["name"]: row["encoder"] for row in rows if row["kind"] == "recipe"}
    assert recipes["PF-hbt-large"] == "facebook/hubert-large-ll60k"
    assert recipes["EF-w2v-base"] == "facebook/wav2vec2-base"
    code, shown = run(capsys, "models")
    assert code == 0
    assert "Not checked against the live Hub" in shown.out
    assert "claim: 78.7 % accuracy" in shown.out


def test_doctor_says_what_a_checkpoint_is(folders, capsys):
    code, shown = run(capsys, "doctor", folders("ehcalabres, no activation"), "--tensors")
    assert code == 0
    for part in (
        "layout       ehcalabres",
        "neutral (neu), happy (HAP), angry (anger), sad",
        "result       sound",
        "set head_activation in config.json to change it",
        "classifier.output.weight -> head.classifier.weight (1)",
        "wav2vec2.encoder.layers.*.attention.k_proj.weight -> "
        "encoder.backbone.encoder.layers.*.attention.k_proj.weight (2)",
    ):
        assert part in shown.out
    code, shown = run(capsys, "doctor", folders("audEERING dimensions"), "--json")
    row = json.loads(shown.out)
    assert code == 0
    assert row["dimensions"] == ["arousal", "dominance", "valence"]
    assert row["golden_difference"] is None
    assert row["packages"]["torch"]["fault"] is None


@pytest.mark.parametrize(
    ("name", "layout"),
    [("SpeechBrain IEMOCAP", "emoser"), ("CTC head", "transformers")],
)
def test_convert_keeps_numbers_labels_and_provenance(name, layout, folders, tmp_path, capsys):
    code, shown = run(capsys, "convert", folders(name), tmp_path / "out", "--json")
    row = json.loads(shown.out)
    assert code == 0
    assert row["layout"] == layout
    assert row["max_difference"] <= 1e-5
    assert not list((tmp_path / "out").glob("*.ckpt"))
    loaded, source = load_checkpoint(tmp_path / "out"), load_checkpoint(folders(name))
    assert loaded.model.config.raw_labels == source.model.config.raw_labels
    assert loaded.model.config.training["converted_from"]["layout"] == source.layout
    code, shown = run(capsys, "doctor", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(shown.out)["golden_difference"] <= 1e-6
    code, shown = run(capsys, "convert", folders(name), tmp_path / "out")
    assert code == 3
    assert "overwrite" in shown.err


def test_doctor_fails_where_the_kept_logits_are_not_reached(folders, tmp_path, capsys):
    run(capsys, "convert", folders("CTC head"), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "golden.json").read_text())
    record["logits"][0][0] += 0.5
    (tmp_path / "out" / "golden.json").write_text(json.dumps(record))
    code, shown = run(capsys, "doctor", tmp_path / "out")
    assert code == 4
    assert "NOT SOUND" in shown.out
    (tmp_path / "out" / "golden.json").write_text("{")
    code, shown = run(capsys, "doctor", tmp_path / "out")
    assert code == 4
    assert "golden.json is damaged" in shown.err


def test_doctor_names_a_broken_package_and_its_mend(capsys, monkeypatch):
    def broken(name):
        if name in ("soxr", "torchaudio"):
            raise OSError("libcudart.so.13: cannot open shared object file")
        return None

    monkeypatch.setattr(doctor, "import_module", broken)
    code, shown = run(capsys, "doctor")
    assert code == 5
    assert "broken: libcudart.so.13" in shown.out
    assert "pip install --force-reinstall soxr" in shown.out


@pytest.mark.slow
def test_predict_prints_dimensions(folders, tmp_path, capsys):
    from pathlib import Path

    clip = tmp_path / "clip.wav"
    shutil.copy(Path(__file__).parents[2] / "examples" / "audio" / "plain.wav", clip)
    model = folders("audEERING dimensions")
    code, shown = run(capsys, "predict", clip, "--model", model)
    assert code == 0
    assert "arousal" in shown.out
    assert "valence" in shown.out
    code, shown = run(capsys, "predict", clip, "--model", model, "--csv")
    header, row = shown.out.splitlines()
    assert header == "source,label,score,arousal,dominance,valence,duration,quality,error"
    assert row.split(",")[1:3] == ["", ""]
    code, shown = run(capsys, "predict", clip, "--model", model, "--json")
    assert list(json.loads(shown.out)["dimensions"]) == ["arousal", "dominance", "valence"]
