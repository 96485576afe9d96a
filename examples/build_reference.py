"""Build the API reference from the docstrings as HTML: `build_reference.py DIR`.

    pip install "emoser[dev]"
    python examples/build_reference.py DIR && python -m webbrowser DIR/index.html

The public names of `emoser` and `emoser.finetune` come first, then all modules. Modules whose
optional dependency is not installed are reported and left out.
"""

import argparse
import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pdoc

import emoser

PUBLIC = ("emoser", "emoser.finetune")
FOOTER = f"emoser {emoser.__version__}"


def find_modules() -> list[str]:
    """Names of all importable modules of the package."""
    found, missing = list(PUBLIC), []
    for item in pkgutil.walk_packages(emoser.__path__, "emoser."):
        if item.name.endswith("__main__"):  # importing it runs the command
            continue
        try:
            import_module(item.name)
        except ImportError as error:
            missing.append(f"{item.name} ({error})")
            continue
        found += [item.name] if item.name not in found else []
    for line in missing:
        print(f"left out: {line}", file=sys.stderr)
    return found


def resolve_names(module: ModuleType) -> None:
    """Load the lazy names of a module, since pdoc reads only its dictionary."""
    for name in getattr(module, "__all__", ()):
        setattr(module, name, getattr(module, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    arguments = parser.parse_args()
    names = find_modules()
    for name in PUBLIC:
        resolve_names(import_module(name))
    # Types imported under TYPE_CHECKING are shown as text instead of links.
    warnings.filterwarnings("ignore", "Error parsing type annotation", UserWarning)
    pdoc.render.configure(docformat="google", footer_text=FOOTER)
    pdoc.pdoc(*names, output_directory=arguments.folder)
    print(f"{len(names)} modules in {arguments.folder / 'index.html'}")


if __name__ == "__main__":
    main()
