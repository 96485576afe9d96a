"""The README tells the truth: its snippet prints what it says, and its commands run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_first_snippet_is_on_the_first_screen_and_prints_its_output():
    assert README.splitlines().index("```python") < 20
    code = blocks("python")[0]
    expected = re.search(r"^# (.+)$", code.splitlines()[-1]).group(1)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def shell_examples():
    """Commands after `$ ` in console blocks, with the lines that follow them."""
    for block in blocks("console"):
        for example in block.split("$ ")[1:]:
            command, _, output = example.partition("\n")
            yield command.strip(), output.strip()


@pytest.mark.parametrize(("command", "output"), list(shell_examples()), ids=lambda text: text[:40])
def test_console_examples_print_what_they_say(command, output):
    words = command.replace("emoser ", f"{sys.executable} -m emoser ", 1)
    done = subprocess.run(words, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == output


def test_the_two_commands_are_the_first_shell_blocks():
    first, second = blocks("bash")[:2]
    assert first.startswith("pip install") or first.startswith("python")
    assert "emoser predict examples/audio/" in first
    assert second.strip() == 'pip install -e ".[dev]" && pytest'
    assert second.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


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
