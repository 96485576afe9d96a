"""A web page that analyses uploads, recordings and the live microphone (extra `demo`).

`serve` runs it and `build_app` returns the Gradio app; both take `DemoOptions`. Importing this
package imports neither Gradio nor torch.
"""

from dataclasses import dataclass

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.demo.page import build_app, serve
from emoser.serve.options import is_loopback

__all__ = ["DemoOptions", "build_app", "is_loopback", "serve"]

MAX_PORT = 65_535


@dataclass(frozen=True)
class DemoOptions:
    """Settings of the demo.

    Attributes:
        models: The models that visitors can choose; the first one is loaded at the start.
        any_model: Whether visitors may also choose from the catalog and enter any folder or Hub
            id, which the server then reads or downloads.
        host: The address to listen on; only this machine can reach the default.
        port: The port to listen on, by default that of Gradio and of Spaces on the Hub.
        max_megabytes: Maximum size of an upload.
        allowed_hosts: Names under which browsers reach the page, beside localhost and any address
            in numbers; "*" for any name.
        device: As for `EmotionClassifier.from_pretrained`, like the next two.
        dtype: Precision of the models.
        backend: Engine of the models.

    Raises:
        ValueError: If there is no model, or the port or the size is out of range.

    Example:
        >>> DemoOptions().any_model, DemoOptions(models=("emoser-tiny",), port=8000).port
        (False, 8000)
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    any_model: bool = False
    host: str = "127.0.0.1"
    port: int = 7860
    max_megabytes: int = 1000
    allowed_hosts: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not self.models or not all(self.models):
            raise ValueError(f"models is {self.models}; name at least one, such as {DEFAULT_MODEL}")
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"port is {self.port}; it must be from 1 to {MAX_PORT}")
        if self.max_megabytes < 1:
            raise ValueError(f"max_megabytes is {self.max_megabytes}; it must be at least 1")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)
