"""Tables, recordings, settings, batches, augmentation and acoustic statistics."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from support.models import random_clips

from emoser.audio import AudioBlocks, load_audio
from emoser.errors import AudioError, DependencyError
from emoser.finetune import FinetuneConfig, Utterance, read_corpus
from emoser.finetune.config import Augmentation
from emoser.finetune.data import augment as augmentation
from emoser.finetune.data.acoustics import describe_clip, standardize_statistics
from emoser.finetune.data.batches import plan_epoch
from emoser.finetune.data.inputs import Waveforms, vary_clip
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.inference import pieces

RATE = 16_000
FRAME = RATE // 50  # whose peak is measured
EVERYTHING = Augmentation(
    speed_probability=1.0,
    noise_probability=1.0,
    tilt_probability=1.0,
    telephone_probability=1.0,
    reverb_probability=1.0,
)


@pytest.fixture
def table(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), RATE)

    def write(text, name="calls.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_table_gives_utterances_with_canonical_labels(table, tmp_path):
    file = table("path,emotion,speaker,start,end\na.wav,ANGER,anna,,\nb.wav,neu,,0.01,0.04\n")
    assert read_corpus(file) == [
        Utterance(str(tmp_path / "a.wav"), "angry", speaker="anna"),
        Utterance(str(tmp_path / "b.wav"), "neutral", start=0.01, end=0.04),
    ]


def test_json_lines_are_read_like_csv(table):
    rows = [{"path": "a.wav", "label": "sad", "speaker": 7}, {"path": "b.wav", "label": "happy"}]
    lines = table("\n".join(map(json.dumps, rows)), "calls.jsonl")
    assert read_corpus(lines) == read_corpus(
        table("path,label,speaker\na.wav,sad,7\nb.wav,happy,\n")
    )


def test_rows_without_a_label_are_left_out(table):
    assert len(read_corpus(table("path,label\na.wav,\nb.wav,sad\n"))) == 1


def test_all_missing_recordings_are_in_one_message(table):
    file = table("path,label\na.wav,sad\nx.wav,sad\ny.wav,sad\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 .*x\.wav.*y\.wav"):
        read_corpus(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("place,label\na.wav,sad\n", r"needs path \(or file_name\) and label"),
        ("path,label,end\na.wav,sad,soon\n,sad,\n", r"row 2: end is 'soon'.*row 3: no path"),
        ("path,label,start,end\na.wav,sad,2,1\n", r"row 2: .*from 2\.0 to 1\.0"),
        ("path,label\na.wav,\n", "no row with a label"),
    ],
    ids=["columns", "rows", "piece", "empty"],
)
def test_broken_tables_are_refused(table, text, message):
    with pytest.raises(ValueError, match=message):
        read_corpus(table(text))


def test_a_json_line_that_is_not_an_object_is_refused(table):
    with pytest.raises(ValueError, match=r"line 2: no JSON object"):
        read_corpus(table('{"path": "a.wav", "label": "sad"}\n[1]\n', "calls.jsonl"))


def test_a_piece_holds_exactly_its_samples(tmp_path):
    samples = random_clips([RATE])[0]
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    piece = Utterance(str(tmp_path / "a.wav"), "sad", start=0.25, end=0.5)
    decoded = Recordings([piece])[0]
    assert np.array_equal(decoded, samples[4000:8000])


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files that are opened for decoding."""
    paths = []
    monkeypatch.setattr(
        pieces, "AudioBlocks", lambda path, **more: paths.append(path) or AudioBlocks(path, **more)
    )
    return paths


