"""Every file of a folder has exactly one row, whatever happens to the process."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from support.fakes import LABELS, formula_classifier, voice_and_pauses

from emoser.audio.folders import choose_shard, find_recordings, parse_shard
from emoser.bulk import BulkJob, predict_folder
from emoser.cli import main
from emoser.errors import AudioError, DependencyError

RATE = 16_000
WORKER = Path(__file__).parents[1] / "support" / "bulk_worker.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def write_folder(folder, num_files, *, num_folders=7):
    """Short recordings, one in fifty of them broken."""
    for number in range(num_files):
        place = folder / f"part {number % num_folders}"
        place.mkdir(exist_ok=True, parents=True)
        file = place / f"{number:04d}.wav"
        if number % 50 == 3:
            file.write_text("nothing")
            continue
        level = 0.01 + (number * 37 % 101) / 200
        soundfile.write(file, voice_and_pauses([(0.1, level)], seed=number), RATE)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("small") / "voices", 60)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("large") / "voices", 1000)


@pytest.fixture(autouse=True)
def formula(monkeypatch):
    monkeypatch.setattr("emoser.bulk.open_job_classifier", lambda job: formula_classifier())


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_file_has_its_row_in_the_order_of_the_folder(folder, tmp_path):
    output = tmp_path / "out.jsonl"
    summary = predict_folder(BulkJob(str(folder), str(output)))
    rows = read_rows(output)
    names = find_recordings(folder)
    assert [row["source"] for row in rows] == names
    assert (summary.num_files, summary.num_before, summary.num_errors) == (60, 0, 2)
    assert ["error" in row for row in rows].count(True) == 2
    expected = formula_classifier().predict(names[0])
    assert rows[0]["scores"] == pytest.approx(dict(expected.scores))


def test_a_second_run_does_nothing(folder, tmp_path):
    output = tmp_path / "out.csv"
    predict_folder(BulkJob(str(folder), str(output)))
    before = output.read_bytes()
    summary = predict_folder(BulkJob(str(folder), str(output)))
    assert (summary.num_before, summary.num_errors) == (60, 2)
    assert output.read_bytes() == before


NAMES = [b"a\rb.wav", b"c\nd.wav", b"\xff.wav", b"\\udcff.wav", b"=1;=2.wav", b"'=1.wav", b"e.wav"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_file_name_has_one_row_of_its_own_after_each_resume(tmp_path, suffix, folder):
    place, output = tmp_path / "place", tmp_path / f"out{suffix}"
    place.mkdir()
    sound = Path(find_recordings(folder)[0]).read_bytes()
    for name in NAMES:
        (place / os.fsdecode(name)).write_bytes(sound)
    for num_before in (0, 7, 7):
        summary = predict_folder(BulkJob(str(place), str(output)))
        assert (summary.num_files, summary.num_before, summary.num_errors) == (7, num_before, 0)
    if suffix == ".parquet":
        sources = pytest.importorskip("pyarrow.parquet").read_table(output)["source"].to_pylist()
    elif suffix == ".jsonl":
        sources = [row["source"] for row in read_rows(output)]
        assert [os.fsencode(source) for source in sources] == [
            os.fsencode(name) for name in find_recordings(place)
        ]
    else:
        sources = pandas.read_csv(output, keep_default_na=False)["source"].tolist()
    assert len(sources) == len(set(sources)) == 7
    assert str(place / "a\rb.wav") in sources


def kill_again_and_again(folder, output, *, num_kills, pause, seed):
    """Start the worker and kill it at a random time after it has written a row, repeatedly."""
    generator = np.random.default_rng(seed)
    grows = output.with_name(f"{output.name}.rows.jsonl") if output.suffix == ".parquet" else output
    for _ in range(num_kills):
        size = grows.stat().st_size if grows.exists() else 0
        worker = subprocess.Popen(
            [sys.executable, WORKER, folder, output, str(pause)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        while worker.poll() is None and (not grows.exists() or grows.stat().st_size <= size):
            time.sleep(0.001)
        time.sleep(float(generator.uniform(0, 0.06)))
        assert worker.poll() is None, worker.stderr.read()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stderr.close()


@pytest.mark.parametrize(
    ("suffix", "num_kills"),
    [pytest.param(".jsonl", 20, marks=pytest.mark.slow), (".csv", 3), (".parquet", 3)],
    ids=lambda v: str(v),
)
def test_killed_jobs_lose_no_row_and_write_none_twice(thousand, tmp_path, suffix, num_kills):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    calm, killed = tmp_path / f"calm{suffix}", tmp_path / f"killed{suffix}"
    predict_folder(BulkJob(str(thousand), str(calm)))
    kill_again_and_again(thousand, killed, num_kills=num_kills, pause=0.002, seed=num_kills)
    assert not killed.with_suffix(".parquet").exists()
    summary = predict_folder(BulkJob(str(thousand), str(killed)))
    assert 0 < summary.num_before < 1000
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        assert pq.read_table(killed).equals(pq.read_table(calm))
    else:
        assert killed.read_bytes() == calm.read_bytes()
        assert len(killed.read_bytes().splitlines()) == 1000 + (suffix == ".csv")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_output_truncated_anywhere_is_completed(folder, tmp_path, suffix):
    calm = tmp_path / f"calm{suffix}"
    predict_folder(BulkJob(str(folder), str(calm)))
    whole = calm.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole), 25):
        calm.write_bytes(whole[:size])
        predict_folder(BulkJob(str(folder), str(calm)))
        assert calm.read_bytes() == whole


def test_unusual_file_names_are_found_again(tmp_path):
    folder = tmp_path / "voices"
    folder.mkdir()
    names = ["=cmd.wav", 'a "b", c.wav', "line\nbreak.wav", "ünïcode 🎧.wav"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"not utf-8 \xff.wav"))
    for number, name in enumerate(names):
        soundfile.write(folder / "x.wav", voice_and_pauses([(0.1, 0.1)], seed=number), RATE)
        (folder / "x.wav").rename(folder / name)
    for suffix in (".jsonl", ".csv", ".parquet"):
        if suffix == ".parquet":
            pytest.importorskip("pyarrow")
        output = tmp_path / f"out{suffix}"
        predict_folder(BulkJob(str(folder), str(output)))
        before = output.read_bytes()
        assert predict_folder(BulkJob(str(folder), str(output))).num_before == len(names)
        assert output.read_bytes() == before
    rows = read_rows(tmp_path / "out.jsonl")
    assert {Path(row["source"]).name for row in rows} == set(names)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(names)


def test_shards_partition_the_folder(folder, tmp_path):
    names = []
    for number in (1, 2, 3):
        output = tmp_path / f"{number}.jsonl"
        predict_folder(BulkJob(str(folder), str(output), shard=(number, 3)))
        names.append([row["source"] for row in read_rows(output)])
    assert sorted(chain.from_iterable(names)) == sorted(find_recordings(folder))
    assert max(map(len, names)) - min(map(len, names)) <= 1
    assert choose_shard(range(5), 1, 7) == range(0, 1)
    for text in ("0/3", "4/3", "3", "a/b", "-1/2"):
        with pytest.raises(ValueError, match="shard is"):
            parse_shard(text)


def test_new_files_follow_at_the_end(tmp_path):
    folder, output = write_folder(tmp_path / "voices", 10), tmp_path / "out.jsonl"
    predict_folder(BulkJob(str(folder), str(output)))
    soundfile.write(folder / "a first one.wav", voice_and_pauses([(0.1, 0.2)]), RATE)
    assert predict_folder(BulkJob(str(folder), str(output))).num_before == 10
    assert Path(read_rows(output)[-1]["source"]).name == "a first one.wav"


KILLED_AT_THE_TABLE = """
import os, signal, sys
import pyarrow.parquet
import emoser.bulk
from emoser.bulk import BulkJob, predict_folder
from support.fakes import formula_classifier
emoser.bulk.open_job_classifier = lambda job: formula_classifier()
write = pyarrow.parquet.ParquetWriter.write_table
def die(*words):
    write(*words)
    os.kill(os.getpid(), signal.SIGKILL)
