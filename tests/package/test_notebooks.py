"""The notebooks run from top to bottom in a fresh kernel, without a network.

The first one runs by default, the others with `-m slow`. All of them with `-m "slow or not slow"`
and `--store-notebooks` also writes the outputs into the files:

    pytest tests/package/test_notebooks.py -m "slow or not slow" --store-notebooks
"""

import ast
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = "1_first_predictions"
MAX_BYTES = 200_000
TIMEOUT_SECONDS = 900  # a cell, on a machine that has other work


def read(file):
    return nbformat.read(file, as_version=4)


def sources(book, kind):
    return [cell.source for cell in book.cells if cell.cell_type == kind]


def store(book, file, folder):
    """Write a notebook with its outputs, without warnings, times and paths of this machine."""
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = [item for item in cell.outputs if item.get("name") != "stderr"]
            text = json.dumps(kept).replace(str(folder), "/tmp").replace(f"{ROOT}/", "")
            cell.outputs = [nbformat.from_dict(item) for item in json.loads(text)]
    book.metadata.pop("language_info", None)
    nbformat.write(book, file)


def by_name(files):
    marks = {QUICK: []}
    return [
        pytest.param(file, id=file.stem, marks=marks.get(file.stem, [pytest.mark.slow]))
        for file in files
    ]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_stored_with_outputs_and_opens_with_what_one_will_have(file):
    book = read(file)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert file.stat().st_size < MAX_BYTES
    text = file.read_text(encoding="utf-8")
    assert not re.search(rf"site-packages|/pytest-of-|{re.escape(str(Path.home()))}", text)
    assert str(ROOT) not in text
    assert book.cells[0].source.startswith("# ")
    assert "At the end you will" in book.cells[0].source


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_first_code_installs_emoser_where_it_is_missing_and_no_other_does(file):
    first, *others = sources(read(file), "code")
    assert 'if find_spec("emoser") is None:\n    %pip install -q ' in first
    assert not any("pip install" in source for source in others)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_between_notebooks_lead_somewhere(file):
    text = "\n".join(sources(read(file), "markdown"))
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert all((FOLDER / link).is_file() for link in links if not link.startswith("http"))


@pytest.mark.parametrize("file", by_name(NOTEBOOKS))
def test_it_runs_from_top_to_bottom_and_leaves_the_repository_alone(
    file, tmp_path, monkeypatch, request
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parents[1])]))
    before = sorted(FOLDER.parents[1].iterdir()), sorted(FOLDER.rglob("*"))
    book = read(file)
    client = NotebookClient(
        book,
        timeout=TIMEOUT_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    if request.config.getoption("store_notebooks"):
        store(book, file, tmp_path)
    assert (sorted(FOLDER.parents[1].iterdir()), sorted(FOLDER.rglob("*"))) == before


def test_python_in_notebooks_needs_no_private_name():
    for file in NOTEBOOKS:
        for source in sources(read(file), "code")[1:]:
            tree = ast.parse("\n".join(x for x in source.split("\n") if not x.startswith("!")))
            names = [
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("emoser")
                for alias in node.names
            ]
            assert not [name for name in names if name.startswith("_")]
