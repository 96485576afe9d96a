"""The command `emoser`: one function per sub-command, each of which calls the library and prints.

Parsing and `--help` import nothing heavy. Faults end in one sentence on the standard error and
an exit code: 0 fine, 2 usage, 3 bad input, 4 model, 5 environment, 130 interrupted.
"""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence

from emoser._version import __version__
from emoser.cli import (
    bench,
    card,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    finetune,
    listen,
    models,
    predict,
    reproduce,
    timeline,
)
from emoser.errors import EmoserError

EXIT_BAD_INPUT = 3
EXIT_INTERRUPTED = 130
NEW_OBJECTS = 100_000  # between two looks of Python for reference cycles
COMMANDS = (
    predict,
    timeline,
    listen,
    models,
    doctor,
    convert,
    export,
    card,
    finetune,
    evaluate,
    reproduce,
    bench,
    demo,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after `emoser`; those of the process when None.
    """
    if arguments is None:
        _set_up_process()
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except EmoserError as error:
        return _report(error, error.exit_code, debug=options.debug)
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except OSError as error:
        return _report(error, EXIT_BAD_INPUT, debug=options.debug)
    except ValueError as error:
        return _report(error, 2, debug=options.debug)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _set_up_process() -> None:
    """What the command may do to its process, which is its alone."""
    # Threads of torch that wait for one another sleep meanwhile: spinning, they take the core from
    # the very thread that all wait for when it is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Importing torch and transformers makes 400,000 objects that stay. Looking among them for
    # reference cycles again and again, and once more at the end, took a quarter of a first answer.
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every sub-command."""
    parser = argparse.ArgumentParser(
        prog="emoser", description="What emotion does a voice carry?", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"emoser {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        added = command.add_parser(commands)
        added.add_argument(
            "--debug", action="store_true", help="show the whole traceback of a fault"
        )
    return parser


def _report(error: Exception, code: int, *, debug: bool) -> int:
    if debug:
        raise error
    print(f"emoser: {_explain(error)}", file=sys.stderr)
    return code


def _explain(error: Exception) -> str:
    """The sentence of an error; the system's own begin with a number and end with the file."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; check the path"
    return str(error)


def _silence_stdout() -> None:
    """Let the interpreter close without a complaint after the reader of a pipe has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
