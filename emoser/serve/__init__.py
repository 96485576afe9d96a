"""An HTTP service of predictions, timelines, embeddings and live audio (extra `serve`).

`serve` runs it; `create_app` is a factory for `uvicorn --factory emoser.serve:create_app`, which
reads its settings from environment variables (`ServeOptions`). Importing this package imports
neither FastAPI nor torch.
"""

from typing import TYPE_CHECKING, Any

from emoser.errors import missing_extra
from emoser.serve.options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["ServeOptions", "create_app", "serve"]


def create_app(options: ServeOptions | None = None) -> "FastAPI":
    """The service as an ASGI application, with its model loaded.

    Args:
        options: The settings; those of the environment if None.

    Raises:
        CheckpointError: If the model cannot be loaded.
        DependencyError: If the extra `serve` is not installed.
        ValueError: If a setting is unsuitable.
    """
    _require_packages()
    from emoser.serve.app import build_app
    from emoser.serve.model import load_classifier

    settings = ServeOptions.from_environment() if options is None else options
    return build_app(settings, load_classifier(settings))


def serve(options: ServeOptions, **settings: Any) -> None:
    """Run the service until SIGTERM or Ctrl-C; see `emoser.serve.server.run_server`."""
    _require_packages()
    from emoser.serve.server import run_server

    run_server(options, **settings)


def _require_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra("the service", "serve") from error
