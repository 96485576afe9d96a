"""Corpus readers on miniature trees with real file names, and on real speech."""

import csv
import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emoser.errors import DependencyError
from emoser.finetune import read_corpus
from emoser.finetune.corpora import READERS, iemocap


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def facts(utterances):
    return {
        Path(item.path).name: (item.label, item.speaker, item.sex, item.sentence)
        for item in utterances
    }


TREES = {
    "ravdess": (
        ("Actor_01/03-01-05-02-01-01-01.wav", "Actor_02/03-01-02-01-02-02-02.wav",
         "Actor_02/03-02-05-01-01-01-02.wav"),
        {"03-01-05-02-01-01-01.wav": ("angry", "01", "m", "01"),
         "03-01-02-01-02-02-02.wav": ("calm", "02", "f", "02")},
    ),
    "cremad": (
        ("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1040_ITH_SAD_X.wav",
         "AudioWAV/1091_IEO_HAP_HI.wav"),
        {"1001_DFA_ANG_XX.wav": ("angry", "1001", "m", "DFA"),
         "1040_ITH_SAD_X.wav": ("sad", "1040", None, "ITH"),
         "1091_IEO_HAP_HI.wav": ("happy", "1091", "f", "IEO")},
    ),
    "emodb": (
        ("wav/03a01Fa.wav", "wav/16b10Wb.wav", "wav/08a02Ac.wav", "wav/09a05Lb.wav"),
        {"03a01Fa.wav": ("happy", "03", "m", "a01"), "16b10Wb.wav": ("angry", "16", "f", "b10"),
         "08a02Ac.wav": ("fear", "08", "f", "a02"), "09a05Lb.wav": ("boredom", "09", "f", "a05")},
    ),
    "savee": (
        ("AudioData/DC/su01.wav", "AudioData/KL/a15.wav", "flat/JE_sa02.wav"),
        {"su01.wav": ("surprise", "DC", "m", "su01"), "a15.wav": ("angry", "KL", "m", "a15"),
         "JE_sa02.wav": ("sad", "JE", "m", "sa02")},
    ),
    "tess": (
        ("OAF_Pleasant_surprise/OAF_back_ps.wav", "YAF_angry/YAF_dog_angry.wav",
         "OAF_neutral/OA_bite_neutral.wav"),
        {"OAF_back_ps.wav": ("surprise", "OAF", "f", "back"),
         "YAF_dog_angry.wav": ("angry", "YAF", "f", "dog"),
         "OA_bite_neutral.wav": ("neutral", "OAF", "f", "bite")},
    ),
    "nemo": (
        ("samples/EB0_anger_1.wav", "samples/WR0_happiness_84.wav",
         "samples/KD0_surprised_3.wav"),
        {"EB0_anger_1.wav": ("angry", "EB0", "f", "1"),
         "WR0_happiness_84.wav": ("happy", "WR0", "m", "84"),
         "KD0_surprised_3.wav": ("surprise", "KD0", "f", "3")},
    ),
    "esd": (
        ("0001/Neutral/0001_000001.wav", "0011/Angry/train/0011_000351.wav",
         "0011/Surprise/evaluation/0011_001401.wav"),
        {"0001_000001.wav": ("neutral", "0001", None, "mandarin-1"),
         "0011_000351.wav": ("angry", "0011", None, "english-1"),
         "0011_001401.wav": ("surprise", "0011", None, "english-1")},
    ),
    "jl": (
        ("JL(wav+txt)/female1_angry_10a_1.wav", "JL(wav+txt)/male2_excited_3b_2.wav",
         "JL(wav+txt)/male2_anxious_3b_2.wav"),
        {"female1_angry_10a_1.wav": ("angry", "female1", "f", "10"),
         "male2_excited_3b_2.wav": ("excited", "male2", "m", "3")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("corpus", sorted(TREES))
def test_readers_parse_the_file_names_of_their_corpora(corpus, tmp_path):
    names, expected = TREES[corpus]
    plant(tmp_path, *names)
    text = "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,-\n1091,29,Female,-,-\n"
    (tmp_path / "VideoDemographics.csv").write_text(text)
    utterances = read_corpus(corpus, root=tmp_path)
    assert facts(utterances) == expected
    assert {item.corpus for item in utterances} == {corpus}


@pytest.mark.parametrize("corpus", sorted(set(TREES)))
def test_missing_and_extra_files_are_in_one_message(corpus, tmp_path, caplog):
    names, _ = TREES[corpus]
    plant(tmp_path, *names, "elsewhere/xyz.wav")
    with caplog.at_level(logging.WARNING):
        read_corpus(corpus, root=tmp_path)
    (record,) = caplog.records
    message = record.getMessage()
    assert "the complete corpus has" in message
    assert "xyz.wav" in message


@pytest.mark.parametrize("corpus", sorted(READERS))
def test_a_tree_of_another_corpus_is_refused(corpus, tmp_path):
    plant(tmp_path, "elsewhere/xyz.wav")
    with pytest.raises(FileNotFoundError):
        read_corpus(corpus, root=tmp_path)


def test_a_corpus_without_its_root_is_refused():
    with pytest.raises(ValueError, match="needs root="):
        read_corpus("iemocap")


def write_iemocap(root, turns):
    """An IEMOCAP tree with these (turn, emotion)."""
    dialogues = {}
    for turn, emotion in turns:
        dialogues.setdefault(turn.rsplit("_", 1)[0], []).append((turn, emotion))
    for dialogue, members in dialogues.items():
        session = root / f"Session{int(dialogue[3:5])}"
        evaluation = session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
        evaluation.parent.mkdir(parents=True, exist_ok=True)
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"]
        for turn, emotion in members:
            lines.append(f"[6.2901 - 8.2357]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n")
            lines.append("C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n")
        evaluation.write_text("".join(lines))
        plant(session / "sentences" / "wav" / dialogue, *(f"{turn}.wav" for turn, _ in members))
    return root


@pytest.fixture(scope="module")
def complete_iemocap(tmp_path_factory):
    """The 5,531 turns of the literature, and others that are not read."""
    raw = {"neutral": ("neu",), "happy": ("hap", "exc"), "angry": ("ang",), "sad": ("sad",)}
    turns = []
    for session, counts in iemocap.COUNTS.items():
        number = 0
        for label, count in zip(iemocap.LABELS, counts, strict=True):
            for index in range(count):
                dialogue = "impro05a" if number % 40 == 0 else f"script0{number % 3 + 1}_1"
                name = f"Ses0{session}{'FM'[number % 2]}_{dialogue}_{'MF'[number // 2 % 2]}"
                turns.append((f"{name}{number:04d}", raw[label][index % len(raw[label])]))
                number += 1
        turns += [(f"Ses0{session}F_impro01_F900", "xxx"), (f"Ses0{session}F_impro01_F901", "fru")]
    return write_iemocap(tmp_path_factory.mktemp("iemocap"), turns)


def test_iemocap_has_the_number_of_utterances_in_the_literature(complete_iemocap):
    utterances = read_corpus("iemocap", root=complete_iemocap)
    assert len(utterances) == 5531
    assert Counter(item.label for item in utterances) == {
        "neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084,
    }  # fmt: skip
    assert len({item.speaker for item in utterances}) == 10


def test_iemocap_counts_are_checked_for_every_session_and_class(complete_iemocap, monkeypatch):
    counts = {**iemocap.COUNTS, "3": (320, 286, 239, 305)}
    monkeypatch.setattr(iemocap, "COUNTS", counts)
    with pytest.raises(ValueError, match="session 3 has 240 angry, the literature 239"):
        iemocap.read(complete_iemocap)
    assert len(iemocap.read(complete_iemocap, complete=False)) == 5531


def test_iemocap_attributes_are_valence_activation_dominance(tmp_path):
    root = write_iemocap(tmp_path, [("Ses01F_impro01_F000", "neu")])
    (file,) = root.rglob("EmoEvaluation/*.txt")
    file.write_text(
        file.read_text().replace("[2.5000, 2.5000, 2.5000]", "[2.0000, 3.5000, 5.0000]")
    )
    (found,) = iemocap.read(root, complete=False)
    assert dict(found.dimensions) == {"valence": 2.0, "arousal": 3.5, "dominance": 5.0}
    assert found.value("arousal") == (3.5 - 1) / 4


def test_every_rated_turn_of_iemocap_counts_for_dimensions(complete_iemocap, tmp_path):
    found = read_corpus("iemocap", root=complete_iemocap, targets="dimensions")
    assert len(found) == 5531 + 10
    others = [item for item in found if not item.label]
    assert {Path(item.path).stem[-4:] for item in others} == {"F900", "F901"}
    assert {len(item.dimensions) for item in found} == {3}
    assert len(read_corpus("iemocap", root=complete_iemocap, targets="labels")) == 5531
    turns = [("Ses01F_impro01_F000", "neu"), ("Ses01F_impro01_F001", "xxx")]
    root = write_iemocap(tmp_path, turns)
    (file,) = root.rglob("EmoEvaluation/*.txt")
    file.write_text(file.read_text().replace("\t[2.5000, 2.5000, 2.5000]", "\t", 1))
    (rated,) = iemocap.read(root, complete=False, targets="dimensions")
    assert rated.path.endswith("F001.wav")


def test_the_iemocap_speaker_is_the_last_letter_of_the_turn(tmp_path):
    turns = [
        ("Ses01F_impro01_F000", "neu"), ("Ses01F_impro01_M000", "hap"),
        ("Ses03M_impro05a_F000", "ang"), ("Ses05M_script01_1b_F012", "sad"),
        ("Ses04M_script03_2_M001", "exc"),
    ]  # fmt: skip
    root = write_iemocap(tmp_path, turns)
    ours = {Path(item.path).stem: item for item in iemocap.read(root, complete=False)}
    speakers = {name: item.speaker for name, item in ours.items()}
    assert speakers == {
        "Ses01F_impro01_F000": "1", "Ses01F_impro01_M000": "2",
        "Ses03M_impro05a_F000": "5", "Ses05M_script01_1b_F012": "9",
        "Ses04M_script03_2_M001": "8",
    }  # fmt: skip
    upstream = {
        Path(item.path).stem: item.speaker
        for item in iemocap.read(root, complete=False, speakers="upstream")
    }
    wrong = {"Ses03M_impro05a_F000": "6", "Ses05M_script01_1b_F012": "10"}
    assert upstream == {**speakers, **wrong}
    assert ours["Ses05M_script01_1b_F012"].style == "scripted"
    assert ours["Ses05M_script01_1b_F012"].sentence == "script01_1b"
    assert ours["Ses03M_impro05a_F000"].style == "improvised"
    assert ours["Ses03M_impro05a_F000"].session == "3"


def test_missing_iemocap_recordings_are_in_one_message(tmp_path):
    root = write_iemocap(tmp_path, [("Ses01F_impro01_F000", "neu"), ("Ses01F_impro01_F001", "neu")])
    for file in root.rglob("*.wav"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 2 .*F000\.wav.*F001\.wav"):
        iemocap.read(root, complete=False)


def write_rows(file, rows):
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_meld_joins_tables_and_clips(tmp_path, caplog):
    for part in ("train", "dev", "test"):
        rows = [
            {"Sr No.": 1, "Utterance": "Hi!", "Speaker": "Monica", "Emotion": "joy",
             "Sentiment": "positive", "Dialogue_ID": 3, "Utterance_ID": number}
            for number in range(2)
        ]  # fmt: skip
        write_rows(tmp_path / f"{part}_sent_emo.csv", rows)
    plant(tmp_path, "train_splits/dia3_utt0.mp4", "train_splits/dia3_utt1.mp4")
    plant(
        tmp_path, "dev_splits_complete/dia3_utt0.mp4", "output_repeated_splits_test/dia3_utt0.mp4"
    )
    utterances = read_corpus("meld", root=tmp_path)
    splits = Counter(item.split for item in utterances)
    assert splits == {"train": 2, "validation": 1, "test": 1}
    assert {(item.label, item.speaker) for item in utterances} == {("happy", "Monica")}
    assert "dev_splits_complete/dia3_utt1" in caplog.text


def test_msp_podcast_takes_consensus_labels_and_the_official_split(tmp_path):
    (tmp_path / "Labels").mkdir()
    rows = [
        ("MSP-PODCAST_0001_0008.wav", "N", "127", "Male", "Test1"),
        ("MSP-PODCAST_0001_0019.wav", "U", "Unknown", "Unknown", "Development"),
        ("MSP-PODCAST_0002_0033.wav", "A", "5", "Female", "Train"),
        ("MSP-PODCAST_0002_0039.wav", "X", "5", "Female", "Train"),
    ]
    names = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")
    table = [dict(zip(names, row, strict=True)) for row in rows]
    write_rows(tmp_path / "Labels" / "labels_consensus.csv", table)
    plant(tmp_path / "Audios", *(row[0] for row in rows))
    utterances = read_corpus("msp-podcast", root=tmp_path)
    found = [(item.label, item.speaker, item.sex, item.split) for item in utterances]
    assert found == [
        ("neutral", "127", "m", "test1"),
        ("surprise", None, None, "validation"),
        ("angry", "5", "f", "train"),
    ]


def test_msp_podcast_attributes_are_read_on_their_scale(tmp_path):
    row = {
        "FileName": "a.wav", "EmoClass": "N", "SpkrID": "1", "Gender": "Male", "Split_Set": "Test1",
        "EmoAct": "4.0", "EmoVal": "2.5", "EmoDom": "7",
    }  # fmt: skip
    write_rows(tmp_path / "labels_consensus.csv", [row])
    plant(tmp_path / "Audios", "a.wav")
    (found,) = read_corpus("msp-podcast", root=tmp_path)
    values = {name: found.value(name) for name in found.dimensions}
    assert values == {"arousal": 0.5, "dominance": 1.0, "valence": 0.25}


def test_every_rated_clip_of_msp_podcast_counts_for_dimensions(tmp_path):
    rows = [
        {"FileName": f"{code}.wav", "EmoClass": code, "SpkrID": "1", "Gender": "Male",
         "Split_Set": "Train", "EmoAct": act, "EmoVal": act, "EmoDom": act}
        for code, act in (("N", "4.0"), ("X", "2.5"), ("O", "7"), ("A", ""))
    ]  # fmt: skip
    write_rows(tmp_path / "labels_consensus.csv", rows)
    plant(tmp_path / "Audios", *(row["FileName"] for row in rows))
    found = read_corpus("msp-podcast", root=tmp_path, targets="dimensions")
    assert [(item.label, item.value("arousal")) for item in found] == [
        ("neutral", 0.5), ("", 0.25), ("", 1.0),
    ]  # fmt: skip
    labelled = read_corpus("msp-podcast", root=tmp_path)
    assert [item.label for item in labelled] == ["neutral", "angry"]


def test_dimensions_of_a_corpus_without_ratings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="iemocap and msp-podcast have them"):
        read_corpus("emodb", root=tmp_path, targets="dimensions")
    with pytest.raises(ValueError, match="targets is 'valence', allowed are auto, labels"):
        read_corpus("iemocap", root=tmp_path, targets="valence")


def test_an_audiofolder_is_read_as_a_corpus(tmp_path):
    plant(tmp_path, "train/a.wav", "test/b.wav")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label,speaker\na.wav,anger,x\n")
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "b.wav", "label": "sad"}\n')
    found = {(item.label, item.split, item.speaker) for item in read_corpus(tmp_path)}
    assert found == {("angry", "train", "x"), ("sad", "test", None)}


def saved_rows(folder):
    """A dataset with audio as bytes and as paths, class labels, and a row without a label."""
    datasets = pytest.importorskip("datasets", reason="the extra datasets")
    clip = folder / "there.wav"
    soundfile.write(clip, np.zeros(800), 16_000)
    rows = {
        "audio": [
            {"bytes": clip.read_bytes(), "path": "inside.wav"},
            {"bytes": None, "path": str(clip)},
            {"bytes": None, "path": str(clip)},
        ],
        "label": [1, 0, -1],
        "speaker": ["anna", "bert", "bert"],
        "start": [None, 0.01, None],
    }
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["anger", "happiness"]),
            "speaker": datasets.Value("string"),
            "start": datasets.Value("float64"),
        }
    )
    plain = datasets.Dataset.from_dict(rows, features=features)
    return datasets, plain.cast_column("audio", datasets.Audio(decode=False)), clip


