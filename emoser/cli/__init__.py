"""The command line, with one module per command.

Parsing and `--help` import neither NumPy nor torch, and of the commands only the chosen one. Errors
are printed to standard error as one sentence. Exit codes: 0 success, 2 usage, 3 input, 4 model,
5 environment, 130 interrupted.
"""

import argparse
import atexit
import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from emoser._version import __version__
from emoser.cli.options import add_groups, add_options
from emoser.errors import WRITE_FAULTS, EmoserError, disk_error
from emoser.text import printable_lines

EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_INTERRUPTED = 130
GC_THRESHOLD = 100_000  # new objects between two garbage collections
COMMANDS = {
    "predict": "print the emotion of recordings",
    "timeline": "print the emotions of a long recording over time",
    "listen": "print the emotions of live speech",
    "models": "list the checkpoints that have a short name",
    "doctor": "examine a checkpoint and this machine",
    "convert": "write a checkpoint of any layout as safetensors",
    "export": "write a checkpoint for ONNX Runtime or OpenVINO",
    "card": "print or write the model card of a checkpoint",
    "finetune": "train on your own recordings",
    "evaluate": "score a checkpoint on labelled recordings",
    "reproduce": "run an experiment of arXiv 2111.02735",
    "bench": "measure the speed of a checkpoint on this machine",
    "serve": "serve predictions, timelines, embeddings and live audio over HTTP",
    "demo": "serve a web page for uploads and the microphone",
}
"""What each does. Its module has DESCRIPTION, OPTIONS, `run` and, for related options, GROUPS."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The arguments after `emoser`; those of the process if None.
    """
    if arguments is None:
        _set_up_process()
    _escape_unencodable()
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # a full disk must not go unnoticed until Python ends
        return code
    except BrokenPipeError:
        _discard_output()  # the reader of a pipe has closed it
        return 0
    except (EmoserError, OSError, ValueError) as error:
        if options.debug:
            raise
        if isinstance(error, OSError) and not isinstance(error, EmoserError):
            error = _name_disk(error)
        print(f"emoser: {printable_lines(_explain(error))}", file=sys.stderr)
        builtin = EXIT_BAD_INPUT if isinstance(error, OSError) else EXIT_USAGE
        return getattr(error, "exit_code", builtin)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _set_up_process() -> None:
    """Tune the process, which belongs to the command alone."""
    _open_standard_streams()
    # Waiting OpenMP threads must sleep: on a shared core, spinning threads delay the one that they
    # wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Importing torch and transformers creates 400,000 permanent objects. Garbage collections
    # among them, and one at exit, took a quarter of the time to the first prediction.
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)


def _open_standard_streams() -> None:
    """Replace closed standard streams, so that no file takes their place and gets their text.

    `sys.stdin` stays None if standard input is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def _escape_unencodable() -> None:
    """Write as an escape what an encoding lacks, such as that of a file to which Windows redirects.

    A name that cannot be printed must not end a command after half of its rows.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = _Parser(prog="emoser", description="Speech emotion recognition.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"emoser {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose messages cannot control a terminal; a file name may stand for an option."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit."""
        super().error(printable_lines(message))


class _CommandParser(_Parser):
    """The parser of a command, whose module is imported once the command is chosen."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options of the command, and parse its arguments."""
        command = import_module(f"emoser.cli.{self.prog.split()[-1]}")
        self.description = command.DESCRIPTION
        add_options(self, command.OPTIONS)
        add_groups(self, getattr(command, "GROUPS", ()))
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.set_defaults(run=command.run, parser=self)
        return super().parse_known_args(args, namespace)


def _discard_output() -> None:
    """What is still buffered for standard output must not raise when Python ends."""
    with suppress(OSError):  # in a notebook there is no such descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _name_disk(error: OSError) -> OSError:
    """The error; if the disk is full, with its place, which the library names except for output."""
    if error.errno not in WRITE_FAULTS:
        return error
    if error.filename is None:
        _discard_output()
    return disk_error(error, error.filename or "standard output")


def _explain(error: Exception) -> str:
    """The message of an error, without the errno of the system's own errors."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; check the path"
    return str(error)