def test_select_reuses_decoded_clips_and_new_recordings_do_not(tmp_path, opened):
    calls = []
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", random_clips([RATE])[0], RATE)
        calls.append(Utterance(str(tmp_path / f"{name}.wav"), "sad"))
    held = Recordings(calls)
    again = held.select(calls[:1])
    assert len(opened) == 2
    assert np.array_equal(again[0], held[0])
    assert np.array_equal(again.describe()[0], describe_clip(held[0]))
    soundfile.write(tmp_path / "a.wav", random_clips([RATE // 2])[0], RATE)
    assert Recordings(calls[:1]).num_samples == [RATE // 2]
    Recordings(calls[1:])
    assert len(opened) == 4


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_16", "PCM_U8"])
def test_samples_equal_those_of_load_audio(tmp_path, subtype):
    loud = 3.0 * random_clips([RATE])[0] + (2.0 if subtype == "FLOAT" else 0.0)
    soundfile.write(tmp_path / "a.wav", loud, RATE, subtype=subtype)
    call = Utterance(str(tmp_path / "a.wav"), "sad")
    kept, expected = Recordings([call]), load_audio(call.path)
    assert np.array_equal(kept[0], expected)


def test_a_piece_after_the_end_of_the_file_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), RATE)
    with pytest.raises(AudioError, match=r"0\.05 s long"):
        Recordings([Utterance(str(tmp_path / "a.wav"), "sad", start=1.0)])


def test_a_long_clip_is_cut_into_windows_that_share_its_weight(tmp_path):
    soundfile.write(tmp_path / "a.wav", random_clips([2500])[0], RATE)
    soundfile.write(tmp_path / "b.wav", random_clips([700])[0], RATE)
    calls = [Utterance(str(tmp_path / f"{name}.wav"), "sad") for name in "ab"]
    held = Recordings(calls)
    windows = Windows(held, 1000)
    assert windows.num_samples == [1000, 1000, 1000, 700]
    assert np.array_equal(windows[2], held[0][1500:])
    assert windows.weights.tolist() == pytest.approx([0.4, 0.3, 0.3, 1.0])
    drawn = {windows.draw([0, 1], np.random.default_rng(seed))[0] for seed in range(20)}
    assert drawn == {0, 1, 2}
    assert windows.draw([1, 0], None) == [3, 0]
    assert windows.fingerprint != Windows(held, None).fingerprint == held.fingerprint


def test_settings_survive_json():
    config = FinetuneConfig(
        corpus_weights={"a": 2.0},
        restricted_labels={"a": ("sad", "happy")},
        augmentation=Augmentation(noise_decibels=(1.0, 2.0)),
        evaluation_labels=("sad", "happy"),
    )
    assert FinetuneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "full"}, "mode is 'full', must be one of entire, partial, frozen"),
        (
            {"epochs": 0, "batch_size": 0},
            "data: batch_size is 0, must be above 0; schedule: epochs is 0, must be above 0",
        ),
        ({"warmup": 1.0}, "warmup is 1.0, must be at least 0 and below 1"),
        ({"corpus_weights": {"a": 0.0}}, "corpus_weights"),
        ({"epoch_clips": 0}, "epoch_clips"),
        ({"head_learning_rate": -1.0}, "head_learning_rate"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"noise_probability": 1.5},
        {"noise_decibels": (9.0, 1.0)},
        {"clipping_decibels": (0.0, 9.0)},
        {"speed_change": 1.0},
    ],
    ids=lambda value: next(iter(value)),
)
def test_invalid_augmentation_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Augmentation(**change)


def corpus_of(counts):
    return [
        Utterance(f"{corpus}{label}{i}.wav", label, corpus=corpus)
        for (corpus, label), count in counts.items()
        for i in range(count)
    ]


@pytest.mark.parametrize("sampling", ["shuffled", "sorted"])
def test_every_utterance_occurs_once_per_epoch(sampling):
    utterances = corpus_of({("a", "sad"): 103})
    config = FinetuneConfig(batch_size=10, sampling=sampling)
    batches = plan_epoch(utterances, list(range(103)), config, epoch=3)
    assert sorted(index for batch in batches for index in batch) == list(range(103))
    assert [len(batch) for batch in batches].count(10) == 10


def test_epochs_differ_and_are_reproducible():
    utterances = corpus_of({("a", "sad"): 50})
    plans = [
        plan_epoch(utterances, [1.0] * 50, FinetuneConfig(seed=seed), epoch=epoch)
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3]


