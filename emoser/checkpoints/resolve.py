"""Find the files of a checkpoint by its name: bundled, a folder, in the catalog, or on the Hub.

huggingface_hub is imported only when a Hub checkpoint is requested.
"""

import os
import re
from pathlib import Path

from emoser.checkpoints.catalog import find_entry, find_recipe
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.checkpoints.hub import HubOptions, fetch
from emoser.errors import CheckpointError

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DEFAULT_MODEL = "emoser-small"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_checkpoint(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> CheckpointFiles:
    """The files of a checkpoint, fetched from the Hub where necessary.

    The name of a bundled checkpoint, a folder, a name of the catalog (`emoser models`) and a
    Hub id are tried in this order.

    Raises:
        CheckpointError: If the name is none of these.
        HubError: If a Hub checkpoint cannot be fetched.
    """
    name = os.fspath(model)
    if name in bundled_names():
        return CheckpointFiles(name, BUNDLED / name)
    if Path(name).is_dir():
        return as_files(name)
    entry = find_entry(name)
    if entry is not None or (HUB_ID.fullmatch(name) and not name.startswith(".")):
        cache = None if cache_dir is None else Path(cache_dir)
        folder = fetch(
            name if entry is None else entry.id,
            HubOptions(revision, cache, local_files_only, token),
        )
        return CheckpointFiles(name, folder, revision=folder.name)
    encoder = find_recipe(name)
    if encoder is not None:
        raise CheckpointError(
            f"model {name!r} is a recipe of the paper, which fine-tunes {encoder}; that encoder "
            "has no classification head yet: train one with emoser.finetune"
        )
    raise CheckpointError(
        f"model {name!r} is neither a bundled checkpoint ({', '.join(bundled_names())}) nor a "
        "folder, nor a name that `emoser models` lists, nor a Hub id of the form owner/name"
    )


def bundled_names() -> tuple[str, ...]:
    """Names of the checkpoints inside the package.

    Example:
        >>> "emoser-tiny" in bundled_names()
        True
    """
    if not BUNDLED.is_dir():
        return ()
    return tuple(sorted(item.parent.name for item in BUNDLED.glob("*/config.json")))
