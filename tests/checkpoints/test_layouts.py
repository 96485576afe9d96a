"""Every layout gives the numbers of the code that it comes from, alone and in a batch."""

import copy
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file
from support.models import loud_model, pad, random_clips, small_config
from support.reference_checkpoints import CASES, LAYER_NORM, of_dense_head, require
from transformers import AutoModel, HubertConfig, Wav2Vec2Config, WavLMConfig, pipeline

from emoser import EmotionClassifier
from emoser.checkpoints.backbones import build_encoder, infer_encoder_config
from emoser.checkpoints.conversion import convert_checkpoint
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.checkpoints.layouts import funasr
from emoser.checkpoints.layouts.registry import identify, load_checkpoint
from emoser.checkpoints.registration import register
from emoser.checkpoints.save import save_model
from emoser.checkpoints.tensors import open_tensors
from emoser.models.emotion2vec import Emotion2VecConfig, Emotion2VecEncoder

LENGTHS = (16_000, 5_000, 30_000, 9_999)
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A folder and a reference for each name, written when first asked for."""
    made = {}

    def write(name):
        if name not in made:
            require(name)
            folder = tmp_path_factory.mktemp("checkpoint") / "model"
            made[name] = folder, CASES[name](folder)
        return made[name]

    return write


@pytest.mark.parametrize("name", CASES)
def test_a_layout_gives_the_numbers_of_its_authors_alone_and_in_a_batch(name, written):
    folder, reference = written(name)
    model = load_checkpoint(folder).model
    clips = random_clips(LENGTHS)
    with torch.inference_mode():
        expected = torch.stack([reference(clip) for clip in clips])
        alone = torch.cat([model(torch.from_numpy(clip)[None]).logits for clip in clips])
        batched = model(*pad(clips)).logits
    scale = max(float(expected.abs().max()), 1.0)
    print(
        f"{name}: scale {scale:.2f}, alone {(alone - expected).abs().max():.1e}, "
        f"batched {(batched - expected).abs().max():.1e}"
    )
    assert expected.std(dim=0).max() > 0.01 * scale, "the clips must differ"
    assert (alone - expected).abs().max() <= TOLERANCE * scale
    assert (batched - expected).abs().max() <= TOLERANCE * scale


NATIVE = (
    "Wav2Vec2, group norm",
    "Wav2Vec2, layer norm, layer sum",
    "Hubert, raw input",
    "Data2VecAudio",
    "Wav2Vec2Conformer, rotary",
    "Wav2Vec2Bert",
    "Whisper",
    "ehcalabres, no activation",
    "CTC head",
)


def through_pipeline(folder, clips):
    """Scores by raw label, through transformers' own pipeline."""
    pipe = pipeline("audio-classification", str(folder), dtype=torch.float32)
    return [{item["label"]: item["score"] for item in pipe(clip, top_k=None)} for clip in clips]


@pytest.mark.parametrize("name", CASES)
def test_every_layout_runs_in_bfloat16_near_its_float32(name, written):
    model = load_checkpoint(written(name)[0]).model
    batch = pad(random_clips(LENGTHS[:2]))
    half = copy.deepcopy(model).to(torch.bfloat16)
    with torch.inference_mode():
        full, rough = model(*batch).logits, half(*batch).logits
    assert rough.dtype == torch.bfloat16
    assert (full - rough.float()).abs().max() <= 0.1 * max(float(full.abs().max()), 1.0)


@pytest.mark.parametrize("name", CASES)
def test_a_converted_checkpoint_gives_the_same_numbers_through_the_pipeline(
    name, written, tmp_path
):
    """In transformers' own layout where it has one, else with emoser's classes registered."""
    folder, _ = written(name)
    done = convert_checkpoint(CheckpointFiles(name, folder), tmp_path / "model")
    assert done.layout == ("transformers" if name in NATIVE else done.layout)
    assert done.max_difference <= 1e-5
    if done.layout == "emoser":
        register()
    model = load_checkpoint(folder).model
    clips = random_clips((16_000, 7_777))
    with torch.inference_mode():
        logits = [model(torch.from_numpy(clip)[None]).logits[0] for clip in clips]
    if model.config.dimensions and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("this pipeline of transformers puts a softmax over dimensions")
    for theirs, ours in zip(through_pipeline(tmp_path / "model", clips), logits, strict=True):
        expected = ours if model.config.dimensions else ours.softmax(-1)
        for label, value in zip(model.config.raw_labels, expected.tolist(), strict=True):
            assert theirs[label] == pytest.approx(value, abs=1e-5)


