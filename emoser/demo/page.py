"""The page itself: `Visits` behind components of Gradio, and the server that shows it.

Everything comes from this machine: no font, script, count of visitors or check for updates is
asked of another one. Gradio is imported by the functions that need it.
"""

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emoser.demo.options import DemoOptions, is_loopback
from emoser.demo.sessions import Visits
from emoser.errors import DeviceError, missing_extra

STYLE = Path(__file__).with_name("page.css")
MICROPHONE = Path(__file__).with_name("microphone.js")
KEPT_SECONDS = 900  # of what nobody took back
SWEEP_SECONDS = 60
FONTS = ("system-ui", "sans-serif")
MONOSPACED = ("ui-monospace", "monospace")
TITLE = "What emotion does this voice carry?"
LIVE = """<button type="button" class="emoser-button" aria-pressed="false">Turn the microphone
on</button><div class="emoser-live"></div>"""
NOTICE = """<div class="emoser-notice"><p>Recordings stay on {where}. They are deleted when you
clear or replace them and when you leave the page, and after {minutes} minutes at the latest. The
live microphone is not stored.</p><p>An emotion read from a voice is a guess about expression, not
a fact about a person. Do not use it to hire, grade, police or diagnose anybody.</p></div>"""


def build_app(options: DemoOptions) -> Any:
    """The page as a `gradio.Blocks`, which `serve` shows.

    Raises:
        DependencyError: If Gradio is not installed.
    """
    _require_gradio()
    return _compose(Visits(options))


def _require_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise missing_extra("the demo", "demo") from error


def _compose(visits: Visits) -> Any:
    import gradio as gr

    options = visits.options
    where = "this machine" if is_loopback(options.host) else "the machine that shows this page"

    def leave(request: gr.Request) -> None:
        visits.forget(str(request.session_hash))

    with gr.Blocks(
        title="emoser", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)
    ) as app:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="emoser-title")
        model = gr.Dropdown(
            list(visits.shelf.names),
            value=options.models[0],
            label="Model",
            info="A folder or a Hub id may be typed, too." if options.any_model else None,
            allow_custom_value=options.any_model,
            interactive=True,
            elem_id="model",
        )
        with gr.Tab("A recording"):
            _add_recording(visits, model)
        with gr.Tab("Live"):
            _add_live(visits)
        gr.HTML(NOTICE.format(where=where, minutes=KEPT_SECONDS // 60))
        app.unload(leave)
    return app


def _add_recording(visits: Visits, model: Any) -> None:
    import gradio as gr

    shown = gr.Progress()
    with gr.Row():
        upload = gr.File(label="Any audio or video file", elem_id="upload")
        recorder = gr.Audio(
            sources=["microphone"],
            type="filepath",
            editable=False,
            buttons=[],
            label="or your own voice",
            elem_id="recorder",
        )
    answer = gr.HTML(elem_id="answer")

    def hear(
        path: str | None, name: str, request: gr.Request, progress: Any = shown
    ) -> Iterator[tuple[str, None]]:
        yield "", None  # what was said about another recording goes at once
        if path is not None:
            yield visits.hear(str(request.session_hash), Path(path), name, progress), None

    def hear_again(name: str, request: gr.Request, progress: Any = shown) -> str:
        return visits.hear_again(str(request.session_hash), name, progress)

    def forget(request: gr.Request) -> str:
        return visits.forget(str(request.session_hash))

    private: dict[str, Any] = {"api_visibility": "private"}
    watched = {**private, "show_progress_on": answer}
    upload.upload(hear, [upload, model], [answer, recorder], **watched)
    recorder.stop_recording(hear, [recorder, model], [answer, upload], **watched)
    model.input(hear_again, model, answer, **watched)
    for component in (upload, recorder):
        component.clear(forget, None, answer, **private)


def _add_live(visits: Visits) -> None:
    """A microphone of our own: that of Gradio leaves sound out while an answer is under way."""
    import gradio as gr

    def hear_voice(message: Any) -> str:
        return visits.hear_voice(message)

    gr.HTML(
        LIVE,
        elem_id="live",
        js_on_load=MICROPHONE.read_text(encoding="utf-8"),
        server_functions=[hear_voice],
    )


def serve(options: DemoOptions, *, announce: Callable[[str], None] | None = None) -> None:
    """Show the page until Ctrl-C or a polite kill; what visitors sent is deleted at the end.

    Meant for a process of its own: while it runs, the folder of Gradio's uploads, which an
    environment variable names, is a temporary one.

    Args:
        options: Where, and what visitors may do.
        announce: Called with the address when the page is there.

    Raises:
        CheckpointError: If the first model does not load.
        DependencyError: If Gradio is not installed.
        DeviceError: If the address or the port is not free.
    """
    _require_gradio()
    _require_port(options)
    with _own_folder(), _kill_as_interrupt():
        visits = Visits(options)
        visits.shelf.open(options.models[0])
        app = _compose(visits)
        _, address, _ = app.launch(**_launch_arguments(options))
        try:
            if announce is not None:
                announce(address)
            threading.Event().wait()
        finally:
            visits.close()
            app.close(verbose=False)


def _require_port(options: DemoOptions) -> None:
    """Try the port before anything is loaded: a model may take minutes."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((options.host, options.port))
    except OSError as error:
        raise DeviceError(
            f"port {options.port} of {options.host} cannot be opened ({error.strerror}); choose "
            "another one"
        ) from error


def _launch_arguments(options: DemoOptions) -> dict[str, Any]:
    import gradio as gr

    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=MONOSPACED)
    theme.set(block_info_text_color="*body_text_color", block_label_text_color="*body_text_color")
    return {
        "server_name": options.host,
        "server_port": options.port,
        "max_file_size": f"{options.max_megabytes}mb",
        "theme": theme,
        "css_paths": STYLE,
        "share": False,
        "inline": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
    }


@contextmanager
def _own_folder() -> Iterator[None]:
    """Uploads go into a folder that ends with the server."""
    former = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="emoser-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            if former is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = former


@contextmanager
def _kill_as_interrupt() -> Iterator[None]:
    """A polite kill cleans up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
