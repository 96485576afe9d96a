"""What a checkpoint states reaches neither memory, nor other code, nor an answer unchecked."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import loud_model, random_clips, small_config
from transformers import (
    AutoConfig,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from emoser import EmotionClassifier, EmotionStream
from emoser.checkpoints.backbones import FAMILIES
from emoser.checkpoints.encoder_fields import TRANSFORMERS
from emoser.checkpoints.files import as_files
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.save import save_model
from emoser.cli import main
from emoser.errors import CheckpointError, DeviceError
from emoser.models.config import ModelConfig

RATE = 16_000
CLIP = Path(__file__).parents[2] / "examples" / "audio" / "plain.wav"
CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
LABELS = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def native(folder):
    save_model(loud_model(small_config()), folder)


def own(folder):
    save_model(loud_model(small_config(), pooling="statistics"), folder)


def corpus(folder):
    save_model(loud_model(small_config(), normalization="corpus", input_std=0.1), folder)


def conformer(folder):
    config = Wav2Vec2ConformerConfig(**SMALL, intermediate_size=32, conv_dim=(32,) * 7, **LABELS)
    Wav2Vec2ConformerForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def whisper(folder):
    sizes = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2}
    config = WhisperConfig(**sizes, encoder_ffn_dim=32, decoder_layers=1, **LABELS)
    WhisperForAudioClassification(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


SOURCES = (native, own, corpus, conformer, whisper)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    for write in SOURCES:
        write(place / write.__name__)
    return place


@pytest.fixture
def copy(sources, tmp_path):
    def make(source):
        return Path(shutil.copytree(sources / source.__name__, tmp_path / "model"))

    return make


def change(file, *path, **changes):
    """Other values in a JSON file, in the object that `path` leads to."""

    def damage(folder):
        whole = json.loads((folder / file).read_text())
        inner = whole
        for key in path:
            inner = inner[key]
        inner.update(changes)
        (folder / file).write_text(json.dumps(whole))

    return damage


def config(**changes):
    return change(CONFIG, **changes)


def block(**changes):
    return change(CONFIG, "emoser", **changes)


def content(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def deep(levels):
    return content(CONFIG, b'{"x": ' + b"[" * levels + b"]" * levels + b"}")


NAN = float("nan")
NUMBERS = {
    "epsilon NaN": (native, config(layer_norm_eps=NAN), "layer_norm_eps is nan"),
    "epsilon negative": (native, config(layer_norm_eps=-1.0), "layer_norm_eps is -1.0"),
    "epsilon huge": (native, config(layer_norm_eps=1e300), "layer_norm_eps is 1e"),
    "dropout NaN": (native, config(hidden_dropout=NAN), "hidden_dropout is nan"),
    "temperature small": (native, block(temperature=1e-320), "temperature is 1e-320"),
    "temperature huge": (native, block(temperature=1e300), "temperature is 1e"),
    "temperature a word": (native, block(temperature="1"), "temperature is '1'"),
    "mean NaN": (corpus, block(input_mean=NAN), "input_mean is nan"),
    "deviation small": (corpus, block(input_std=1e-320), "input_std is 1e-320"),
    "seconds small": (native, block(max_seconds=1e-4), "max_seconds is 0.0001"),
    "seconds huge": (native, block(max_seconds=1e12), "max_seconds is 1"),
    "seconds infinite": (native, block(max_seconds=float("inf")), "max_seconds is inf"),
    "rate one": (native, block(sampling_rate=1), "sampling_rate is 1,"),
    "width none": (own, block(head="dense", projection_size=0), "projection_size is 0"),
    "layers of the head": (
        own,
        block(head="mlp", projection_size=8, head_layers=10**7),
        "head_layers is 10000000",
    ),
    "a flag a number": (native, block(output_norm=1), "output_norm is 1"),
    "frames of nothing": (own, block(pooling="frames", frame_seconds=0.0), "frame_seconds is 0"),
    "training a list": (native, block(training=[1]), "training is a list"),
    "labels not names": (native, block(labels=[["a"], ["b"]]), "labels must be names"),
    "strides of zero": (native, config(conv_stride=[0] * 7), "conv_stride is"),
    "strides that multiply": (native, config(conv_stride=[512] * 7), "one frame of"),
    "kernels of a billion": (native, config(conv_kernel=[10**9] * 7), "conv_kernel is"),
    "a thousand convolutions": (native, config(conv_dim=[32] * 1_000), "conv_dim is"),
    "convolutions a word": (native, config(conv_dim="abc"), "conv_dim is 'abc'"),
    "heads of zero": (native, config(num_attention_heads=0), "num_attention_heads is 0"),
    "positions": (conformer, config(max_source_positions=10**9), "max_source_positions is"),
    "positions of Whisper": (whisper, config(max_source_positions=10**9), "takes 2e\\+07"),
    "bands": (whisper, config(num_mel_bins=10**6), "takes 1e\\+06"),
    "an integer of 400 digits": (native, block(sampling_rate=10**400), "sampling_rate is 1000"),
    "in the backbone": (own, change(CONFIG, "backbone_config", hidden_size="x"), "hidden_size is"),
}
DAMAGE = {
    "nested 500 times": (native, deep(500), "nested more than 64 levels deep"),
    "nested 100,000 times": (native, deep(100_000), "nested more than 64 levels deep"),
    "5,000 digits": (native, content(CONFIG, b'{"x": ' + b"9" * 5_000 + b"}"), "not valid JSON"),
    "Latin-1": (native, content(CONFIG, '{"x": "é"}'.encode("latin-1")), "not valid JSON"),
    "a type a list": (conformer, config(model_type=["hubert"]), "model_type is"),
    "a width a list": (whisper, config(classifier_proj_size=[1]), "damaged"),
    "a rate a word": (conformer, change(PREPROCESSOR, sampling_rate="fast"), "rate is 'fast'"),
    "a rate a list": (conformer, change(PREPROCESSOR, sampling_rate=[1]), "rate is"),
    "no end of an archive": (
        native,
        lambda folder: [
            (folder / WEIGHTS).unlink(),
            content("pytorch_model.bin", b"PK\x05\x06" + b"\xff" * 18)(folder),
        ],
        "damaged",
    ),
    "an index of lists": (
        native,
        lambda folder: [
            (folder / WEIGHTS).unlink(),
            content(f"{WEIGHTS}.index.json", b'{"weight_map": {"a": ["x"]}}')(folder),
        ],
        "not a weight index",
    ),
}


@pytest.mark.parametrize("name", [*NUMBERS, *DAMAGE])
def test_a_number_out_of_range_or_a_damaged_file_is_one_sentence(name, copy, capsys):
    source, damage, message = (NUMBERS | DAMAGE)[name]
    folder = copy(source)
    damage(folder)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)
    assert time.process_time() - began < 5.0
    assert main(["predict", str(CLIP), "--model", str(folder), "--json"]) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_published_setting_of_an_encoder_is_in_its_range(family):
    """The defaults of transformers are those of the published encoders."""
    stated = AutoConfig.for_model(family).to_dict()
    for name in set(stated) & set(TRANSFORMERS):
        assert stated[name] is None or TRANSFORMERS[name].allows(stated[name]), name


ASKS = {
    "a kernel of the Hub": {"attn_implementation": "kernels-community/flash-attn2"},
    "another attention": {"_attn_implementation": "flash_attention_2"},
    "code": {"auto_map": {"AutoModel": "someone--code.Model"}},
    "a quantiser": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "tuples": {"return_dict": False, "output_attentions": True, "torchscript": True},
    "experts": {"experts_implementation": "someone/experts", "use_kernels": True},
}


@pytest.mark.parametrize("inner", [False, True], ids=["config", "backbone"])
@pytest.mark.parametrize("asked", ASKS)
def test_what_a_config_asks_for_beside_numbers_is_not_passed_on(asked, inner, copy):
    folder = copy(own if inner else native)
    (clip,) = random_clips((8_000,))
    batch = torch.from_numpy(clip)[None]
    expected = load_checkpoint(folder).model(batch).logits
    path = ("backbone_config",) if inner else ()
    change(CONFIG, *path, **ASKS[asked])(folder)
    model = load_checkpoint(folder).model
    assert torch.equal(model(batch).logits, expected)
    held = model.encoder.config.to_dict()
    assert not set(ASKS[asked]) & {name for name in held if held[name] == ASKS[asked].get(name)}


def test_the_pipeline_that_bench_compares_with_gets_no_more(copy, tmp_path):
    from emoser.bench.worker import load_engine

    folder = copy(native)
    config(**ASKS["a kernel of the Hub"], **ASKS["code"])(folder)
    engine = load_engine({"runtime": "transformers", "model": str(folder), "dtype": "float32"})
    (clip,) = random_clips((8_000,))
    ours = EmotionClassifier.from_pretrained(folder, backend="torch", device="cpu")
    scores = ours.predict(clip, sampling_rate=RATE).scores
    theirs = {row["label"]: row["score"] for row in engine.predict(clip)}
    assert theirs == pytest.approx(scores, abs=1e-5)


DEEP_CARD = "---\na: " + "[" * 20_000 + "]" * 20_000 + "\n---\ntext\n"
BLANK_CARD = "---" + "\n" * 100_000 + "text\n"


@pytest.mark.parametrize("text", [DEEP_CARD, BLANK_CARD], ids=["deep", "blank"])
def test_a_card_of_any_text_is_quoted_in_time(text, copy, capsys):
    folder = copy(native)
    (folder / "README.md").write_text(text)
    began = time.process_time()
    assert main(["card", str(folder), "--json"]) in (0, 4)  # 4: it has faults
    assert time.process_time() - began < 20.0
    assert "library_name: transformers" in json.loads(capsys.readouterr().out)["card"]


def test_a_long_line_in_a_description_is_searched_in_time():
    from emoser.checkpoints.layouts import speechbrain

    class Files:
        folder = Path("model")
        texts = {  # noqa: RUF012
            "hyperparams.yaml": "wav2vec2_hub: " + "a" * 1_000_000 + "!\n" + "output_norm " * 9_999,
            "label_encoder.txt": "'neu' => 0\n" + "'" * 100_000,
        }

        def read_text(self, name):
            return self.texts[name]

    began = time.process_time()
    with pytest.raises(CheckpointError, match="not those of a wav2vec"):
        speechbrain.plan(Files(), {})
    assert time.process_time() - began < 5.0


def spread(folder):
    """Tensors of the right shapes that are one number each."""
    held = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    hollow = {
        name: torch.zeros(1).as_strided(value.shape, [0] * value.ndim)
        for name, value in held.items()
    }
    torch.save(hollow, folder / "pytorch_model.bin")


def repeated(folder):
    """Thousands of names for one tensor."""
    (folder / WEIGHTS).unlink()
    one = torch.zeros(100_000)
    torch.save({f"x{number}": one for number in range(5_000)}, folder / "pytorch_model.bin")


def sparse(folder):
    (folder / WEIGHTS).unlink()
    value = torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (10**6, 10**6))
    torch.save({"classifier.weight": value}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(spread, "its tensors would take"), (repeated, "its tensors would take"), (sparse, "sparse")],
)
def test_tensors_that_take_more_memory_than_their_file_are_refused(damage, message, copy):
    folder = copy(native)
    damage(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_tensors_that_share_memory_as_tied_weights_do_are_read(copy):
    folder = copy(native)
    held = load_file(folder / WEIGHTS)
    expected = load_checkpoint(folder).model.state_dict()
    (folder / WEIGHTS).unlink()
    norms = [name for name in held if name.endswith("layer_norm.bias")]
    assert all(not held[name].any() for name in norms)
    same = {name: held[norms[0]] if held[name].shape == held[norms[0]].shape else held[name]
            for name in norms}  # fmt: skip
    torch.save({**held, **same}, folder / "pytorch_model.bin")
    for name, value in load_checkpoint(folder).model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def too_large(folder):
    """Weights that are finite, and whose products are not."""
    held = load_file(folder / WEIGHTS)
    held["projector.weight"].fill_(3e38)
    held["classifier.weight"].fill_(3e38)
    change(CONFIG, "emoser", head="projector", projection_size=len(held["projector.weight"]))(
        folder
    )
    save_file(held, folder / WEIGHTS)


@pytest.mark.parametrize("how", ["predict", "batch", "timeline", "stream", "embed"])
def test_no_answer_is_made_of_nan(how, copy):
    folder = copy(native)
    too_large(folder)
    classifier = EmotionClassifier.from_pretrained(folder, backend="torch", device="cpu")
    (clip,) = random_clips((4 * RATE,))
    ways = {
        "predict": lambda: classifier.predict(clip, sampling_rate=RATE),
        "batch": lambda: classifier.predict_batch([clip, clip], sampling_rate=RATE),
        "timeline": lambda: classifier.timeline(clip, sampling_rate=RATE, vad=None),
        "stream": lambda: EmotionStream(classifier, sampling_rate=RATE, vad=None).push(clip),
        "embed": lambda: classifier.embed([clip], sampling_rate=RATE),
    }
    with pytest.raises(CheckpointError, match="gives NaN or infinity for"):
        ways[how]()


def test_in_a_batch_that_keeps_errors_nan_is_the_error_of_its_recording(copy):
    folder = copy(native)
    too_large(folder)
    classifier = EmotionClassifier.from_pretrained(folder, backend="torch", device="cpu")
    (clip,) = random_clips((RATE,))
    answers = classifier.predict_batch([clip, clip], sampling_rate=RATE, on_error="return")
    assert [type(answer) for answer in answers] == [CheckpointError] * 2


def test_a_config_that_numpy_wrote_is_allowed():
    made = ModelConfig(labels=("a", "b"), temperature=np.float32(0.5), head_layers=np.int64(2))
    assert made.temperature == 0.5


def test_a_file_whose_name_is_no_text_does_not_stop_the_hash(copy):
    folder = copy(native)
    before = as_files(folder).content_hash
    try:
        with open(os.fsencode(folder) + b"/\xff.json", "w"):
            pass
    except OSError:
        pytest.skip("this file system has no such names")
    assert as_files(folder).content_hash != before


SHORT_OF_MEMORY = """
import resource, sys, torch
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.errors import DeviceError
from pathlib import Path
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**26,) * 2)
try:
    load_checkpoint(Path(sys.argv[1]))