def test_audio_bytes_of_a_saved_dataset_are_written_to_files(tmp_path):
    _, dataset, clip = saved_rows(tmp_path)
    dataset.save_to_disk(str(tmp_path / "saved"))
    inside, there = read_corpus(tmp_path / "saved", root=tmp_path / "audio")
    assert (inside.label, inside.speaker, inside.start) == ("happy", "anna", None)
    assert (there.label, there.speaker, there.start) == ("angry", "bert", 0.01)
    assert Path(inside.path).parent == tmp_path / "audio"
    assert Path(inside.path).read_bytes() == clip.read_bytes()
    assert Path(there.path).read_bytes() == clip.read_bytes()
    before = Path(inside.path).stat().st_mtime_ns
    again = read_corpus(tmp_path / "saved", root=tmp_path / "audio")
    assert again == [inside, there]
    assert Path(inside.path).stat().st_mtime_ns == before


def test_the_splits_of_a_saved_dataset_are_those_of_its_utterances(tmp_path, monkeypatch):
    datasets, dataset, _ = saved_rows(tmp_path)
    dataset = dataset.rename_column("audio", "recording")  # any name will do
    both = datasets.DatasetDict(train=dataset.select([0]), test=dataset.select([1]))
    both.save_to_disk(str(tmp_path / "saved"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    utterances = read_corpus(tmp_path / "saved")
    assert [(item.split, item.label) for item in utterances] == [
        ("train", "happy"),
        ("test", "angry"),
    ]
    assert (tmp_path / "cache" / "emoser" / "recordings") in Path(utterances[0].path).parents


def test_a_saved_dataset_may_name_paths(tmp_path):
    datasets, _, clip = saved_rows(tmp_path)
    rows = {"path": [str(clip), "there.wav"], "emotion": ["sad", "angry"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    utterances = read_corpus(tmp_path / "saved", root=tmp_path)
    assert [(item.path, item.label) for item in utterances] == [
        (str(clip), "sad"),
        (str(clip), "angry"),
    ]


def test_a_saved_dataset_without_the_package_names_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match=r"emoser\[datasets\]"):
        read_corpus(tmp_path)


@pytest.mark.data
def test_ravdess_and_nemo_agree_with_their_manifest(speech_data, caplog):
    with (speech_data / "manifest.csv").open(newline="") as file:
        manifest = {row["path"]: row for row in csv.DictReader(file)}
    for corpus, count in (("ravdess", 1080), ("nemo", 4481)):
        utterances = read_corpus(corpus, root=speech_data / corpus)
        assert len(utterances) == count
        for item in utterances:
            row = manifest[str(Path(item.path).relative_to(speech_data))]
            assert (item.label, item.speaker, item.sex) == (
                row["emotion"], row["speaker"], row["sex"],
            )  # fmt: skip
    assert "1080 recordings, the complete corpus has 1440" in caplog.text
    assert "speaker 19" in caplog.text
