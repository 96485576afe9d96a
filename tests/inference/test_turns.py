"""Turns of a conversation: each answer is that of the turn cut out into a file of its own."""

import io
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.fakes import formula_classifier
from support.models import random_clips

from emoser import EmotionClassifier, load_audio
from emoser.errors import AudioError, CheckpointError, DependencyError, HubError, TurnsError
from emoser.inference import diarization
from emoser.results.turns import Turn

CLIPS = Path(__file__).parents[2] / "examples" / "audio"
SPANS = [(3.1, 4.7), (0.0, 1.003), (1.0, 2.5), (2.2, 3.9), (5.017, 5.2), (0.5, 0.51), (5.5, 6.0)]


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier.from_pretrained("emoser-tiny", backend="torch")


def voice(seconds, rate, channels):
    """Noise in bursts that differ from channel to channel, (T, channels)."""
    generator = np.random.default_rng(5)
    sides = []
    for channel in range(channels):
        times = np.arange(round(seconds * rate)) / rate
        tone = np.sin(2 * np.pi * (180 + 60 * channel + 40 * np.sin(3 * times)) * times)
        envelope = 0.3 * np.abs(np.sin(2 * times + channel))
        sides.append(tone * envelope + 0.01 * generator.standard_normal(len(times)))
    return np.stack(sides, axis=1).astype(np.float32)


FILES = {
    "wav-44100-stereo": ("wav", "PCM_16", 44_100, 2),
    "wav-8000": ("wav", "PCM_16", 8_000, 1),
    "flac-48000": ("flac", "PCM_24", 48_000, 1),
    "flac-16000-stereo": ("flac", "PCM_16", 16_000, 2),
    "mp3-24000": ("mp3", None, 24_000, 1),
    "mp3-44100-stereo": ("mp3", None, 44_100, 2),
}


@pytest.mark.parametrize("name", FILES)
def test_a_turn_has_the_answer_of_its_cut_file(classifier, tmp_path, name):
    suffix, subtype, rate, channels = FILES[name]
    call = tmp_path / f"call.{suffix}"
    soundfile.write(call, voice(6.0, rate, channels), rate, subtype=subtype)
    whole, _ = soundfile.read(call, dtype="float32", always_2d=True)
    if suffix == "mp3":  # whose decoders differ in the last bit
        sides = [load_audio(call, target_rate=rate, channel=side) for side in range(channels)]
        assert np.allclose(np.stack(sides, axis=1), whole, atol=1e-6)
        whole = np.stack(sides, axis=1)
    for channel in ["mix", "right"][:channels]:
        found = classifier.predict_turns(call, SPANS, channel=channel)
        assert [(turn.start, turn.end) for turn in found] == SPANS
        for turn in found:
            cut = tmp_path / "cut.wav"
            samples = whole[round(turn.start * rate) : round(turn.end * rate)]
            soundfile.write(cut, samples, rate, subtype="FLOAT")
            alone = classifier.predict(cut, channel=channel)
            assert turn.prediction == alone
            assert turn.scores == alone.scores
            piece = classifier.predict(call, channel=channel, start=turn.start, end=turn.end)
            assert piece == alone


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_speaker_with_enough_turns_has_the_answers_of_adapt_on_the_cut_files(backend, tmp_path):
    if backend == "onnx":
        pytest.importorskip("onnxruntime")
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", backend=backend)
    rate, call = 8_000, tmp_path / "call.wav"
    samples = voice(20.0, rate, 1)[:, 0]
    samples[10 * rate : 11 * rate] = 0.0
    soundfile.write(call, samples, rate, subtype="FLOAT")
    anna = [(round(0.9 * number, 2), round(0.9 * number + 1.1, 2), "anna") for number in range(9)]
    ben = [(12.0 + number, 12.7 + number, "ben") for number in range(7)]
    silent, late = (10.0, 11.0, "ben"), (30.0, 31.0, "ben")
    unknown = [(0.5 * number, 0.5 * number + 1.0) for number in range(8)]
    turns = [*reversed(anna), silent, *ben, late, *unknown]
    found = classifier.predict_turns(call, turns, on_error="return", adapt_speakers=True)
    plain = classifier.predict_turns(call, turns, on_error="return")

    def cut(turn):
        file = tmp_path / f"{turn.start}-{turn.end}.wav"
        part = samples[round(turn.start * rate) : round(turn.end * rate)]
        soundfile.write(file, part, rate, subtype="FLOAT")
        return file

    files = [cut(turn) for turn in found if turn.speaker == "anna"]
    adapted = classifier.adapt(files)
    for file, turn, before in zip(files, found[:9], plain[:9], strict=True):
        assert turn.prediction == adapted.predict(file)
        assert turn.scores == adapted.predict(file).scores
        assert turn.scores != before.scores
        assert turn.prediction != classifier.predict(file)
    assert found[9:] == plain[9:]
    assert {name: one.to_dict() for name, one in found.adaptations.items()} == {
        "anna": {"adapted": True, "num_turns": 9, "note": "adapted by 9 turns"},
        "ben": {
            "adapted": False,
            "num_turns": 7,
            "note": "not adapted: 7 turns with speech; at least 8 are needed",
        },
        "unknown": {
            "adapted": False,
            "num_turns": 8,
            "note": "not adapted: it is unknown who speaks in these turns",
        },
    }
    assert str(found.summary()["anna"]).endswith("; adapted by 9 turns")
    notes = [speaker["adaptation"]["num_turns"] for speaker in found.to_dict()["speakers"]]
    assert sorted(notes) == [7, 8, 9]
    assert plain.adaptations == {}
    assert plain.summary()["anna"].to_dict()["adaptation"] is None


