"""The models that visitors of the demo can choose, and those that are loaded."""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from emoser.checkpoints.catalog import CATALOG
from emoser.checkpoints.resolve import bundled_names
from emoser.classifier import EmotionClassifier
from emoser.errors import CheckpointError

if TYPE_CHECKING:
    from emoser.demo import DemoOptions

MAX_MODELS = 2  # in memory; large ones take gigabytes


class ModelCache:
    """Loads models by name and keeps the most recently used ones; safe for use by threads.

    Example:
        >>> from emoser.demo import DemoOptions
        >>> cache = ModelCache(DemoOptions())
        >>> cache.names
        ('emoser-small',)
        >>> cache.open("emoser-small") is cache.open("emoser-small")
        True
    """

    def __init__(self, options: "DemoOptions") -> None:
        self._options = options
        self._models: OrderedDict[str, EmotionClassifier] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The models of the options and, if any model is allowed, the bundled and catalog ones."""
        known: tuple[str, ...] = ()
        if self._options.any_model:
            known = (*bundled_names(), *(entry.name for entry in CATALOG))
        return tuple(dict.fromkeys((*self._options.models, *known)))

    def open(self, name: str) -> EmotionClassifier:
        """The classifier of that name, loaded if necessary.

        Raises:
            CheckpointError: If visitors may not choose it, or it cannot be loaded.
            HubError: If it cannot be downloaded.
        """
        if not self._options.any_model and name not in self._options.models:
            allowed = ", ".join(self._options.models)
            raise CheckpointError(f"model {name!r} is not available here; choose one of {allowed}")
        with self._lock:
            if name not in self._models:
                self._models[name] = EmotionClassifier.from_pretrained(
                    name,
                    device=self._options.device,
                    dtype=self._options.dtype,
                    backend=self._options.backend,
                )
            self._models.move_to_end(name)
            while len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
            return self._models[name]
