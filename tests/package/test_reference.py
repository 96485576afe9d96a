"""Every public name documents its arguments, its result, its errors and an example.

The examples run as doctests of their modules.
"""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import emoser
import emoser.finetune

ROOT = Path(__file__).parents[2]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (emoser, emoser.finetune)
    for name in module.__all__
}
# A constant has no docstring of its own; its module's source has it below the assignment.
CALLABLES = {name: item for name, item in PUBLIC.items() if callable(item)}
MEMBERS = {
    f"{name}.{key}": (item, value)
    for name, item in CALLABLES.items()
    if inspect.isclass(item)
    for key, value in vars(item).items()
    if not key.startswith("_")
    and (inspect.isfunction(value) or isinstance(value, classmethod | property))
}


def doc_of(item):
    if isinstance(item, classmethod):
        item = item.__func__
    return inspect.getdoc(item.fget if isinstance(item, property) else item) or ""


def examples(item):
    lines = doc_of(item).splitlines()
    return "\n".join(line for line in lines if line.startswith(("    >>>", "    ...")))


def parameters(item):
    function = item.__func__ if isinstance(item, classmethod) else item
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_name_has_a_docstring_with_an_example(name):
    assert doc_of(CALLABLES[name])
    assert examples(CALLABLES[name])


@pytest.mark.parametrize("name", MEMBERS)
def test_a_public_method_is_documented_and_shown_in_an_example(name):
    owner, item = MEMBERS[name]
    assert doc_of(item)
    if not isinstance(item, property):
        assert examples(item) or f".{name.split('.')[-1]}(" in examples(owner)


@pytest.mark.parametrize(
    "name", [name for name, item in CALLABLES.items() if not inspect.isclass(item)]
)
def test_a_public_function_explains_each_argument_and_what_it_raises(name):
    doc = doc_of(CALLABLES[name])
    missing = [key for key in parameters(CALLABLES[name]) if f"\n    {key}:" not in doc]
    assert not missing
    assert "Raises:" in doc


@pytest.mark.parametrize(
    "name",
    ["from_pretrained", "predict", "predict_batch", "timeline", "push_to_hub"],
)
def test_the_main_methods_explain_each_argument_and_what_they_raise(name):
    item = vars(emoser.EmotionClassifier)[name]
    assert not [key for key in parameters(item) if f"\n    {key}:" not in doc_of(item)]
    assert "Raises:" in doc_of(item)


@pytest.mark.parametrize(
    "name", [name for name, item in CALLABLES.items() if inspect.isclass(item)]
)
def test_every_field_of_a_result_or_setting_is_explained(name):
    item = CALLABLES[name]
    fields = [key for key in getattr(item, "__dataclass_fields__", {}) if key[0] != "_"]
    assert not [key for key in fields if f"\n    {key}:" not in doc_of(item)]


def test_names_in_the_readme_exist_and_are_documented():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(emoser(?:\.[a-z_]+)+)(?:\.([A-Za-z_]+))?`", text))
    for path, attribute in named:
        module, _, last = path.rpartition(".")
        try:
            item = import_module(path)
        except ModuleNotFoundError:
            item = getattr(import_module(module), last)
        assert doc_of(getattr(item, attribute) if attribute else item), path
    for module, names in re.findall(r"from (emoser[a-z_.]*) import ([\w, ]+)", text):
        for name in names.split(","):
            assert hasattr(import_module(module), name.strip())


def test_recipes_have_an_example():
    source = (ROOT / "emoser" / "finetune" / "recipes.py").read_text(encoding="utf-8")
    assert '>>> RECIPES["PF-hbt-large"]' in source


@pytest.mark.slow
def test_one_command_builds_the_pages(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "build_reference.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "emoser.html").read_text(encoding="utf-8")
    for name in emoser.__all__:
        assert f'id="{name}"' in page
    assert 'id="cross_validate"' in (tmp_path / "emoser" / "finetune.html").read_text()
