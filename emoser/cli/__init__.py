"""The command `emoser`: one function per sub-command, each of which calls the library and prints.

Parsing and `--help` import nothing heavy. Faults end in one sentence on the standard error and
an exit code: 0 fine, 2 usage, 3 bad input, 4 model, 5 environment, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from emoser import __version__
from emoser.cli import (
    convert,
    doctor,
    evaluate,
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
COMMANDS = (
    predict,
    timeline,
    listen,
    models,
    doctor,
    convert,
    finetune,
    evaluate,
    reproduce,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after `emoser`; those of the process when None.
    """
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
    print(f"emoser: {error}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Let the interpreter close without a complaint after the reader of a pipe has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