def test_importing_the_registration_changes_nothing():
    code = (
        "import emoser.checkpoints.registration as registration\n"
        "from transformers.models.auto.configuration_auto import CONFIG_MAPPING\n"
        "print('emoser' in CONFIG_MAPPING)\n"
        "registration.register()\n"
        "print('emoser' in CONFIG_MAPPING)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_dimensions_are_values_by_name_and_never_a_softmax(written):
    folder, reference = written("audEERING dimensions")
    classifier = EmotionClassifier.from_pretrained(folder, backend="torch")
    (clip,) = random_clips((12_000,))
    answer = classifier.predict(clip, sampling_rate=16_000)
    assert classifier.labels == ()
    assert (answer.label, answer.score, dict(answer.scores)) == (None, None, {})
    assert tuple(answer.dimensions) == ("arousal", "dominance", "valence")
    with torch.inference_mode():
        expected = reference(clip).tolist()
    assert list(answer.dimensions.values()) == pytest.approx(expected, abs=1e-5)


def test_dimensions_are_found_by_name_whatever_their_order(tmp_path):
    reference = of_dense_head(("Valence", "Arousal", "Dominance"))(tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "model", backend="torch")
    (clip,) = random_clips((12_000,))
    answer = classifier.predict(clip, sampling_rate=16_000)
    with torch.inference_mode():
        valence, arousal, dominance = reference(clip).tolist()
    assert list(answer.dimensions.items()) == [
        ("arousal", pytest.approx(arousal, abs=1e-5)),
        ("dominance", pytest.approx(dominance, abs=1e-5)),
        ("valence", pytest.approx(valence, abs=1e-5)),
    ]


def test_labels_and_dimensions_in_one_model(tmp_path):
    model = loud_model(small_config(), dimensions=("valence", "arousal"), temperature=2.0)
    save_model(model, tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "model", backend="torch")
    (clip,) = random_clips((12_000,))
    answer = classifier.predict(clip, sampling_rate=16_000)
    with torch.inference_mode():
        logits = model(torch.from_numpy(clip)[None]).logits[0]
    expected = (logits[:4] / 2.0).softmax(-1).tolist()
    assert list(answer.scores.values()) == pytest.approx(expected, abs=1e-6)
    assert list(answer.dimensions.items()) == [
        ("arousal", pytest.approx(float(logits[5]), abs=1e-6)),
        ("valence", pytest.approx(float(logits[4]), abs=1e-6)),
    ]
    assert "arousal" in str(answer)


def test_frames_of_the_diarization_model_have_probabilities(written):
    folder, _ = written("SpeechBrain diarization")
    model = load_checkpoint(folder).model
    clips = random_clips((16_000, 5_000))
    with torch.inference_mode():
        batched = model.classify_frames(*pad(clips))
        alone = [model.classify_frames(torch.from_numpy(clip)[None]).logits[0] for clip in clips]
        whole = model(torch.from_numpy(clips[0])[None]).logits[0].exp()
    assert model.config.frame_seconds == 0.02
    assert [len(row) for row in alone] == batched.num_frames.tolist() == [49, 15]
    for row, together in zip(alone, batched.logits, strict=True):
        torch.testing.assert_close(together[: len(row)], row, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, alone[0].softmax(-1).mean(0))
    with pytest.raises(ValueError, match="no outputs for single frames"):
        load_checkpoint(written("CTC head")[0]).model.classify_frames(torch.zeros(1, 8_000))


def test_the_activation_of_ehcalabres_is_stated_and_can_be_chosen(written, tmp_path):
    folder, _ = written("ehcalabres, no activation")
    assert "head_activation" in load_checkpoint(folder).notes[0]
    convert_checkpoint(CheckpointFiles("x", folder), tmp_path / "tanh", activation="tanh")
    _, reference = written("ehcalabres, tanh")  # the same weights, the other activation
    (clip,) = random_clips((9_000,))
    with torch.inference_mode():
        ours = load_checkpoint(tmp_path / "tanh").model(torch.from_numpy(clip)[None]).logits[0]
        torch.testing.assert_close(ours, reference(clip), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="states its activation"):
        convert_checkpoint(
            CheckpointFiles("x", written("CTC head")[0]), tmp_path / "no", activation="tanh"
        )


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
def test_pickled_weights_of_transformers_are_read(shards, written, tmp_path):
    folder, _ = written("Hubert, raw input")
    shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = [names[::2], names[1::2]] if shards else [names]
    files = [f"pytorch_model-{i + 1:05}-of-00002.bin" for i in range(2)]
    files = files if shards else ["pytorch_model.bin"]
    for file, part in zip(files, parts, strict=True):
        torch.save({name: tensors[name] for name in part}, tmp_path / "model" / file)
    if shards:
        index = {"weight_map": {n: f for f, p in zip(files, parts, strict=True) for n in p}}
        (tmp_path / "model" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    expected = load_checkpoint(folder).model.state_dict()
    for name, tensor in load_checkpoint(tmp_path / "model").model.state_dict().items():
        assert torch.equal(expected[name], tensor), name


def test_conformers_answer_alike_from_several_threads(written):
    """transformers keeps the last positions in the module, so one thread at a time computes."""
    model = load_checkpoint(written("Wav2Vec2Conformer, rotary")[0]).model
    clips = [torch.from_numpy(clip)[None] for clip in random_clips((8_000, 9_000, 10_000, 11_000))]

    def answer(clip):
        with torch.inference_mode():
            return model(clip).logits

    expected = [answer(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        for told, logits in zip(pool.map(answer, clips * 5), expected * 5, strict=True):
            assert torch.equal(told, logits)


@pytest.mark.parametrize(
    "config",
    [
        Wav2Vec2Config(),
        HubertConfig(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            **LAYER_NORM,
        ),
        WavLMConfig(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
        ),
        WavLMConfig(),
    ],
    ids=["wav2vec2-base", "hubert-large", "wavlm-large", "wavlm-base"],
)
def test_the_shape_of_a_published_encoder_is_read_off_its_tensors(config):
    with torch.device("meta"):
        encoder = AutoModel.from_config(config)
    shapes = {f"ssl_model.{name}": tuple(t.shape) for name, t in encoder.state_dict().items()}
    inferred = infer_encoder_config(shapes, "ssl_model.")
    stated = config.to_dict()
    kind = inferred.pop("model_type")
    assert kind == ("wavlm" if isinstance(config, WavLMConfig) else "wav2vec2")
    assert inferred == {
        key: list(stated[key]) if isinstance(stated[key], tuple) else stated[key]
        for key in inferred
    }


@pytest.mark.parametrize(
    "config",
    [
        Emotion2VecConfig(),
        Emotion2VecConfig(hidden_size=1024, num_heads=16, mlp_size=4096),
    ],
    ids=["base", "large"],
)
def test_the_shape_of_emotion2vec_is_read_off_its_tensors(config, tmp_path):
    with torch.device("meta"):
        names = Emotion2VecEncoder(config).backbone.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in names.items()}
    shapes |= {"proj.weight": (9, config.hidden_size), "proj.bias": (9,)}
    tokens = "生气/angry 厌恶/disgusted 恐惧/fearful 开心/happy 中立/neutral 其他/other 难过/sad"
    tokens = [*tokens.split(), "吃惊/surprised", "<unk>"]
    (tmp_path / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    older = {f"d2v_model.{name}": torch.zeros(0) for name in shapes}
    torch.save(older, tmp_path / "model.pt")
    with open_tensors(as_files(tmp_path)) as stored:
        assert set(stored.shapes) == set(shapes)
        assert identify(set(stored.shapes), tmp_path) is funasr
    plan = funasr.plan(as_files(tmp_path), shapes)
    with torch.device("meta"):
        encoder = build_encoder(plan.encoder, plan.config, tmp_path)
    assert encoder.config == config
    assert plan.config.labels == (
        "angry",
        "disgust",
        "fear",
        "happy",
        "neutral",
        "other",
        "sad",
        "surprise",
        "unknown",
    )