def test_sorted_batches_have_clips_of_similar_length():
    durations = np.random.default_rng(0).permutation(200).astype(float)
    config = FinetuneConfig(batch_size=10, sampling="sorted")
    batches = plan_epoch(corpus_of({("a", "sad"): 200}), durations, config, epoch=0)
    assert all(np.ptp(durations[batch]) == 9 for batch in batches)


def test_balanced_epochs_follow_corpus_weights_and_balance_classes():
    utterances = corpus_of({("a", "sad"): 90, ("a", "happy"): 10, ("b", "sad"): 40})
    config = FinetuneConfig(
        sampling="balanced", corpus_weights={"a": 3.0, "b": 1.0}, epoch_clips=400, batch_size=8
    )
    batches = plan_epoch(utterances, [1.0] * 140, config, epoch=0)
    drawn = [utterances[index] for batch in batches for index in batch]
    counts = {
        key: sum((item.corpus, item.label) == key for item in drawn)
        for key in (("a", "sad"), ("a", "happy"), ("b", "sad"))
    }
    assert sum(counts.values()) == 400
    assert counts[("a", "sad")] == pytest.approx(150, abs=8)
    assert counts[("a", "happy")] == pytest.approx(150, abs=8)
    assert counts[("b", "sad")] == pytest.approx(100, abs=8)


def test_a_weight_for_an_unknown_corpus_is_refused():
    config = FinetuneConfig(sampling="balanced", corpus_weights={"c": 1.0})
    with pytest.raises(ValueError, match="names c, the training set has a"):
        plan_epoch(corpus_of({("a", "sad"): 3}), [1.0] * 3, config, epoch=0)


def tone(hertz, seconds=1.0, rate=RATE):
    return np.sin(2 * np.pi * hertz / rate * np.arange(int(seconds * rate))).astype(np.float32)


def level(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def peak_hertz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * RATE))
    return spectrum.argmax() / 4


def test_noise_has_the_given_signal_to_noise_ratio():
    clean = tone(440.0)
    noisy = augmentation.add_noise(clean, 12.0, np.random.default_rng(0))
    assert level(clean) - level(noisy - clean) == pytest.approx(12.0, abs=0.01)


def test_speed_changes_pitch_and_length():
    faster = augmentation.change_speed(tone(400.0), 1.1)
    assert len(faster) == pytest.approx(RATE / 1.1, abs=1)
    assert peak_hertz(faster) == pytest.approx(440.0, abs=0.5)


def test_a_tilt_is_in_decibels_per_octave():
    tilted = [
        level(augmentation.tilt_spectrum(tone(hertz), 3.0)) for hertz in (500.0, 1000.0, 2000)
    ]
    assert tilted[1] - tilted[0] == pytest.approx(3.0, abs=0.05)
    assert tilted[2] - tilted[1] == pytest.approx(3.0, abs=0.05)
    assert tilted[1] == pytest.approx(level(tone(1000.0)), abs=0.05)


def test_limit_band_removes_frequencies_outside_the_band():
    assert level(augmentation.limit_band(tone(1000.0), 300.0, 3400.0)) == pytest.approx(
        -3.01, abs=0.1
    )
    assert level(augmentation.limit_band(tone(6000.0), 300.0, 3400.0)) < -40.0


def test_reverb_of_a_click_decays_by_sixty_decibels():
    click = np.zeros(RATE, dtype=np.float32)
    click[0] = 1.0
    answer = augmentation.add_reverb(click, 0.5, np.random.default_rng(0))
    early, late = level(answer[16:816]), level(answer[6400:7200])
    assert early - late == pytest.approx(60 * (6400 - 16) / 8000, abs=3.0)
    assert np.abs(answer[8000:]).max() < 1e-5


