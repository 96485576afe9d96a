"""`DemoOptions`: where the demo listens and what its visitors may do. Plain values."""

from dataclasses import dataclass

from emoser.checkpoints.resolve import DEFAULT_MODEL

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860  # the one that Gradio and the Hub's Spaces use
DEFAULT_MEGABYTES = 1000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LAST_PORT = 65_535


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo listens and what its visitors may do.

    Attributes:
        models: What visitors may choose; the first one is open at the start.
        any_model: Whether visitors may type a folder or a Hub id, and choose from the catalog.
            A folder is read and a Hub checkpoint downloaded by the machine that shows the page.
        host: The address to listen on; only this machine reaches the default.
        port: The port to listen on.
        max_megabytes: The largest upload.
        device: Where models run, as for `EmotionClassifier.from_pretrained`, like the others.
        dtype: In which precision.
        backend: By which engine.

    Example:
        >>> DemoOptions().any_model, DemoOptions(models=("emoser-tiny",), port=8000).port
        (False, 8000)
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    any_model: bool = False
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    max_megabytes: int = DEFAULT_MEGABYTES
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be shown.

        Raises:
            ValueError: If there is no model, or the port or the size is out of range.
        """
        if not self.models or not all(self.models):
            raise ValueError(f"models is {self.models}; name at least one, such as {DEFAULT_MODEL}")
        if not 1 <= self.port <= LAST_PORT:
            raise ValueError(f"port is {self.port}; it must be from 1 to {LAST_PORT}")
        if self.max_megabytes < 1:
            raise ValueError(f"max_megabytes is {self.max_megabytes}; it must be at least 1")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    return host in LOOPBACK
