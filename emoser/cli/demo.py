"""`emoser demo`: the page that hears uploads, recordings and the live microphone.

Knows only the options of the server; the page itself is `emoser.demo`.
"""

import argparse
import json
from typing import Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.cli.predict import add_run_options


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="open a page that hears uploads and the microphone",
        description="Show a page that hears uploads, recordings and the live microphone, until "
        "Ctrl-C. Only this machine reaches it unless --host says otherwise, and it asks nothing "
        "of any other machine.",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help=f"bundled name, folder or Hub id; the first of several is open ({DEFAULT_MODEL})",
    )
    add_run_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")
    parser.add_argument(
        "--any-model",
        action=argparse.BooleanOptionalAction,
        help="let visitors name folders of this machine and Hub ids; on if only this machine "
        "reaches the page",
    )
    parser.add_argument(
        "--max-megabytes", type=int, default=1000, help="of an upload (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the address as a JSON object")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Show the page until Ctrl-C."""
    from emoser.demo import DemoOptions, is_loopback, serve

    any_model = options.any_model
    demo = DemoOptions(
        models=tuple(options.model or [DEFAULT_MODEL]),
        any_model=is_loopback(options.host) if any_model is None else any_model,
        host=options.host,
        port=options.port,
        max_megabytes=options.max_megabytes,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
    )

    def announce(address: str) -> None:
        shown = json.dumps({"address": address}) if options.json else f"{address} (Ctrl-C stops)"
        print(shown, flush=True)

    try:
        serve(demo, announce=announce)
    except KeyboardInterrupt:
        return 0  # the way to stop a page
    return 0
