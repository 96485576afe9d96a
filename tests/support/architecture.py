"""The import graph of the package and the rules that it must obey.

    python tests/support/architecture.py [PACKAGE_FOLDER]

prints the counts, then each import that breaks a rule. All imports are read from the source,
including those inside functions. Imports under TYPE_CHECKING must respect the order of the rooms
but are ignored in the search for cycles and in the counts. A checkout whose tests declare another
order of rooms is measured against that order.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "emoser"
ROOMS = (
    ("_version", "errors", "text"),
    ("json_text", "labels", "metrics", "telemetry"),
    ("audio", "models", "results"),
    ("checkpoints",),
    ("runtimes",),
    ("inference",),
    ("classifier",),
    ("streaming", "bulk", "bench"),
    ("serve",),
    ("demo",),
    ("cli",),
)
"""From the bottom up. A room may import from itself and from the rows above it in this list."""

SIDES = {"export": "runtimes", "finetune": "inference"}
"""Side rooms: each may import from the room named here and from all rooms below that one. Only the
command line may import from a side room."""

PARTS = {
    "runtimes": (
        ("__init__", "processor"),
        ("torch", "conversion", "onnx", "openvino", "manifest", "cache", "parallel", "speeds"),
        ("opening",),
    ),
    "finetune": (
        ("cpu_math", "progress", "settings"),
        ("config", "models", "recipes", "protocols", "corpora", "data"),
        ("training", "scoring"),
        ("experiments",),
    ),
}
"""The order within a room. A module or sub-package may import from its own row and those before."""

TORCH = ("emoser.models", "emoser.checkpoints", "emoser.runtimes.torch",
         "emoser.runtimes.conversion", "emoser.finetune")  # fmt: skip
"""Where torch, torchaudio and transformers may be imported."""

LATE_TORCH = ("emoser.bench", "emoser.inference.silero", "emoser.inference.diarization")
"""Where they may be imported inside functions."""

HEAVY = ("torch", "torchaudio", "transformers")
MAX_ROOT_MODULES = 12
DECLARED_IN = ("tests/support/architecture.py", "tests/test_rooms.py")


@dataclass(frozen=True)
class Import:
    """One import statement of the package.

    Attributes:
        source: The importing module.
        target: The imported module, of this package or another one.
        place: File and line.
        late: Whether it is inside a function.
        typing_only: Whether it is under TYPE_CHECKING.
    """

    source: str
    target: str
    place: str
    late: bool = False
    typing_only: bool = False

    def __str__(self) -> str:
        return f"{self.place} imports {self.target}"


def find_modules(package: Path) -> dict[str, Path]:
    """Module names and their files."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = (package.name, *file.relative_to(package).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def read_imports(package: Path) -> list[Import]:
    """All imports of a package."""
    modules = find_modules(package)
    return [
        Import(name, target, f"{package.name}/{file.relative_to(package).as_posix()}:{line}", *how)
        for name, file in modules.items()
        for target, line, *how in _read(ast.parse(file.read_text(encoding="utf-8")), modules)
    ]


def _read(
    node: ast.AST, modules: Iterable[str], late: bool = False, typing_only: bool = False
) -> Iterator[tuple[str, int, bool, bool]]:
    """The imports below a node: target, line, late, typing_only."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno, late, typing_only) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: use absolute imports"
        names = dict.fromkeys(f"{node.module}.{alias.name}" for alias in node.names)
        targets = dict.fromkeys(name if name in modules else str(node.module) for name in names)
        yield from ((target, node.lineno, late, typing_only) for target in targets)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _read(child, modules, late, True)
        for child in node.orelse:
            yield from _read(child, modules, late, typing_only)
    else:
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _read(child, modules, inside, typing_only)


def room_of(module: str) -> str | None:
    """The room of a module: "" for the package itself, None for other packages."""
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    return parts[1] if len(parts) > 1 else ""


def part_of(module: str) -> str:
    """The module or sub-package directly inside a room that a module belongs to."""
    return ".".join(module.split(".")[:3])


def ranks_of(rows: Iterable[Iterable[str]]) -> dict[str, int]:
    """The row number of each name."""
    return {name: rank for rank, row in enumerate(rows) for name in row}


def breaks_order(edge: Import, rows: Iterable[Iterable[str]], sides: Mapping[str, str]) -> bool:
    """Whether an import points to a room that is not below its own."""
    ranks = ranks_of(rows)
    own, other = room_of(edge.source), room_of(edge.target)
    if other is None or own == other or own in ("", "__main__"):
        return False
    if other in sides:
        return own != "cli"
    if own in sides:
        return ranks.get(other, len(ranks)) > ranks[sides[own]]
    return ranks.get(other, len(ranks)) >= ranks.get(own, -1)


def breaks_parts(edge: Import) -> bool:
    """Whether an import within a room points to a later row of `PARTS`."""
    room = room_of(edge.source)
    if room not in PARTS or room_of(edge.target) != room:
        return False
    ranks = ranks_of(PARTS[room])
    own, other = (_part_name(module) for module in (edge.source, edge.target))
    return ranks.get(other, -1) > ranks.get(own, len(ranks))


def _part_name(module: str) -> str:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 else "__init__"


def find_cycles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one node, each sorted."""
    reached = {node: _reach(node, arrows) for node in arrows}
    groups = {
        tuple(sorted(other for other in found if node in reached.get(other, ())))
        for node, found in reached.items()
        if node in found
    }
    return [list(group) for group in sorted(groups)]