def test_trim_ends_removes_quiet_ends_and_keeps_pauses():
    hiss = 0.001 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    voice = tone(300.0)[: RATE // 4]
    clip = np.concatenate([hiss, voice, hiss, 0.2 * voice, hiss])
    trimmed = augmentation.trim_ends(clip)
    assert len(trimmed) == pytest.approx(1.5 * RATE, abs=2 * FRAME)
    assert np.array_equal(trimmed[:1000], clip[RATE : RATE + 1000])
    longer = augmentation.trim_ends(clip, before=0.25, behind=0.5)
    assert len(longer) == len(trimmed) + 0.75 * RATE
    assert np.array_equal(augmentation.trim_ends(np.zeros(900, np.float32)), np.zeros(900))


@pytest.fixture(params=[8_000, 16_000, 44_100])
def rate(request):
    return request.param


def test_a_tilt_and_a_band_are_in_hertz_at_every_rate(rate):
    tilted = [
        level(augmentation.tilt_spectrum(tone(hertz, rate=rate), 3.0, sampling_rate=rate))
        for hertz in (500.0, 1000.0, 2000.0)
    ]
    assert tilted == pytest.approx([-6.01, -3.01, -0.01], abs=0.1)
    for change in (
        partial(augmentation.limit_band, low=300.0, high=3400.0),
        augmentation.simulate_telephone,
    ):
        kept, low, high = (
            level(change(0.5 * tone(hertz, rate=rate), sampling_rate=rate))
            for hertz in (1000.0, 150.0, 3900.0)
        )
        assert kept == pytest.approx(-9.03, abs=0.2)
        assert max(low, high) < -40.0


class Brown:
    """A generator that draws the brownest colour."""

    def __init__(self, seed):
        self.standard_normal = np.random.default_rng(seed).standard_normal

    def random(self):
        return 1.0


def test_noise_has_its_colour_at_every_rate(rate):
    clean = tone(440.0, rate=rate)
    noises = [augmentation.add_noise(clean, 0.0, Brown(n), sampling_rate=rate) for n in range(100)]
    power = np.square(np.abs(np.fft.rfft(np.subtract(noises, clean), axis=1))).mean(axis=0)
    levels = [10 * np.log10(power[hertz - 20 : hertz + 21].mean()) for hertz in (700, 1400, 2800)]
    assert np.diff(levels) == pytest.approx([-6.02, -6.02], abs=0.4)  # power has a bin per Hz


def test_a_room_and_trimmed_ends_are_in_seconds_at_every_rate(rate):
    click = np.eye(1, rate, dtype=np.float32)[0]
    generator = np.random.default_rng(0)
    room = augmentation.add_reverb(click, 0.5, generator, sampling_rate=rate)
    early, late = (level(room[int(at * rate) : int((at + 0.05) * rate)]) for at in (0.001, 0.4))
    assert early - late == pytest.approx(60 * 0.399 / 0.5, abs=4.0)
    assert np.abs(room[int(0.51 * rate) :]).max() < 1e-5
    ends = np.zeros(rate, np.float32)
    clip = np.concatenate([ends, tone(300.0, rate=rate), ends])
    trimmed = augmentation.trim_ends(clip, before=0.25, behind=0.5, sampling_rate=rate)
    assert len(trimmed) / rate == pytest.approx(1.75, abs=0.04)


def test_training_clips_are_varied_at_the_rate_of_the_model(tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, random_clips([8_000])[0], 8_000)
    recordings = Recordings([Utterance(str(file), "sad")], sampling_rate=8_000)
    clip, config = recordings[0], FinetuneConfig(augmentation=EVERYTHING, crop_seconds=None)
    loaded = Waveforms(recordings, config).load([0], np.random.default_rng(1)).values[0]
    usual, expected = (
        vary_clip(clip, config, np.random.default_rng(1), longest=len(clip), sampling_rate=rate)
        for rate in (16_000, 8_000)
    )
    assert np.array_equal(loaded, expected)
    assert not np.allclose(loaded, usual, atol=1e-3)


def test_clips_are_trimmed_with_the_given_probability():
    clip = np.concatenate([np.zeros(RATE, np.float32), tone(300.0), np.zeros(RATE, np.float32)])
    generator = np.random.default_rng(0)
    half = Augmentation(trim_probability=0.5, trim_seconds=0.1)
    sizes = np.array([len(augmentation.drop_quiet_ends(clip, half, generator)) for _ in range(400)])
    assert np.mean(sizes < len(clip)) == pytest.approx(0.5, abs=0.08)
    assert sizes.min() >= RATE - FRAME
    assert sizes[sizes < len(clip)].max() <= 1.2 * RATE + 2 * FRAME
    with pytest.raises(ValueError, match="trim_seconds is -1"):
        Augmentation(trim_seconds=-1.0)


def test_augmentation_off_changes_nothing():
    clip = random_clips([5000])[0]
    shorter = augmentation.drop_quiet_ends(clip, Augmentation.off(), np.random.default_rng(0))
    same = augmentation.augment(shorter, Augmentation.off(), np.random.default_rng(0))
    assert np.array_equal(same, clip)


def test_augmentation_does_not_modify_its_input_and_is_reproducible():
    clip = random_clips([9000])[0]
    before = clip.copy()
    first, second = (
        augmentation.augment(clip, EVERYTHING, np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(clip, before)
    assert np.array_equal(first, second)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()


@pytest.mark.parametrize("hertz", [110.0, 220.0, 440.0])
def test_statistics_contain_the_pitch(hertz):
    buzz = sum(tone(hertz * order) / order for order in range(1, 8)).astype(np.float32)
    assert 2 ** describe_clip(buzz)[0] == pytest.approx(hertz, rel=0.02)


@pytest.mark.parametrize("size", [1, 100, 511, 512, 700, 16_000])
def test_statistics_are_finite_for_every_length_and_independent_of_gain(size):
    clip = random_clips([size])[0]
    described = describe_clip(clip)
    assert np.isfinite(described).all()
    if size >= 700:
        assert describe_clip(clip * np.float32(0.5)) == pytest.approx(described, abs=0.02)


def test_statistics_of_silence_are_finite():
    assert np.isfinite(describe_clip(np.zeros(8000, dtype=np.float32))).all()


def test_targets_are_standardised_over_all_clips_and_over_each_speaker():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (60, 4))
    voices = ["a"] * 20 + ["b"] * 40
    targets = standardize_statistics(rows, voices)
    assert targets.shape == (60, 8)
    assert targets[:, :4].mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-2)
    assert targets[:20, 4:].mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-2)
    assert targets[20:, 4:].std(axis=0) == pytest.approx(np.ones(4), abs=2e-2)