def test_the_turns_of_an_adapted_speaker_are_decoded_once_and_not_kept(classifier, tmp_path):
    minute = random_clips([60 * 16_000])[0]

    def peak(minutes):
        call = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(call, "w", 16_000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        turns = [(6.0 * number, 6.0 * number + 5.0, "anna") for number in range(10 * minutes)]
        reads = CountedReads(call)
        with reads:
            tracemalloc.start()
            found = classifier.predict_turns(reads, turns, adapt_speakers=True)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert found.adaptations["anna"].num_turns == 10 * minutes
        size = call.stat().st_size
        assert 0.9 * size < reads.total < 1.1 * size + 2**20
        return used

    peak(1)  # what is loaded at first use
    assert peak(6) < peak(2) + 4 * 2**20  # the sound of forty turns more would take 12 MiB


class CountedReads(io.FileIO):
    """A file that counts the bytes that are read from it."""

    total = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.total += count or 0
        return count

    def read(self, size=-1):
        found = super().read(size)
        self.total += len(found or b"")
        return found


def test_a_model_that_cannot_be_adapted_is_refused_before_the_recording_is_read(classifier):
    clip = CLIPS / "plain.wav"
    adapted = classifier.adapt([clip] * 8)
    with pytest.raises(CheckpointError, match="is adapted to 8 recordings"):
        adapted.predict_turns("none.wav", [(0, 1, "anna")], adapt_speakers=True)
    with pytest.raises(CheckpointError, match="does not state mean_logits"):
        formula_classifier().predict_turns("none.wav", [(0, 1, "anna")], adapt_speakers=True)


def test_each_channel_is_a_speaker(classifier, tmp_path):
    call = tmp_path / "call.wav"
    frames = voice(4.0, 16_000, 2)
    soundfile.write(call, frames, 16_000, subtype="FLOAT")
    turns = [Turn(0, 2, "a", channel=0), Turn(1, 3, "b", channel=1)]
    found = classifier.predict_turns(call, turns, channel="each")
    for turn in found:
        part = frames[turn.start * 16_000 : turn.end * 16_000, turn.channel]
        assert turn.scores == classifier.predict(part, sampling_rate=16_000).scores
        assert turn.flags == ()
    assert [turn.flags for turn in classifier.predict_turns(call, turns)] == [("overlap",)] * 2
    with pytest.raises(ValueError, match="1 of 1 turns have no channel"):
        classifier.predict_turns(call, [(0, 1)], channel="each")


def test_gaps_overlaps_and_damage_are_named_in_place(classifier, tmp_path):
    frames = voice(4.0, 16_000, 1)[:, 0]
    frames[round(2.5 * 16_000)] = np.nan
    turns = [(2.0, 3.0), (9.0, 10.0), (1.0, 1.0), (-1.0, 1.0), (3.0, 7.0), (-2.0, -1.0),
             Turn(float("nan"), 1.0), (0.5, 1.5)]  # fmt: skip
    call = tmp_path / "call.wav"
    soundfile.write(call, frames, 16_000, subtype="FLOAT")
    found = classifier.predict_turns(call, turns, on_error="return")
    named = {
        0: "holds NaN at 2.500 s",
        1: "is 4.00 s long and has no samples between 9 and 10 s",
        2: "turn 3 is empty",
        5: "before the recording",
        6: "turn 7 goes from nan to 1 s",
    }
    for place, turn in enumerate(found):
        assert (turn.prediction is None) == (place in named)
        assert named.get(place, "") in str(turn.error or "")
    assert found[3].flags == ("overlap", "out-of-range")
    assert found[4].flags == ("out-of-range",)
    assert found[7].flags == ("overlap",)
    assert found[3].prediction == classifier.predict(call, end=1.0)
    assert found[4].prediction == classifier.predict(call, start=3.0)
    with pytest.raises(TurnsError, match="turn 3 is empty"):
        classifier.predict_turns(call, turns)
    with pytest.raises(AudioError, match="NaN"):
        classifier.predict_turns(call, turns[:1])
    with pytest.raises(FileNotFoundError):
        classifier.predict_turns(tmp_path / "none.wav", [(0, 1)])


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 1), (float("nan"), None), (0, 0)])
def test_an_empty_piece_is_refused(classifier, start, end):
    with pytest.raises(ValueError, match="is empty; start must be at least 0"):
        classifier.predict(np.zeros(16_000), sampling_rate=16_000, start=start, end=end)


