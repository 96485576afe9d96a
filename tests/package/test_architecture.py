"""Imports point downwards, form no cycle, and keep torch and transformers where they belong."""

import subprocess
import sys

import pytest
from support.architecture import (
    HEAVY,
    MAX_ROOT_MODULES,
    PACKAGE,
    PARTS,
    ROOMS,
    SIDES,
    Import,
    arrows_between,
    breaks_order,
    breaks_parts,
    find_cycles,
    find_modules,
    may_import_torch,
    part_of,
    read_imports,
    room_of,
)

IMPORTS = read_imports(PACKAGE)
MODULES = sorted(set(find_modules(PACKAGE)))
KNOWN = {room for row in ROOMS for room in row} | set(SIDES)


def imports_of(module):
    return [edge for edge in IMPORTS if edge.source == module]


def shown(edges):
    return "\n".join(map(str, edges))


def test_the_root_of_the_package_is_small():
    names = sorted(file.name for file in PACKAGE.glob("*.py"))
    assert len(names) <= MAX_ROOT_MODULES, names


def test_every_room_has_a_place_in_the_order():
    rooms = {room_of(module) for module in MODULES} - {"", "__main__"}
    assert rooms <= KNOWN
    parts = {room: {name for row in rows for name in row} for room, rows in PARTS.items()}
    for room, names in parts.items():
        found = {part_of(module).split(".")[2] for module in MODULES if room_of(module) == room
                 and module != f"emoser.{room}"}  # fmt: skip
        assert found <= names, f"{sorted(found - names)} of {room} have no place in PARTS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    wrong = [edge for edge in imports_of(module) if breaks_order(edge, ROOMS, SIDES)]
    assert not wrong, f"not below its room:\n{shown(wrong)}"


@pytest.mark.parametrize("room", PARTS)
def test_imports_within_a_room_follow_the_order_of_its_parts(room):
    wrong = [edge for edge in IMPORTS if room_of(edge.source) == room and breaks_parts(edge)]
    assert not wrong, f"not in the order of {room}:\n{shown(wrong)}"


@pytest.mark.parametrize(
    "name",
    [str, part_of, lambda module: str(room_of(module))],
    ids=["modules", "sub-packages", "rooms"],
)
def test_imports_form_no_cycle(name):
    cycles = find_cycles(arrows_between(IMPORTS, name))
    edges = [
        edge
        for cycle in cycles
        for edge in IMPORTS
        if not edge.typing_only
        and name(edge.source) != name(edge.target)
        and {name(edge.source), name(edge.target)} <= set(cycle)
    ]
    assert not cycles, f"cycles of {cycles}, made by\n{shown(edges)}"


def test_torch_and_transformers_are_imported_only_where_they_may_be():
    wrong = [
        edge
        for edge in IMPORTS
        if edge.target.split(".")[0] in HEAVY
        and not edge.typing_only
        and not may_import_torch(edge)
    ]
    assert not wrong, shown(wrong)


def edge(source, target, *, late=False):
    return Import(f"emoser.{source}", f"emoser.{target}", f"emoser/{source}.py:1", late)


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        ("cli.finetune", "finetune.config", False),
        ("bench.worker", "finetune.config", True),
        ("finetune.scoring.evaluation", "inference.scoring", False),
        ("finetune.scoring.evaluation", "classifier", True),
        ("export", "inference.scoring", True),
        ("results.prediction", "audio.quality", True),
        ("bulk", "streaming", True),
        ("audio.reader", "unknown", True),
    ],
    ids=lambda value: str(value),
)
def test_the_rule_itself(source, target, wrong):
    assert breaks_order(edge(source, target), ROOMS, SIDES) is wrong


def test_a_late_import_is_read_and_named_with_its_line(tmp_path):
    package = tmp_path / "emoser"
    (package / "audio").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").touch()
    (package / "audio" / "__init__.py").write_text(
        "def load():\n    if True:\n        from emoser import cli\n        import torch\n"
    )
    found = read_imports(package)
    assert [str(edge) for edge in found] == [
        "emoser/audio/__init__.py:3 imports emoser.cli",
        "emoser/audio/__init__.py:4 imports torch",
    ]
    assert all(edge.late for edge in found)
    assert breaks_order(found[0], ROOMS, SIDES)
    assert not may_import_torch(found[1])


LIGHT = (
    "emoser",
    "emoser.audio",
    "emoser.results.prediction",
    "emoser.classifier",
    "emoser.cli",
    "emoser.runtimes",
    "emoser.metrics",
    "emoser.checkpoints.resolve",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_neither_torch_nor_transformers(module):
    code = (
        f"import sys, {module}; "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), sys.modules.get('huggingface_hub'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] None"


@pytest.mark.parametrize("module", ["emoser", "emoser.cli"])
def test_importing_emoser_and_printing_help_load_no_numpy(module):
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