def test_the_telephone_has_256_levels_and_a_narrow_band():
    line = augmentation.simulate_telephone(tone(1000.0))
    assert len(np.unique(line)) <= 256
    limited = augmentation.limit_band(tone(1000.0), 300.0, 3400.0)
    assert np.abs(line - np.clip(limited, -1, 1)).max() < 0.03  # half a step of mu-law near 1
    assert level(augmentation.simulate_telephone(tone(6000.0))) < -40.0


def test_clipping_is_drawn_between_its_limits_and_leaves_quiet_samples_as_they_are():
    settings = replace(Augmentation.off(), clipping_probability=1.0, clipping_decibels=(6.0, 12.0))
    clip, generator = tone(1000.0), np.random.default_rng(0)
    peaks = []
    for _ in range(50):
        clipped = augmentation.augment(clip, settings, generator)
        peaks.append(np.abs(clipped).max())
        quiet = np.abs(clip) < peaks[-1]
        assert np.array_equal(clipped[quiet], clip[quiet])
    ratios = 20 * np.log10(np.abs(clip).max() / peaks)
    assert 6.0 <= ratios.min() < 7.0
    assert 11.0 < ratios.max() <= 12.0001
    assert not augmentation.clip_peaks(np.zeros(5, np.float32), 6.0).any()
    assert not len(augmentation.clip_peaks(np.zeros(0, np.float32), 6.0))


def test_the_telephone_without_torchaudio_names_what_to_install(monkeypatch):
    monkeypatch.setattr("emoser.models.torchaudio_guard.fault", OSError("libcudart.so.13"))
    with pytest.raises(DependencyError, match=r"telephone augmentation needs torchaudio.*cudart"):
        augmentation.simulate_telephone(tone(1000.0))