pyarrow.parquet.ParquetWriter.write_table = die
predict_folder(BulkJob(sys.argv[1], sys.argv[2]))
"""


def test_a_kill_while_the_table_is_written_loses_no_row_and_leaves_no_file(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    folder, output = write_folder(tmp_path / "voices", 10), tmp_path / "out" / "rows.parquet"
    output.parent.mkdir()
    predict_folder(BulkJob(str(folder), str(output)))
    whole = sorted(item.name for item in output.parent.iterdir())
    soundfile.write(folder / "new.wav", voice_and_pauses([(0.1, 0.2)]), RATE)
    command = [sys.executable, "-c", KILLED_AT_THE_TABLE, str(folder), str(output)]
    assert subprocess.run(command, env=ENVIRONMENT).returncode == -signal.SIGKILL
    assert len(pq.read_table(output)) == 10
    predict_folder(BulkJob(str(folder), str(output)))
    assert str(folder / "new.wav") in pq.read_table(output)["source"].to_pylist()
    assert sorted(item.name for item in output.parent.iterdir()) == whole


def test_parquet_holds_the_rows_with_a_column_per_label(folder, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out.parquet"
    predict_folder(BulkJob(str(folder), str(output)))
    table = pq.read_table(output).to_pylist()
    assert [row["source"] for row in table] == find_recordings(folder)
    good = [row for row in table if row["error"] is None]
    assert len(good) == 58
    assert all(sum(row[label] for label in LABELS) == pytest.approx(1.0) for row in good)


def test_two_processes_cannot_write_one_output(folder, tmp_path):
    output = tmp_path / "out.jsonl"
    worker = subprocess.Popen(
        [sys.executable, WORKER, folder, output, "1"], stdout=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        while not (output.exists() and output.stat().st_size):
            time.sleep(0.01)
        with pytest.raises(BlockingIOError, match="Another process"):
            predict_folder(BulkJob(str(folder), str(output)))
    finally:
        worker.kill()
        worker.wait()


def test_other_files_are_never_overwritten(folder, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("precious\n")
    with pytest.raises(FileExistsError, match="not written by a bulk job"):
        predict_folder(BulkJob(str(folder), str(output)))
    assert output.read_text() == "precious\n"


def test_a_job_with_another_model_is_refused(folder, tmp_path):
    output = tmp_path / "out.jsonl"
    predict_folder(BulkJob(str(folder), str(output)))
    with pytest.raises(FileExistsError, match="another labels, model"):
        predict_folder(BulkJob(str(folder), str(output), model="other", labels="ekman"))
    predict_folder(BulkJob(str(folder), str(output), device="cpu"))


def test_invalid_jobs_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="suffix must be one of"):
        predict_folder(BulkJob(str(folder), str(tmp_path / "out.xlsx")))
    with pytest.raises(ValueError, match="engine is 'spark'"):
        BulkJob("a", "b.csv", engine="spark")
    with pytest.raises(ValueError, match="shard is 3 of 2"):
        BulkJob("a", "b.csv", shard=(3, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no audio file"):
        predict_folder(BulkJob(str(tmp_path / "empty"), str(tmp_path / "a.csv")))
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        predict_folder(BulkJob(str(tmp_path / "missing"), str(tmp_path / "a.csv")))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match=r"emoser\[parquet\]"):
        predict_folder(BulkJob(str(folder), str(tmp_path / "a.parquet")))


def test_the_command_writes_and_counts(folder, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    words = ["predict", str(folder), "--output", str(output), "--shard", "2/3"]
    assert main(words) == 3
    assert "20 recordings" in capsys.readouterr().err
    assert main(words) == 3
    assert "20 of them before" in capsys.readouterr().err
    assert len(read_rows(output)) == 20
    for wrong in (["--json"], ["--shard", "9/3"]):
        assert main([*words, *wrong]) == 2
