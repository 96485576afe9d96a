"""The models of a demo: which names visitors may choose, and those that are open.

Knows nothing of pages. Several threads may ask at once; each model is opened by one of them.
"""

import threading
from collections import OrderedDict

from emoser.checkpoints.catalog import CATALOG
from emoser.checkpoints.resolve import bundled_names
from emoser.classifier import EmotionClassifier
from emoser.demo.options import DemoOptions
from emoser.errors import CheckpointError

NUM_OPEN = 2  # models kept in memory; large ones take gigabytes


class Shelf:
    """Opens models by name and keeps those that were asked for last.

    Example:
        >>> shelf = Shelf(DemoOptions())
        >>> shelf.names
        ('emoser-tiny',)
        >>> shelf.open("emoser-tiny") is shelf.open("emoser-tiny")
        True
    """

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._open: OrderedDict[str, EmotionClassifier] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """What visitors are offered: the models of the options, then what emoser knows by name."""
        known: tuple[str, ...] = ()
        if self._options.any_model:
            known = (*bundled_names(), *(entry.name for entry in CATALOG))
        return tuple(dict.fromkeys((*self._options.models, *known)))

    def open(self, name: str) -> EmotionClassifier:
        """The classifier of that name, opened if it is not yet.

        Raises:
            CheckpointError: If it is none that visitors may choose, or does not load.
            HubError: If it cannot be fetched.
        """
        if not self._options.any_model and name not in self._options.models:
            allowed = ", ".join(self._options.models)
            raise CheckpointError(f"model {name!r} is not offered here; choose one of {allowed}")
        with self._lock:
            if name not in self._open:
                self._open[name] = EmotionClassifier.from_pretrained(
                    name,
                    device=self._options.device,
                    dtype=self._options.dtype,
                    backend=self._options.backend,
                )
            self._open.move_to_end(name)
            while len(self._open) > NUM_OPEN:
                self._open.popitem(last=False)
            return self._open[name]
