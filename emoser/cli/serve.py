"""`emoser serve`: run the HTTP service of `emoser.serve`."""

import argparse
import json
import sys

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.cli.options import MODEL_HELP, RUNTIME, Group, select, shared, value
from emoser.serve.options import ServeOptions

HELP = "serve predictions, timelines, embeddings and live audio over HTTP"
DESCRIPTION = (
    "Serve predictions, timelines, embeddings and live audio over HTTP until SIGTERM or Ctrl-C. "
    "By default only this machine can reach it. Recordings are not stored, and nothing about them "
    "is logged."
)
OPTIONS = {
    "--model": value(MODEL_HELP, DEFAULT_MODEL),
    **shared(*RUNTIME, "--labels"),
    "--host": value("address to listen on", "127.0.0.1"),
    "--port": value("port to listen on, or 0 for a free one", 8000),
    "--workers": value("processes, each with a model of its own", 1),
    "--streams": value("recordings at the same time on a CPU; 0 for one per core", 0),
    **shared("--json"),
}
LIMITS = {
    "--max-requests": value("requests that run or wait", ServeOptions.max_requests),
    "--max-sessions": value("live sessions", ServeOptions.max_sessions),
    "--max-megabytes": value("size of an upload", ServeOptions.max_megabytes),
    "--max-seconds": value("seconds of audio", ServeOptions.max_seconds),
    "--timeout": value(
        "seconds until the answer", ServeOptions.timeout_seconds, dest="timeout_seconds"
    ),
}
ACCESS = {
    "--token-file": value("file with one bearer token per line (default: no token is needed)"),
    "--allow-host": value(
        "a name under which clients reach the service, beside localhost and addresses in numbers; "
        "* for any; repeat for several",
        action="append",
        dest="allowed_hosts",
        metavar="NAME",
    ),
    "--allow-origin": value(
        "another site whose pages may use the service, such as https://example.org",
        action="append",
        dest="allowed_origins",
        metavar="ORIGIN",
    ),
}
GROUPS = (
    Group(LIMITS, "limits", "What is beyond them is refused with a sentence."),
    Group(ACCESS, "access"),
)
SETTINGS = (
    "model", "labels", *(name.lstrip("-") for name in RUNTIME), "streams", "max_requests",
    "max_sessions", "max_megabytes", "max_seconds", "timeout_seconds", "token_file",
)  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from emoser.serve import serve
    from emoser.serve.options import is_loopback

    settings = ServeOptions(
        **select(options, *SETTINGS),
        allowed_hosts=tuple(options.allowed_hosts or ()),
        allowed_origins=tuple(options.allowed_origins or ()),
    )
    if settings.token_file is None and not is_loopback(options.host):
        print(f"emoser: whoever reaches {options.host} may use this service", file=sys.stderr)

    def announce(address: str) -> None:
        shown = json.dumps({"address": address}) if options.json else f"{address} (Ctrl-C stops)"
        print(shown, flush=True)

    serve(settings, **select(options, "host", "port", "workers"), announce=announce)
    return 0
