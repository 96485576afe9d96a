"""README and guides are true: snippets print what they claim, commands run, links resolve."""

import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.voices import write_voices

from emoser import load_audio
from emoser.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "examples").rglob("*.md"))]
PAGES = [
    page
    for page in PAGES
    if page.name not in ("card.md", "card_small.md") and "space" not in page.parts
]
MAX_README_LINES = 180
MAX_CHANGELOG_LINES = 50
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.S | re.M)


RTTM = """SPEAKER call 1 0.10 2.00 <NA> <NA> anna <NA> <NA>
SPEAKER call 1 2.40 1.80 <NA> <NA> ben <NA> <NA>
SPEAKER call 1 4.70 1.90 <NA> <NA> anna <NA> <NA>
"""


def name_of(page):
    return f"{page.parent.name}/{page.stem}"


def blocks(page, language, *, run=True):
    """Code blocks of a page in one language; those marked `no-test` with `run=False`."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [code for name, info, code in found if name == language and ("no-test" in info) != run]


def commands(page, *, run):
    """Commands of the bash blocks of a page, without comments and installations."""
    for block in blocks(page, "bash", run=run):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words and words[:2] != ["pip", "install"] and words != ["pytest"]:
                    yield command.split("  #")[0].strip()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with the files that the pages talk about."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "recordings").mkdir()
    sides = [load_audio(ROOT / "examples" / "audio" / name) for name in ("loud.flac", "plain.wav")]
    length = min(map(len, sides))
    call = np.stack([side[:length] for side in sides], axis=1)
    soundfile.write(folder / "call.wav", np.concatenate([call] * 3), 16_000)
    (folder / "call.rttm").write_text(RTTM, encoding="utf-8")
    for name in ("loud.flac", "plain.wav"):
        (folder / "recordings" / name).symlink_to(ROOT / "examples" / "audio" / name)
    for seed, table in enumerate(("calls", "new-calls")):
        (folder / table).mkdir()
        place = folder / table
        rows = write_voices(place, 48, num_voices=6, noise=0.01, suffix=".wav", seed=seed)
        lines = [f"{path},{label},{6 * seed + voice}" for path, label, voice in rows]
        (folder / f"{table}.csv").write_text("\n".join(["path,label,speaker", *lines]))
        ratings = [
            f"{path},{1 + index % 7},{2 if label == 'sad' else 6},{6 * seed + voice}"
            for index, (path, label, voice) in enumerate(rows)
        ]
        if table == "calls":
            votes = [f"{path},{voice},{label},sad" for path, label, voice in rows]
            (folder / "votes.csv").write_text("\n".join(["path,speaker,label_1,label_2", *votes]))
            several = [f"{path},{voice},{label};calm" for path, label, voice in rows]
            (folder / "several.csv").write_text("\n".join(["path,speaker,labels", *several]))
        name = table.replace("calls", "ratings")
        (folder / f"{name}.csv").write_text("\n".join(["path,arousal,valence,speaker", *ratings]))
    return folder


def run(command):
    """Exit code of an `emoser` command of a page; `> FILE` is obeyed."""
    words = shlex.split(command, comments=True)
    assert words.pop(0) == "emoser"
    if ">" not in words:
        return main(words)
    *words, _, output = words
    with Path(output).open("w") as file, redirect_stdout(file):
        return main(words)


def test_the_first_snippet_is_on_the_first_screen_and_prints_its_output():
    assert README.read_text(encoding="utf-8").splitlines().index("```python") < 20
    code = blocks(README, "python")[0]
    expected = re.search(r"^# (.+)$", code.splitlines()[-1]).group(1)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_snippets_run_from_top_to_bottom(page, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    names = {"__name__": "page"}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)


# They train, and open every engine in a process of its own.
LONG_PAGES = ("guides/fine-tuning", "benchmarks/README")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in LONG_PAGES)
        )
        for page in PAGES
    ],
)
def test_commands_run(page, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    for command in commands(page, run=True):
        assert run(command) == 0, command


def options_of(command, capsys):
    """The help text of an emoser command, or the source of a script of the repository."""
    if command.endswith(".py"):
        return (ROOT / command).read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_not_run_name_existing_files_and_options(page, capsys):
    for command in commands(page, run=False):
        words = shlex.split(command, comments=True)
        if words[0] == "pytest":
            assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
            continue
        place = words.index("emoser") + 1 if "emoser" in words else 1
        text = options_of(words[place], capsys)
        assert not [word for word in words[place:] if word.startswith("--") and word not in text]


def shell_examples():
    """Commands after `$ ` in console blocks, with the lines that follow them."""
    for page in PAGES:
        for block in blocks(page, "console"):
            for example in block.split("$ ")[1:]:
                command, _, output = example.partition("\n")
                yield command.strip(), output.strip()


@pytest.mark.parametrize(("command", "output"), list(shell_examples()), ids=lambda text: text[:40])
def test_console_examples_print_what_they_say(command, output, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert run(command) == 0
    assert capsys.readouterr().out.strip() == output


def test_the_two_commands_are_the_first_shell_blocks():
    first, second = blocks(README, "bash")[:2]
    assert first.startswith("pip install") or first.startswith("python")
    assert "emoser predict examples/audio/" in first
    assert second.strip() == 'pip install -e ".[dev]" && pytest'
    assert second.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_and_changelog_are_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert len(changelog.splitlines()) <= MAX_CHANGELOG_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve_and_the_readme_lists_every_page(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", re.sub(FENCE, "", text))
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]
    if page != README:
        assert str(page.relative_to(ROOT)) in README.read_text(encoding="utf-8")


def test_no_committed_text_names_a_registry_host():
    files = subprocess.run(
        ["git", "ls-files", "*.md", "*.py", "*.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    host = re.compile(r"(files\.pythonhosted|pypi)\.(org|python)")
    assert not [name for name in files if host.search((ROOT / name).read_text(encoding="utf-8"))]