def test_the_recording_is_decoded_once_and_in_flat_memory(classifier, tmp_path):
    minute = random_clips([60 * 16_000])[0]

    def peak(minutes):
        file = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as opened:
            for _ in range(minutes):
                opened.write(minute)

        class Once(io.FileIO):
            backwards = 0

            def seek(self, place, whence=0):
                self.backwards += whence == 0 and 0 < place < self.tell() - 2**20
                return super().seek(place, whence)

        spans = [(60.0 * number + 1, 60.0 * number + 2) for number in reversed(range(minutes))]
        with Once(file) as opened:
            tracemalloc.start()
            found = classifier.predict_turns(opened, spans)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert opened.backwards <= 1  # after the length was looked up
        assert len({turn.label for turn in found}) == 1
        return used

    assert peak(24) < 1.3 * peak(6)


def test_turns_are_found_on_both_channels(classifier, tmp_path):
    sides = np.zeros((8 * 16_000, 2), np.float32)
    speech = load_audio(CLIPS / "loud.flac")[: 2 * 16_000]
    sides[16_000 : 16_000 + len(speech), 0] = speech
    sides[5 * 16_000 : 5 * 16_000 + len(speech), 1] = speech
    call = tmp_path / "call.wav"
    soundfile.write(call, sides, 16_000)
    found = classifier.predict_turns(call)
    assert found.speakers == ("channel 0 (left)", "channel 1 (right)")
    for turn, start in zip(found, (1.0, 5.0), strict=True):
        assert turn.start == pytest.approx(start, abs=0.3)
        assert turn.end == pytest.approx(start + len(speech) / 16_000, abs=0.4)
        assert turn.prediction == classifier.predict(
            call, channel=turn.channel, start=turn.start, end=turn.end
        )
    with pytest.raises(ValueError, match="turns are found on all channels"):
        classifier.predict_turns(call, channel="left")


def test_speakers_of_one_channel_are_those_of_pyannote(classifier, monkeypatch):
    plain = CLIPS / "plain.wav"
    monkeypatch.setitem(sys.modules, "pyannote.audio", None)
    with pytest.raises(DependencyError, match=r'plain.wav has one channel.*"emoser\[diarize\]"'):
        classifier.predict_turns(plain)

    class Annotation:
        def itertracks(self, yield_label=False):
            for start, end, name in [(0.0, 1.0, "SPEAKER_00"), (1.0, 2.0, "SPEAKER_01")]:
                yield types.SimpleNamespace(start=start, end=end), "_", name

    class Pipeline:
        gated = True

        @classmethod
        def from_pretrained(cls, name):
            assert name == diarization.PIPELINE
            return None if cls.gated else cls()

        def __call__(self, file):
            assert file["waveform"].shape[0] == 1
            assert file["sample_rate"] == 16_000
            return types.SimpleNamespace(speaker_diarization=Annotation())

    monkeypatch.setitem(sys.modules, "pyannote.audio", types.SimpleNamespace(Pipeline=Pipeline))
    with pytest.raises(HubError, match="accept its conditions"):
        classifier.predict_turns(plain)
    Pipeline.gated = False
    found = classifier.predict_turns(plain)
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert found.turns == classifier.predict_turns(plain, Annotation()).turns