def _reach(start: str, arrows: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    pending = [start]
    while pending:
        fresh = set(arrows.get(pending.pop(), ())) - seen
        seen |= fresh
        pending.extend(fresh)
    return seen


def arrows_between(
    imports: Iterable[Import], name: Callable[[str], str] = str
) -> dict[str, set[str]]:
    """Which nodes import which others; `name` maps a module to its node.

    The entry points `emoser` and `emoser.__main__` are left out.
    """
    arrows: dict[str, set[str]] = {}
    for edge in imports:
        if edge.typing_only or not room_of(edge.target) or room_of(edge.source) in ("", "__main__"):
            continue
        own, other = name(edge.source), name(edge.target)
        arrows.setdefault(own, set())
        arrows.setdefault(other, set())
        if own != other:
            arrows[own].add(other)
    return arrows


def declared_rooms(checkout: Path) -> tuple[tuple[tuple[str, ...], ...], dict[str, str]]:
    """The values of `ROOMS` and `SIDES` in the tests of a checkout; ours if it has none."""
    for file in (checkout / name for name in DECLARED_IN):
        if file.is_file():
            values = {
                node.targets[0].id: ast.literal_eval(node.value)
                for node in ast.parse(file.read_text(encoding="utf-8")).body
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id in ("ROOMS", "SIDES")
            }
            return values["ROOMS"], values.get("SIDES", {})
    return ROOMS, SIDES


def count_lines(folder: Path) -> int:
    """Lines of all Python files in a folder."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in folder.rglob("*.py"))


def measure(package: Path) -> dict[str, object]:
    """The counts by name."""
    imports = read_imports(package)
    rooms, sides = declared_rooms(package.parent)
    between = arrows_between(imports, lambda module: str(room_of(module)))
    readme = package.parent / "README.md"
    lines = count_lines(package)
    return {
        "modules at the root": len(list(package.glob("*.py"))),
        "rooms": len(between),
        "imports between rooms": sum(map(len, between.values())),
        "cycles of modules": len(find_cycles(arrows_between(imports))),
        "cycles of rooms": len(find_cycles(between)),
        "upward edges": len(find_upward(imports, rooms, sides)),
        "package lines": lines,
        "test lines per code line": f"{count_lines(package.parent / 'tests') / lines:.2f}",
        "README lines": len(readme.read_text(encoding="utf-8").splitlines()),
    }


def find_upward(
    imports: Iterable[Import],
    rooms: Iterable[Iterable[str]] = ROOMS,
    sides: Mapping[str, str] = SIDES,
) -> list[Import]:
    """The imports that point to a room not below their own, without those under TYPE_CHECKING."""
    return [edge for edge in imports if not edge.typing_only and breaks_order(edge, rooms, sides)]


def may_import_torch(edge: Import) -> bool:
    """Whether an import of torch, torchaudio or transformers is allowed where it is."""
    allowed = (*TORCH, *LATE_TORCH) if edge.late else TORCH
    return any(f"{edge.source}.".startswith(f"{name}.") for name in allowed)


def main() -> None:
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    for name, value in measure(package).items():
        print(f"{name:<26}{value:>8}")
    imports = read_imports(package)
    for edge in find_upward(imports, *declared_rooms(package.parent)):
        print(f"upward: {edge}")
    for cycle in find_cycles(arrows_between(imports)):
        print(f"cycle: {', '.join(cycle)}")


if __name__ == "__main__":
    main()
