"""`emoser demo`: serve the web page of `emoser.demo`."""

import argparse
import json
from typing import Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.cli.options import MODEL_HELP, RUNTIME, add_options, select


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="serve a web page for uploads and the microphone",
        description="Serve a web page that analyses uploads, recordings and the live microphone, "
        "until Ctrl-C. By default only this machine can reach it. It makes no connections to "
        "other machines, except to download Hub checkpoints.",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help=f"{MODEL_HELP}; repeat to offer several, the first is preselected "
        f"(default: {DEFAULT_MODEL})",
    )
    add_options(parser, *RUNTIME)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--any-model",
        action=argparse.BooleanOptionalAction,
        help="let visitors enter any folder of this machine or Hub id (default: only if no other "
        "machine can reach the page)",
    )
    parser.add_argument(
        "--max-megabytes",
        type=int,
        default=1000,
        help="maximum size of an upload (default: %(default)s)",
    )
    add_options(parser, "--json")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from emoser.demo import DemoOptions, is_loopback, serve

    any_model = options.any_model
    demo = DemoOptions(
        models=tuple(options.model or [DEFAULT_MODEL]),
        any_model=is_loopback(options.host) if any_model is None else any_model,
        **select(options, "host", "port", "max_megabytes", "device", "dtype", "backend"),
    )

    def announce(address: str) -> None:
        shown = json.dumps({"address": address}) if options.json else f"{address} (Ctrl-C stops)"
        print(shown, flush=True)

    try:
        serve(demo, announce=announce)
    except KeyboardInterrupt:
        return 0  # the normal way to stop the server
    return 0
