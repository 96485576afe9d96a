"""Downloads from the Hub are pinned and complete, or fail within seconds with one sentence."""

import json
import time
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from support.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, error
from support.models import random_clips
from support.reference_checkpoints import CASES

from emoser import EmotionClassifier
from emoser.checkpoints.catalog import CATALOG, find_entry
from emoser.checkpoints.resolve import find_checkpoint
from emoser.errors import CheckpointError, HubError

NAME = "someone/hubert-emotion"
SECONDS = 8.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    CASES["Hubert, raw input"](folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card\n")
    return {item.name: item.read_bytes() for item in folder.iterdir()}


@pytest.fixture
def hub(files, monkeypatch, tmp_path):
    """A Hub with one checkpoint, and a cache of its own."""
    fake = FakeHub()
    fake.repositories[NAME] = {**files, "malware.py": b"raise SystemExit", "flax.msgpack": b"x"}
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        fake.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", fake.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    fake.close()


def find(tmp_path, name=NAME, **options):
    return find_checkpoint(name, cache_dir=tmp_path / "cache", **options)


def test_a_checkpoint_comes_with_its_commit_and_without_code(hub, tmp_path):
    classifier = EmotionClassifier.from_pretrained(
        NAME, cache_dir=tmp_path / "cache", backend="torch"
    )
    (clip,) = random_clips((8_000,))
    assert classifier.predict(clip, sampling_rate=16_000).label in classifier.labels
    assert classifier.info.revision == COMMIT
    assert classifier.info.licence == "apache-2.0"
    asked = {path.rsplit("/", 1)[-1] for _, path in hub.requests if "/resolve/" in path}
    assert asked == {"config.json", "preprocessor_config.json", "README.md", "model.safetensors"}
    assert all(COMMIT in path for _, path in hub.requests if "/resolve/" in path)


def test_the_address_of_a_page_is_a_name(hub, tmp_path):
    for address in (f"https://huggingface.co/{NAME}", f"hf.co/{NAME}/tree/{COMMIT}", f"{NAME}@v1"):
        assert find(tmp_path, address).folder == find(tmp_path).folder


def test_an_adapter_of_peft_is_refused(hub, tmp_path):
    hub.repositories[NAME]["adapter_config.json"] = b"{}"
    with pytest.raises(HubError, match="holds an adapter of PEFT") as caught:
        find(tmp_path)
    assert caught.value.reason == "no-weights"


def test_a_path_that_looks_like_an_id_is_not_hidden(hub, tmp_path):
    with pytest.raises(HubError, match="there is no folder runs/first here either"):
        find(tmp_path, "runs/first")


@pytest.mark.parametrize("way", ["local_files_only", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_offline_takes_the_cache_without_a_request(way, revision, hub, tmp_path, monkeypatch):
    online = find(tmp_path, revision=revision)
    hub.requests.clear()
    if way == "HF_HUB_OFFLINE":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    offline = find(tmp_path, revision=revision, local_files_only=way == "local_files_only")
    assert offline == online
    assert hub.requests == []


def test_offline_without_a_cache_says_so_without_a_request(hub, tmp_path):
    with pytest.raises(HubError, match="not in the cache") as caught:
        find(tmp_path, local_files_only=True)
    assert caught.value.reason == "not-cached"
    assert hub.requests == []


def test_a_moved_branch_gives_the_new_commit_whole(hub, tmp_path):
    first = find(tmp_path)
    hub.commits[NAME] = OTHER_COMMIT
    second = find(tmp_path)
    assert (first.revision, second.revision) == (COMMIT, OTHER_COMMIT)
    assert find(tmp_path, local_files_only=True).revision == OTHER_COMMIT
    assert find(tmp_path, revision=COMMIT, local_files_only=True).revision == COMMIT


def test_a_cached_commit_costs_one_request(hub, tmp_path):
    first = find(tmp_path)
    hub.requests.clear()
    assert find(tmp_path) == first
    assert [path for _, path in hub.requests] == [f"/api/models/{NAME}"]


def test_a_failed_update_leaves_the_old_commit_for_offline_use(hub, tmp_path):
    find(tmp_path)
    hub.commits[NAME] = OTHER_COMMIT
    hub.fault = at("/resolve/", error(503))
    assert find(tmp_path).revision == COMMIT
    broken = {"ETag": f'"{"0" * 64}"', "X-Repo-Commit": OTHER_COMMIT}
    hub.fault = at("model.safetensors", (200, broken, b"not these weights"))
    with pytest.raises(HubError, match="does not match the hash"):
        find(tmp_path)
    assert find(tmp_path, local_files_only=True).revision == COMMIT


def at(part, answer):
    """A fault of the requests whose path contains `part`."""
    return lambda method, path: answer if part in path else None


FOR_ALL = ""
FAULTS = {
    "401": (at(FOR_ALL, error(401)), "gated", "token|private"),
    "401 on a file": (at("/resolve/", error(401)), "gated", "token|private"),
    "403": (at(FOR_ALL, error(403)), "gated", "may not be read"),
    "gated": (at("/resolve/", error(403, "GatedRepo")), "gated", "is gated; ask for access"),
    "no repository": (at(FOR_ALL, error(404, "RepoNotFound")), "not-found", "does not exist"),
    "no revision": (
        at(FOR_ALL, error(404, "RevisionNotFound")),
        "no-revision",
        "has no revision",
    ),
    "no file": (at("/resolve/", error(404, "EntryNotFound")), "no-file", "file missing"),
    "bare 404": (at(FOR_ALL, error(404)), "not-found", "404|does not exist"),
    "429": (at(FOR_ALL, error(429)), "rate-limited", "too many requests"),
    "429 with a minute to wait": (
        at(FOR_ALL, error(429, **{"Retry-After": "60"})),
        "rate-limited",
        "too many requests",
    ),
    "429 on a file": (at("/resolve/", error(429)), "rate-limited", "too many requests"),
    "500": (at(FOR_ALL, error(500)), "server", "answers 500; try again later"),
    "503 on a file": (at("/resolve/", error(503)), "server", "answers 503"),
    "captive portal": (
        at(FOR_ALL, (200, {"Content-Type": "text/html"}, b"<html>pay here</html>")),
        "broken-file",
        "the response is not from the Hub",
    ),
    "redirect loop": (
        lambda method, path: (307, {"Location": path}, b""),
        "server",
        "redirects in a loop",
    ),
    "wrong hash": (
        lambda method, path: (
            (200, {"ETag": f'"{"0" * 64}"', "X-Repo-Commit": COMMIT}, b"not these weights")
            if path.endswith("model.safetensors")
            else None
        ),
        "broken-file",
        "does not match the hash that the Hub states",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_the_hub_is_one_sentence_within_seconds(name, hub, tmp_path):
    fault, reason, sentence = FAULTS[name]
    hub.fault = fault
    start = time.perf_counter()
    with pytest.raises(HubError, match=sentence) as caught:
        find(tmp_path)
    seconds = time.perf_counter() - start
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert seconds < SECONDS
    print(f"{name}: {seconds:.1f} s, {caught.value}")
    hub.fault = lambda method, path: None
    assert find(tmp_path).revision == COMMIT, "the cache must not keep what was broken"


def test_a_body_cut_off_is_refused_and_not_kept(hub, tmp_path, files):
    content = files["model.safetensors"]

    def cut(method, path):
        if method == "GET" and path.endswith("model.safetensors"):
            _, headers, _ = hub.serve(NAME, content, large=True)
            headers |= {"Content-Length": str(len(content)), "Connection": "close"}
            return 200, headers, content[: len(content) // 2]
        return None

    hub.fault = cut
    start = time.perf_counter()
    with pytest.raises(HubError, match="could not be downloaded"):
        find(tmp_path)
    assert time.perf_counter() - start < 4 * SECONDS
    hub.fault = lambda method, path: None
    folder = find(tmp_path).folder
    assert (folder / "model.safetensors").read_bytes() == content


def test_no_network_is_one_sentence_and_the_cache_serves(hub, tmp_path):
    hub.close()
    with pytest.raises(HubError, match="no connection to the Hub") as caught:
        find(tmp_path)
    assert caught.value.reason == "network"


@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_is_down_is_replaced_by_the_cache(status, hub, tmp_path):
    before = find(tmp_path)
    hub.fault = lambda method, path: error(status)
    assert find(tmp_path) == before


def test_safetensors_come_alone_and_pickles_only_without_them(hub, tmp_path):
    hub.repositories[NAME]["pytorch_model.bin"] = b"never asked for"
    folder = find(tmp_path).folder
    assert not (folder / "pytorch_model.bin").exists()
    hub.repositories["someone/nothing"] = {"config.json": b"{}", "flax_model.msgpack": b"x"}
    with pytest.raises(HubError, match="no weights that emoser reads"):
        find(tmp_path, "someone/nothing")


def test_names_of_the_catalog_and_of_the_paper(hub, tmp_path, files):
    entry = find_entry("superb-hubert-large")
    hub.repositories[entry.id] = dict(files)
    assert find(tmp_path, "superb-hubert-large").revision == COMMIT
    with pytest.raises(CheckpointError, match="fine-tunes facebook/hubert-large-ll60k"):
        find(tmp_path, "PF-hbt-large")
    assert len({item.name for item in CATALOG}) == len({item.id for item in CATALOG})


def test_push_uploads_the_folder_and_its_card(hub, tmp_path):
    classifier = EmotionClassifier.from_pretrained(
        NAME, cache_dir=tmp_path / "cache", backend="torch"
    )
    address = classifier.push_to_hub("someone/mine", token="secret")
    assert address.endswith(COMMIT)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= set(
        hub.uploaded
    )
    card = hub.uploaded["README.md"].decode()
    facts = yaml.safe_load(card.split("---")[1])
    assert facts["license"] == "apache-2.0"
    assert facts["pipeline_tag"] == "audio-classification"
    assert "emoser" in facts["tags"]
    assert json.loads(hub.uploaded["golden.json"])["max_difference"] <= 1e-5


@pytest.mark.parametrize("status", [401, 403, 409])
def test_an_upload_that_the_hub_refuses_is_one_sentence(status, hub, tmp_path):
    classifier = EmotionClassifier.from_pretrained(
        NAME, cache_dir=tmp_path / "cache", backend="torch"
    )
    hub.fault = lambda method, path: error(status) if method == "POST" else None
    with pytest.raises(HubError, match=r"token|could not be uploaded"):
        classifier.push_to_hub("someone/mine", token="wrong")


def test_a_new_card_states_labels_figures_with_protocol_and_misuse(hub, tmp_path):
    from dataclasses import replace

    from emoser.checkpoints.card import build_card
    from emoser.checkpoints.conversion import describe_checkpoint
    from emoser.checkpoints.files import CheckpointFiles

    classifier = EmotionClassifier.from_pretrained(
        NAME, cache_dir=tmp_path / "cache", backend="torch"
    )
    training = {
        "evaluations": [
            {
                "dataset": "iemocap",
                "protocol": "leave one session out",
                "uar": 0.7,
                "accuracy": 0.6,
            },
            {"dataset": "secret", "uar": 0.99},
        ]
    }
    info = classifier.info
    facts = describe_checkpoint(CheckpointFiles(info.name, Path(info.path), info.revision))
    training["converted_from"] = {"name": info.name, "revision": info.revision, "layout": "x"}
    config = replace(facts.config, training=training)
    card = build_card(replace(facts, name="someone/mine", config=config))
    again = ModelCard(str(card))
    assert [result.metric_value for result in again.data.eval_results] == [0.7, 0.6]
    assert "leave one session out" in again.content
    assert "0.99" not in again.content
    for part in ("happy (in the checkpoint: `HAP`)", "Mono at 16000 Hz", "AI Act", COMMIT):
        assert part in again.text
