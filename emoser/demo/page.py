"""The Gradio page of the demo, and its server.

The page makes no requests to other machines: no fonts, scripts, analytics or update checks.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.atomic import scratch_folder
from emoser.demo.sessions import Sessions
from emoser.errors import DeviceError, missing_extra

if TYPE_CHECKING:
    from emoser.demo import DemoOptions

STYLE = Path(__file__).with_name("page.css")
MICROPHONE = Path(__file__).with_name("microphone.js")
KEPT_SECONDS = 900  # lifetime of an upload
SWEEP_SECONDS = 60  # between checks for expired uploads
SCHEMES = ("http", "https")
FONTS = ("system-ui", "sans-serif")
MONOSPACED = ("ui-monospace", "monospace")
TITLE = "Speech emotion recognition"
LIVE = """<button type="button" class="emoser-button" aria-pressed="false">Turn the microphone
on</button><div class="emoser-live"></div>"""
NOTICE = """<div class="emoser-notice"><p>Recordings stay on {where}. They are deleted when you
clear or replace them, when you leave the page, and after {minutes} minutes at the latest. Live
audio is not stored.</p><p>The results are estimates of vocal expression, not facts about a person.
Do not use them for hiring, grading, policing or diagnosis.</p></div>"""


def build_app(options: "DemoOptions") -> Any:
    """The page as a `gradio.Blocks`.

    Raises:
        DependencyError: If Gradio is not installed.
    """
    _require_gradio()
    return _build(Sessions(options))


def _require_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise missing_extra("the demo", "demo") from error


def _build(sessions: Sessions) -> Any:
    import gradio as gr

    options = sessions.options
    where = "this machine" if options.is_local else "the server of this page"

    def leave(request: gr.Request) -> None:
        sessions.forget(str(request.session_hash))

    with gr.Blocks(
        title="emoser", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)
    ) as app:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_classes="emoser-title")
        model = gr.Dropdown(
            list(sessions.models.names),
            value=options.models[0],
            label="Model",
            info="You can also enter a folder or a Hub id." if options.any_model else None,
            allow_custom_value=options.any_model,
            interactive=True,
            elem_id="model",
        )
        with gr.Tab("Recording"):
            _add_recording(sessions, model)
        with gr.Tab("Live"):
            _add_live(sessions)
        gr.HTML(NOTICE.format(where=where, minutes=KEPT_SECONDS // 60))
        app.unload(leave)
    return app


def _add_recording(sessions: Sessions, model: Any) -> None:
    import gradio as gr

    shown = gr.Progress()
    separate = gr.Checkbox(
        label="Analyse the channels of a stereo recording separately", elem_id="channels"
    )
    with gr.Row():
        upload = gr.File(label="Audio or video file", elem_id="upload")
        recorder = gr.Audio(
            sources=["microphone"],
            type="filepath",
            editable=False,
            buttons=[],
            label="Microphone recording",
            elem_id="recorder",
        )
    result = gr.HTML(elem_id="result")

    def analyse(
        path: str | None, name: str, each: bool, request: gr.Request, progress: Any = shown
    ) -> Iterator[tuple[str, None]]:
        yield "", None  # clear the previous result at once
        if path is not None:
            session = str(request.session_hash)
            yield sessions.analyse(session, Path(path), name, progress, separate=each), None

    def analyse_again(name: str, each: bool, request: gr.Request, progress: Any = shown) -> str:
        return sessions.analyse_again(str(request.session_hash), name, progress, separate=each)

    def forget(request: gr.Request) -> str:
        return sessions.forget(str(request.session_hash))

    private: dict[str, Any] = {"api_visibility": "private"}
    watched = {**private, "show_progress_on": result}
    upload.upload(analyse, [upload, model, separate], [result, recorder], **watched)
    recorder.stop_recording(analyse, [recorder, model, separate], [result, upload], **watched)
    for chosen in (model, separate):
        chosen.input(analyse_again, [model, separate], result, **watched)
    for component in (upload, recorder):
        component.clear(forget, None, result, **private)


def _add_live(sessions: Sessions) -> None:
    """Add our own microphone: Gradio's drops audio while a result is being computed."""
    import gradio as gr

    def push_live(message: Any) -> str:
        return sessions.push_live(message)

    gr.HTML(
        LIVE,
        elem_id="live",
        js_on_load=MICROPHONE.read_text(encoding="utf-8"),
        server_functions=[push_live],
    )


def serve(options: "DemoOptions", *, announce: Callable[[str], None] | None = None) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then delete all uploads.

    Intended for a process of its own: it sets the environment variable of Gradio's upload folder
    to a temporary one while it runs.

    Args:
        options: Settings of the demo.
        announce: Called with the address when the page is available.

    Raises:
        CheckpointError: If the first model cannot be loaded.
        DependencyError: If Gradio is not installed.
        DeviceError: If the address or the port is not available.
    """
    _require_gradio()
    _require_port(options)
    with _temporary_uploads(), _sigterm_as_interrupt():
        sessions = Sessions(options)
        sessions.models.open(options.models[0])
        app = _build(sessions)
        _, address, _ = app.launch(**_launch_arguments(options))
        try:
            if announce is not None:
                announce(address)
            threading.Event().wait()
        finally:
            sessions.close()
            app.close(verbose=False)


def _require_port(options: "DemoOptions") -> None:
    """Check the port before the model is loaded, which can take minutes."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((options.host, options.port))
    except OSError as error:
        raise DeviceError(
            f"port {options.port} of {options.host} cannot be opened ({error.strerror}); choose "
            "another port or host"
        ) from error


def _launch_arguments(options: "DemoOptions") -> dict[str, Any]:
    import gradio as gr
    from starlette.middleware import Middleware

    from emoser.demo.guard import Guard
    from emoser.serve.access import Access

    origins = [f"{scheme}://{host}" for host in options.allowed_hosts for scheme in SCHEMES]
    access = Access((*options.allowed_hosts, options.host), origins)
    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=MONOSPACED)
    theme.set(block_info_text_color="*body_text_color", block_label_text_color="*body_text_color")
    return {
        "app_kwargs": {"middleware": [Middleware(Guard, access=access)]},
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
def _temporary_uploads() -> Iterator[None]:
    """Set Gradio's upload folder to a temporary one."""
    former = os.environ.get("GRADIO_TEMP_DIR")
    with scratch_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        try:
            yield
        finally:
            if former is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = former


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
