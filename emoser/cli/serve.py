"""`emoser serve`: run the HTTP service of `emoser.serve`."""

import argparse
import sys
from dataclasses import replace
from typing import Any

from emoser.cli.options import MODEL_HELP, SHARED, Group, select, shared, value
from emoser.json_text import format_json
from emoser.serve.options import ServeOptions

DESCRIPTION = (
    "Serve predictions, timelines, embeddings and live audio over HTTP until SIGTERM or Ctrl-C. "
    "By default only this machine can reach it. Recordings are not stored, and nothing about them "
    "is logged. An option that is not given can be set in the environment, as EMOSER_SERVE_MODEL, "
    "EMOSER_SERVE_MAX_SECONDS and so on."
)


def _setting(name: str, text: str, **settings: Any) -> dict[str, Any]:
    """An option that is None unless it is given, so that the environment can state it."""
    default = getattr(ServeOptions, name)
    kind = {} if default is None else {"type": type(default)}
    shown = text if default is None else f"{text} (default: {default})"
    return value(shown, dest=name, **kind, **settings)


MODEL = {
    "--model": _setting("model", MODEL_HELP),
    "--device": _setting("device", "auto, cpu, cuda, cuda:1 or mps"),
    "--dtype": _setting("dtype", "auto, float32, bfloat16 or float16"),
    "--backend": _setting("backend", "auto, torch, openvino or onnx"),
    "--labels": _setting("labels", SHARED["--labels"]["help"]),
    "--streams": _setting("streams", "recordings at the same time on a CPU; 0 for one per core"),
}
OPTIONS = {
    **MODEL,
    "--host": value("address to listen on", "127.0.0.1"),
    "--port": value("port to listen on, or 0 for a free one", 8000),
    "--workers": value("processes, each with a model of its own", 1),
    **shared("--json"),
}
LIMITS = {
    "--max-requests": _setting("max_requests", "requests that run or wait"),
    "--max-sessions": _setting("max_sessions", "live sessions"),
    "--max-megabytes": _setting("max_megabytes", "size of an upload"),
    "--max-seconds": _setting("max_seconds", "seconds of audio"),
    "--timeout": _setting("timeout_seconds", "seconds until the answer"),
}
ACCESS = {
    "--token-file": _setting(
        "token_file", "file with one bearer token per line (default: no token is needed)"
    ),
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
SETTINGS = tuple(settings["dest"] for settings in (MODEL | LIMITS | ACCESS).values())


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from emoser.serve import serve
    from emoser.serve.options import is_loopback

    found = {name: item for name, item in select(options, *SETTINGS).items() if item is not None}
    lists = {name: tuple(item) for name, item in found.items() if isinstance(item, list)}
    settings = replace(ServeOptions.from_environment(), **{**found, **lists})
    if settings.token_file is None and not is_loopback(options.host):
        print(f"emoser: whoever reaches {options.host} may use this service", file=sys.stderr)

    def announce(address: str) -> None:
        shown = format_json({"address": address}) if options.json else f"{address} (Ctrl-C stops)"
        print(shown, flush=True)

    serve(settings, **select(options, "host", "port", "workers"), announce=announce)
    return 0
