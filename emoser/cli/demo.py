"""`emoser demo`: serve the web page of `emoser.demo`."""

import argparse
from contextlib import suppress

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.cli.options import MODEL_HELP, RUNTIME, select, shared, value
from emoser.json_text import format_json

DESCRIPTION = (
    "Serve a web page that analyses uploads, recordings and the live microphone, until Ctrl-C. By "
    "default only this machine can reach it. It makes no connections to other machines, except to "
    "download Hub checkpoints."
)
OPTIONS = {
    "--model": value(
        f"{MODEL_HELP}; repeat to offer several, the first is preselected "
        f"(default: {DEFAULT_MODEL})",
        action="append",
        metavar="MODEL",
    ),
    **shared(*RUNTIME),
    "--host": value("address to listen on", "127.0.0.1"),
    "--port": value("", 7860),
    "--any-model": value(
        "let visitors enter any folder of this machine or Hub id (default: only if no other "
        "machine can reach the page)",
        action=argparse.BooleanOptionalAction,
    ),
    "--max-megabytes": value("maximum size of an upload", 1000),
    "--allow-host": value(
        "name under which browsers reach the page, such as that of a proxy; repeat for several",
        action="append",
        metavar="NAME",
    ),
    **shared("--json"),
}


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from emoser.demo import DemoOptions, is_loopback, serve

    any_model = options.any_model
    demo = DemoOptions(
        models=tuple(options.model or [DEFAULT_MODEL]),
        allowed_hosts=tuple(options.allow_host or ()),
        any_model=is_loopback(options.host) if any_model is None else any_model,
        **select(options, "host", "port", "max_megabytes", "device", "dtype", "backend"),
    )

    def announce(address: str) -> None:
        shown = format_json({"address": address}) if options.json else f"{address} (Ctrl-C stops)"
        print(shown, flush=True)

    with suppress(KeyboardInterrupt):  # the normal way to stop the server
        serve(demo, announce=announce)
    return 0
