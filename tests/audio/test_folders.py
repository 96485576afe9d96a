"""Every folder is searched to its end, and what cannot be read is found too."""

import glob
import mimetypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from emoser.audio import load_audio
from emoser.audio.folders import find_recordings, is_recording, match_files
from emoser.finetune.corpora.tree import list_audio

CLIP = Path(__file__).parents[2] / "examples" / "audio" / "slow.ogg"
READ_AS_NOBODY = """
import os, sys
from emoser import load_audio
from emoser.audio.folders import find_recordings
from emoser.finetune.corpora.tree import list_audio
load_audio(os.path.join(sys.argv[1], "a.ogg"))  # nobody may be kept from modules loaded late
os.setuid(65534)
for name in find_recordings(sys.argv[1]):
    try:
        print(os.path.basename(name), len(load_audio(name)))
    except OSError as error:
        print(type(error).__name__, error)
for search in (find_recordings, list_audio):
    try:
        search(os.path.join(sys.argv[1], "closed"))
    except OSError as error:
        print(type(error).__name__, error)
"""


def nest(folder, depth, name="d"):
    """Folders within folders, whose whole path may be longer than the system opens."""
    folder.mkdir(exist_ok=True)
    here = os.getcwd()
    os.chdir(folder)
    try:
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
        shutil.copy(CLIP, "x.ogg")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def place(tmp_path):
    yield tmp_path / "place"
    subprocess.run(["rm", "-rf", tmp_path / "place"], check=True)  # shutil is recursive


def test_folders_are_searched_however_deep(place):
    folder = nest(place, 1500)
    expected = [os.path.join(str(folder), *["d"] * 1500, "x.ogg")]
    assert find_recordings(folder) == expected
    assert match_files(f"{folder}/**/*.ogg") == expected
    assert [str(path) for path in list_audio(folder)] == expected


def test_a_folder_whose_path_the_system_cannot_open_is_in_the_list(place):
    folder = nest(place, 30, name="d" * 200)
    shutil.copy(CLIP, folder)
    found = find_recordings(folder)
    assert found[0] == str(folder / CLIP.name)
    assert len(found) == 2
    with pytest.raises(OSError, match="too long"):
        os.scandir(found[1])
    assert match_files(f"{folder}/**/*.ogg") == sorted(found)
    with pytest.raises(OSError, match="cannot be searched"):
        list_audio(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_that_may_not_be_read_is_reported():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        for file in (folder / "a.ogg", folder / "closed" / "b.ogg"):
            file.write_bytes(CLIP.read_bytes())
        (folder / "closed").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", READ_AS_NOBODY, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("a.ogg ")
    assert lines[1].startswith("AudioPermissionError")
    assert "is a folder that may not be read; change its permissions" in lines[1]
    assert all("cannot be searched (permission denied)" in line for line in lines[2:4])
    assert len(lines) == 4


@pytest.mark.parametrize(
    "pattern", ["*.ogg", "**/*.ogg", "a/**/*.ogg", "**/c/*.ogg", "*/**/?.ogg", "a/**", "**/.h/*"]
)
def test_patterns_match_as_in_glob(tmp_path, pattern, monkeypatch):
    for name in ("1.ogg", "a/2.ogg", "a/b/c/3.ogg", "a/b/4.wav", "a/.h/5.ogg", ".6.ogg", "c/7.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for start in ("", f"{tmp_path}/", "./"):
        wanted = {
            item for item in glob.glob(start + pattern, recursive=True) if os.path.isfile(item)
        }
        assert match_files(start + pattern) == sorted(wanted)


# Types that Python knows and that hold no samples, or are not decoded.
NO_RECORDINGS = {
    ".ra",
    ".ram",
    ".rm",
    ".mid",
    ".midi",
    ".m3u",
    ".m3u8",
    ".pls",
    ".xm",
    ".s3m",
    ".ass",
}
NAMED = ".wav .wave .bwf .mp3 .mp2 .mpga .m4a .m4b .3gp .3g2 .awb .amr .weba .webm .mka .wma .spx"


def test_every_suffix_of_a_format_that_is_decoded_counts():
    table = mimetypes.MimeTypes().types_map[True]  # without the files of the system
    known = {suffix for suffix, kind in table.items() if kind.startswith("audio/")}
    missed = {suffix for suffix in known if not is_recording(f"a{suffix}")} - NO_RECORDINGS
    assert not missed
    for suffix in NAMED.split():
        assert is_recording(f"call{suffix}"), suffix
        assert is_recording(f"CALL{suffix.upper()}"), suffix


def test_every_suffix_that_ffmpeg_names_for_its_demuxers_counts():
    av = pytest.importorskip("av")
    pictures_and_parts = {"heic", "heif", "avif", "mj2", "ism", "ismv", "isma", "psp", "mks"}
    for demuxer in ("mov", "matroska", "mp3", "flac", "aac", "avi", "flv", "tta", "ogg", "eac3"):
        for suffix in av.format.ContainerFormat(demuxer, "r").extensions - pictures_and_parts:
            assert is_recording(f"call.{suffix}"), suffix


def test_companions_and_hidden_files_are_passed_over(tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    for name in ("call.wav", "._call.wav", ".call.wav", "__MACOSX/._call.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" + bytes(100))
    assert find_recordings(tmp_path) == [str(tmp_path / "call.wav")]
    assert list_audio(tmp_path) == [tmp_path / "call.wav"]
    assert match_files(f"{tmp_path}/**/*.wav") == [str(tmp_path / "call.wav")]
    with pytest.raises(ValueError, match="AppleDouble companion"):
        load_audio(tmp_path / "._call.wav")
