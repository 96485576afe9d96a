"""Imports only go downwards, there is no cycle, and nothing heavy is imported too low."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "emoser"
ROOMS = (
    ("errors",),
    ("labels", "audio", "windows", "text", "segments", "folders", "metrics"),
    ("configuration", "palette", "timeline_options"),
    ("svg", "notations"),
    ("prediction", "activity"),
    ("silero", "timeline", "segmentation", "rows"),
    ("scanning",),
    ("torchaudio_guard", "products"),
    ("pooling", "heads", "convolutions"),
    ("encoder",),
    ("spectral", "emotion2vec"),
    ("model",),
    ("checkpoints",),
    ("runtimes",),
    ("hearing", "telling"),
    ("listening",),
    ("classifier",),
    ("streaming", "live", "plots", "bulk", "export", "bench"),
    ("finetune", "demo"),
    ("cli",),
)
"""Each room may import from those above it in this list, and from its own."""

TORCH_ROOMS = {
    "torchaudio_guard",
    "pooling",
    "heads",
    "convolutions",
    "products",
    "encoder",
    "model",
    "finetune",
}
TORCH_ROOMS |= {"spectral", "emotion2vec"}
HEAVY = {"torch", "torchaudio", "transformers"}
RANKS = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


FILES = [
    file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.relative_to(PACKAGE).parts[0] not in ("__init__.py", "__main__.py")
]


MODULES = {
    ".".join(("emoser", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): file
    for file in FILES
}


def imports_of(file):
    """Modules that a file imports when it is imported itself (not inside functions)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES or node.module == "emoser" else node.module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            pending.extend(ast.iter_child_nodes(node))


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "emoser" and len(parts) > 1 else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_downwards(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANKS, f"{own} has no place in the list of rooms"
    for module in imports_of(file):
        room = room_of(module)
        if room is None or room == own:
            continue
        if room == "__version__":
            continue
        assert RANKS[room] < RANKS[own], f"{own} imports {module}, which is not below it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_import_one_another_without_cycles(file):
    seen, pending = set(), [file]
    while pending:
        for module in imports_of(pending.pop()):
            target = MODULES.get(module)
            assert target != file, f"{module} comes back to itself"
            if target is not None and target not in seen:
                seen.add(target)
                pending.append(target)


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
        f"print(sorted({HEAVY!r} & set(sys.modules)), sys.modules.get('huggingface_hub'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] None"


@pytest.mark.parametrize("module", ["emoser", "emoser.cli"])
def test_importing_emoser_and_printing_help_load_no_numpy(module):
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
