"""Find the files of a checkpoint by its name: bundled, a folder, in the catalog, or on the Hub.

huggingface_hub is imported only when a Hub checkpoint is requested.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from emoser.checkpoints.catalog import find_entry, find_recipe
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.folders import locate
from emoser.checkpoints.hub import HubOptions, fetch
from emoser.errors import CheckpointError, HubError

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DEFAULT_MODEL = "emoser-small"
HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?/?")
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
PAGE = re.compile(
    r"/?(?P<id>[\w-][\w.-]*/[\w.-]+)(/(tree|blob|resolve|commit)/(?P<revision>[^/]+)(?P<rest>/.*)?)?/?"
)
MISSING = ("not-found", "not-cached")
"""Reasons of a `HubError` after which a folder may have been meant."""


class HubName(NamedTuple):
    """A repository of the Hub, and the revision that its name or address states."""

    id: str
    revision: str | None


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
    Hub id or the address of its page are tried in this order. A folder may also be a run of
    emoser or a repository in the cache of the Hub.

    Raises:
        CheckpointError: If the name is none of these, or the folder holds no single checkpoint.
        HubError: If a Hub checkpoint cannot be fetched.
        ValueError: If the name states another revision than `revision`.
    """
    name = os.fspath(model)
    if name in bundled_names():
        return CheckpointFiles(name, BUNDLED / name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return locate(folder, revision)
    entry = find_entry(name)
    found = HubName(entry.id, None) if entry is not None else parse_hub_name(name)
    if found is not None:
        if revision and found.revision and revision != found.revision:
            raise ValueError(
                f"revision is {revision!r} and {name} names {found.revision!r}; leave one out"
            )
        cache = None if cache_dir is None else Path(cache_dir)
        options = HubOptions(revision or found.revision, cache, local_files_only, token)
        return _fetch(name, found.id, options)
    raise CheckpointError(_explain(name, folder))


def parse_hub_name(name: str) -> HubName | None:
    """The repository that an id, an id with a revision, or an address names; None for another name.

    Raises:
        CheckpointError: If an address is not that of a model.

    Example:
        >>> parse_hub_name("https://huggingface.co/org/name/tree/v1")
        HubName(id='org/name', revision='v1')
        >>> parse_hub_name("org/name@v1"), parse_hub_name("emoser-tiny")
        (HubName(id='org/name', revision='v1'), None)
    """
    matched = HUB_ID.fullmatch(name)
    if "://" not in name and name.split("/")[0] not in HUB_HOSTS:
        return None if matched is None else HubName(matched["id"], matched["revision"])
    parts = urlsplit(name if "://" in name else f"https://{name}")
    path = f"{parts.netloc}{parts.path}" if parts.scheme == "hf" else parts.path
    own = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if parts.scheme != "hf" and parts.netloc not in (*HUB_HOSTS, own):
        raise CheckpointError(
            f"model {name!r} is not on the Hub; download it to a folder and name that"
        )
    page = PAGE.fullmatch(path)
    if page is None or page["id"].split("/")[0] in ("datasets", "spaces", "models", "docs"):
        raise CheckpointError(
            f"model {name!r} is not the address of a model on the Hub, such as "
            "https://huggingface.co/owner/name"
        )
    if page["rest"] and "." not in page["rest"]:
        raise CheckpointError(
            f"model {name!r} is a folder inside a repository; download it and name its folder here"
        )
    return HubName(page["id"], page["revision"] and unquote(page["revision"]))


def bundled_names() -> tuple[str, ...]:
    """Names of the checkpoints inside the package.

    Example:
        >>> "emoser-tiny" in bundled_names()
        True
    """
    if not BUNDLED.is_dir():
        return ()
    return tuple(sorted(item.parent.name for item in BUNDLED.glob("*/config.json")))


def _fetch(name: str, repo_id: str, options: HubOptions) -> CheckpointFiles:
    try:
        folder = fetch(repo_id, options)
    except HubError as error:
        if error.reason in MISSING and repo_id == name:
            message = f"{error}; there is no folder {name} here either"
            raise HubError(message, reason=error.reason) from error
        raise
    return CheckpointFiles(name, folder, revision=folder.name)


def _explain(name: str, folder: Path) -> str:
    """What a name is that leads to no checkpoint."""
    if folder.is_file():
        return f"model {name!r} is a file; name the folder that it lies in, {folder.parent}"
    encoder = find_recipe(name)
    if encoder is not None:
        return (
            f"model {name!r} is a recipe of the paper, which fine-tunes {encoder}; that encoder "
            "has no classification head yet: train one with emoser.finetune"
        )
    if (
        folder.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") + name.count("\\") > 1
    ):
        return f"model {name!r} is a folder that does not exist; check the path"
    return (
        f"model {name!r} is neither a bundled checkpoint ({', '.join(bundled_names())}) nor a "
        "folder, nor a name that `emoser models` lists, nor a Hub id of the form owner/name"
    )