except DeviceError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_model_that_does_not_fit_is_an_error_of_the_machine(copy, tmp_path):
    folder = copy(native)
    held = load_file(folder / WEIGHTS)
    held["projector.weight"] = torch.eye(8_000)
    held["projector.bias"] = torch.zeros(8_000)
    (folder / WEIGHTS).unlink()
    torch.save(held, folder / "pytorch_model.bin")
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, folder], capture_output=True, text=True
    )
    assert "does not fit into the memory of this machine" in done.stdout, done.stderr[-500:]
    assert DeviceError.exit_code == 5


def link_to_nowhere(file):
    file.symlink_to("gone")


def link_to_itself(file):
    file.symlink_to(file.name)


def link_to_a_device(file):
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("put", "kind"),
    [(link_to_nowhere, "a link that leads to no file"), (link_to_itself, "a broken link"),
     (link_to_a_device, "a link that leads to no file"), (os.mkfifo, "a pipe, socket or device")],
)  # fmt: skip
@pytest.mark.parametrize("name", [CONFIG, PREPROCESSOR, WEIGHTS, "trained_on.json", "README.md"])
def test_what_has_the_name_of_a_file_and_is_none_is_refused(put, kind, name, sources, tmp_path):
    folder = Path(shutil.copytree(sources / "native", tmp_path / "model"))
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is {kind}, not a file; download it again"):
        EmotionClassifier.from_pretrained(folder)


def test_links_beside_a_checkpoint_that_it_does_not_read_do_not_matter(sources, tmp_path):
    folder = Path(shutil.copytree(sources / "native", tmp_path / "model"))
    link_to_nowhere(folder / "notes")
    link_to_itself(folder / "data.parquet")
    assert EmotionClassifier.from_pretrained(folder, backend="torch").labels
    above = tmp_path / "above"
    (above / "best").mkdir(parents=True)
    link_to_nowhere(above / "notes.json")
    shutil.copytree(folder, above / "best", dirs_exist_ok=True, symlinks=True)
    assert EmotionClassifier.from_pretrained(above, backend="torch").labels
