"""What the demo shows, stores and refuses, without a browser; see also `test_browser`."""

import base64
import html
import json
import re
import runpy
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import SpaceCard
from support.models import loud_model, small_config

from emoser import EmotionClassifier, EmotionStream
from emoser.audio.quality import FLAGS
from emoser.checkpoints.save import save_model
from emoser.cli import main
from emoser.demo import DemoOptions, build_app, serve
from emoser.demo.live_sessions import HOP_SECONDS, IDLE_SECONDS
from emoser.demo.rendering import QUALITY
from emoser.demo.sessions import Sessions
from emoser.demo.uploads import Uploads
from emoser.errors import AudioError, DependencyError, DeviceError

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "audio"
SPACE = ROOT / "examples" / "space"
RATE = 16_000


def ignore(share):
    """Ignores progress."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(loud_model(small_config()), tmp_path_factory.mktemp("demo") / "model"))


@pytest.fixture(scope="module")
def classifier(model):
    return EmotionClassifier.from_pretrained(model)


@pytest.fixture
def sessions(model):
    return Sessions(DemoOptions(models=(model,)))


@pytest.fixture
def clip(tmp_path):
    return Path(shutil.copy(CLIPS / "loud.flac", tmp_path))


def downloads(page):
    """The content of the download links of a page, by file name."""
    found = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page)
    return {html.unescape(name): base64.b64decode(data).decode() for name, data in found}


def test_every_quality_flag_is_explained():
    assert set(QUALITY) == set(FLAGS)


def test_a_model_of_another_rate_is_heard_at_it(clip, tmp_path):
    save_model(loud_model(small_config(), sampling_rate=8_000), tmp_path / "model")
    name, options = str(tmp_path / "model"), {"backend": "torch", "device": "cpu"}
    classifier = EmotionClassifier.from_pretrained(name, **options)
    sessions = Sessions(DemoOptions(models=(name,), **options))
    prediction, timeline = classifier.predict(clip), classifier.timeline(clip)
    files = downloads(sessions.analyse("visitor", clip, name, ignore))
    shown = json.loads(files["loud.json"])
    assert shown["prediction"] == {**prediction.to_dict(), "source": "loud.flac"}
    assert shown["timeline"] == {**timeline.to_dict(), "source": "loud.flac"}
    values, rate = soundfile.read(CLIPS / "plain.wav", dtype="int16")
    stream = EmotionStream(classifier, sampling_rate=rate, hop_seconds=HOP_SECONDS)
    expected = [html.escape(str(segment)) for segment in stream.iterate([values])]
    for part in np.array_split(values, 5):
        sessions.push_live(message(part, model=name, samplingRate=rate))
    page = sessions.push_live(message([], model=name, samplingRate=rate, last=True))
    assert expected
    assert all(segment in page for segment in expected)


def test_page_and_downloads_hold_the_results_of_the_classifier(sessions, model, classifier, clip):
    page = sessions.analyse("visitor", clip, model, ignore)
    prediction, timeline = classifier.predict(clip), classifier.timeline(clip)
    files = downloads(page)
    shown = json.loads(files["loud.json"])
    assert shown["prediction"] == {**prediction.to_dict(), "source": "loud.flac"}
    assert shown["timeline"] == {**timeline.to_dict(), "source": "loud.flac"}
    assert files["loud.srt"] == timeline.to_srt()
    assert f"<b>{prediction.label}</b> {prediction.score:.2f}" in page
    assert page.count("<svg") == 3  # the scores, and the timeline for wide and narrow pages


def test_quality_flags_are_explained_on_the_page(sessions, model, tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(RATE // 4), RATE)
    page = sessions.analyse("visitor", path, model, ignore)
    assert QUALITY["silence"] in page
    assert headlines(page) == ["No speech"]
    assert QUALITY["short"] in page
    assert list(downloads(page)) == ["silent.json"]  # silence has no subtitles


def headlines(page):
    """The headlines of a page, as text."""
    found = re.findall(r'<p class="emoser-label"[^>]*>(.*?)</p>', page)
    return [re.sub("<[^>]+>", "", html.unescape(line)) for line in found]


def stereo_call(path, seconds):
    """A recording in which nobody speaks on the second channel, and a pause on the first."""
    voice, rate = soundfile.read(CLIPS / "plain.wav", always_2d=True)
    samples = np.zeros((seconds * rate, 2))
    spoken = np.resize(voice[:, 0], seconds * rate // 2)
    samples[: len(spoken), 0] = spoken
    soundfile.write(path, samples, rate)
    return path


def test_a_long_recording_is_headlined_by_its_timeline(sessions, model, classifier, tmp_path):
    path = stereo_call(tmp_path / "call.wav", 40)
    page = sessions.analyse("visitor", path, model, ignore)
    shares = dict(classifier.timeline(path).shares())
    silence = shares.pop("silence")
    label, share = max(shares.items(), key=lambda item: item[1])
    assert 0.3 < silence < 0.6
    assert headlines(page) == [f"{label} in {100 * share / (1 - silence):.0f} % of the speech"]
    assert f"{100 * silence:.0f} % of the recording is silence" in page


def test_channels_of_a_call_are_shown_separately_on_request(sessions, model, classifier, tmp_path):
    path = stereo_call(tmp_path / "call.wav", 8)
    assert len(headlines(sessions.analyse("visitor", path, model, ignore))) == 1
    page = sessions.analyse_again("visitor", model, ignore, separate=True)
    first, second = headlines(page)
    assert re.fullmatch(r"Channel 0 \(left\): [a-z]+ in \d+ % of the speech", first)
    assert second == "Channel 1 (right): No speech"
    expected = classifier.timeline(path, channel="each")
    shown = json.loads(downloads(page)["call.json"])["timeline"]
    assert shown == {**expected.to_dict(), "source": "call.wav"}
    assert page.count(">channel 1 (right)</text>") == 2  # in the wide and in the narrow picture


def test_the_channel_of_a_mono_recording_is_the_recording(sessions, model, tmp_path):
    voice, rate = soundfile.read(CLIPS / "plain.wav", always_2d=True)
    path = tmp_path / "mono.wav"
    soundfile.write(path, voice[:, 0], rate)
    mixed = headlines(sessions.analyse("visitor", path, model, ignore))
    assert headlines(sessions.analyse_again("visitor", model, ignore, separate=True)) == mixed


def test_an_invalid_file_gives_the_message_of_emoser_without_its_folder(sessions, model, tmp_path):
    path = tmp_path / "bad.wav"
    path.write_text("this is no sound")
    with open(path, "rb") as file, pytest.raises(AudioError) as refused:
        EmotionClassifier.from_pretrained(model).predict(file)
    page = html.unescape(sessions.analyse("visitor", path, model, ignore))
    assert str(refused.value).removeprefix(str(tmp_path) + "/") in page
    assert 'role="alert"' in page
    assert str(tmp_path) not in page


def test_names_of_files_are_neither_html_nor_templates(sessions, model, clip):
    hostile = "${alert(1)}{{x}}`<img src=x onerror=alert(1)>'\".flac"
    path = clip.rename(clip.with_name(hostile))
    page = sessions.analyse("visitor", path, model, ignore)
    assert not set("${}`") & set(page)
    assert "<img" not in page
    assert hostile in html.unescape(page)
    assert "".join(Path(hostile).stem) + ".json" in downloads(page)


def test_progress_increases_to_the_end_in_steps(sessions, model, tmp_path):
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(0).normal(0, 0.05, 95 * RATE)
    soundfile.write(path, noise, RATE)
    shares = []
    sessions.analyse("visitor", path, model, shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.99 < shares[-1] <= 1
    assert len(shares) > 5


def test_one_file_is_kept_per_session_until_it_is_replaced_or_dropped(tmp_path):
    uploads = Uploads()
    paths = [tmp_path / name for name in ("first", "second")]
    for path in paths:
        path.write_text("sound")
        uploads.hold("visitor", path)
    assert [path.exists() for path in paths] == [False, True]
    uploads.hold("twin", paths[1])  # the same content has the same path
    uploads.drop("visitor")
    assert paths[1].exists()
    uploads.drop("twin")
    assert not paths[1].exists()


def test_the_analysis_is_cancelled_when_the_visitor_leaves(sessions, model, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, 95 * RATE), RATE)
    shares = []

    def leave_early(share):
        shares.append(share)
        if share > 0.3:
            sessions.forget("visitor")

    assert sessions.analyse("visitor", path, model, leave_early) == ""
    assert 0.3 < shares[-1] < 0.7
    assert not path.exists()


def test_closing_deletes_all_uploads(sessions, model, clip):
    sessions.analyse("visitor", clip, model, ignore)
    sessions.close()
    assert not clip.exists()
    assert sessions.analyse_again("visitor", model, ignore) == ""


def test_visitors_choose_among_the_models_of_the_options_only(model, clip):
    sessions = Sessions(DemoOptions(models=("emoser-tiny",)))
    assert sessions.models.names == ("emoser-tiny",)
    page = sessions.analyse("visitor", clip, model, ignore)
    assert "is not available here; choose one of emoser-tiny" in page
    free = Sessions(DemoOptions(any_model=True))
    assert "superb-hubert-base" in free.models.names
    assert free.models.open(model).labels == EmotionClassifier.from_pretrained(model).labels
    assert "nor a Hub id" in html.unescape(free.analyse("visitor", clip, "no such model", ignore))
    for wrong in (["emoser-tiny"], None, {"a": 1}):
        assert "the model has no name" in free.analyse_again("visitor", wrong, ignore)


def message(samples, **changes):
    sound = base64.b64encode(np.asarray(samples, "<i2").tobytes()).decode()
    whole = {"session": "a", "model": "emoser-tiny", "samplingRate": RATE, "lost": 0, "last": False}
    return {**whole, "samples": sound, **changes}


def test_a_live_session_has_the_segments_of_a_stream(sessions, model, classifier):
    values, _ = soundfile.read(CLIPS / "plain.wav", dtype="int16", always_2d=True)
    samples = np.concatenate([values[:, 0], np.zeros(RATE, np.int16), values[:, 0]])
    stream = EmotionStream(classifier, sampling_rate=RATE, hop_seconds=HOP_SECONDS)
    expected = [html.escape(str(segment)) for segment in stream.iterate([samples])]
    generator = np.random.default_rng(1)
    edges = np.sort(generator.integers(0, len(samples), 12))
    for part in np.split(samples, edges):
        sessions.push_live(message(part, model=model))
    page = sessions.push_live(message([], model=model, last=True))
    assert re.findall("<li>(.*?)</li>", page) == expected[::-1]
    assert len(sessions.live) == 0


def test_lost_audio_becomes_silence_so_that_times_are_right(sessions, model):
    page = sessions.push_live(message(np.zeros(RATE), model=model, lost=2 * RATE))
    assert "0:03.00 analysed" in page


def test_an_idle_live_session_is_dropped(sessions, model, monkeypatch):
    sessions.push_live(message(np.zeros(RATE), model=model))
    monkeypatch.setattr("time.monotonic", lambda now=1e9: now + IDLE_SECONDS)
    sessions.push_live(message(np.zeros(RATE), model=model, session="b"))
    assert len(sessions.live) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": "?"}, "the page sent an invalid message"),
        (
            {"samplingRate": 1},
            "the sampling rate of the microphone is 1 Hz; it must be between 8000",
        ),
        ({"session": ""}, "the session or the model has no name"),
        ({"lost": -1}, "reload the page"),
        ({"model": "other"}, "is not available here"),
        ({"samplingRate": None}, "the page sent an invalid message"),
        ({"samples": "AA=="}, "the page sent an invalid message"),
        ({"samples": 1}, "a name or the samples are no text"),
        ({"samples": "AQA=" * 2_000_000}, "it is too long"),
        ({"model": ["emoser-tiny"]}, "a name or the samples are no text"),
        ({"session": "a" * 1000}, "it is too long"),
        ({"samplingRate": float("inf")}, "the page sent an invalid message"),
        ({"lost": float("inf")}, "the page sent an invalid message"),
    ],
)
def test_an_invalid_message_gives_an_error_message(sessions, model, changes, sentence):
    page = sessions.push_live({**message([1, 2], model=model), **changes})
    assert sentence in html.unescape(page)
    assert 'role="alert"' in page
    assert len(sessions.live) == 0


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"models": ()}, "name at least one"),
        ({"port": 0}, "port is 0"),
        ({"max_megabytes": 0}, "max_megabytes is 0"),
    ],
)
def test_invalid_options_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        DemoOptions(**wrong)


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(DependencyError, match=r'pip install "emoser\[demo\]"'):
        build_app(DemoOptions())
    assert main(["demo"]) == 5
    assert 'pip install "emoser[demo]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "any_model"),
    [
        ([], True),
        (["--host", "0.0.0.0"], False),
        (["--host", "0.0.0.0", "--any-model"], True),
        (["--no-any-model"], False),
    ],
    ids=["alone", "to all", "to all, asked for", "refused"],
)
def test_only_visitors_on_this_machine_may_enter_folders(monkeypatch, words, any_model):
    seen = []
    monkeypatch.setattr("emoser.demo.serve", lambda options, announce: seen.append(options))
    assert main(["demo", "--model", "a", "--model", "b", *words]) == 0
    assert seen[0].models == ("a", "b")
    assert seen[0].any_model is any_model


def test_a_port_in_use_gives_a_message():
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} of 127.0.0.1 cannot be opened"):
            serve(DemoOptions(port=port))


def components(options):
    """The components of a page, without the numbers that Gradio assigns."""
    config = build_app(options).get_config_file()
    kept = ("label", "value", "choices", "html_template", "js_on_load", "sources", "info")
    return [
        (item["type"], {key: item["props"][key] for key in kept if key in item["props"]})
        for item in config["components"]
    ]


def test_the_space_is_the_same_page_and_its_card_is_complete():
    gradio = pytest.importorskip("gradio")
    options = runpy.run_path(str(SPACE / "app.py"))["OPTIONS"]
    assert not options.any_model
    ours = DemoOptions(models=options.models, host=options.host)
    assert components(options) == components(ours)
    card = SpaceCard.load(SPACE / "README.md").data
    assert (card.sdk, card.app_file, card.license) == ("gradio", "app.py", "apache-2.0")
    assert card.sdk_version <= gradio.__version__
    assert set(card.models) < set(options.models)
    needed = (SPACE / "requirements.txt").read_text(encoding="utf-8").split()
    assert needed == ["emoser[demo,media]"]


def test_there_are_no_analytics_and_no_public_api():
    pytest.importorskip("gradio")
    app = build_app(DemoOptions())
    assert app.analytics_enabled is False
    assert {item["api_visibility"] for item in app.get_config_file()["dependencies"]} == {"private"}
