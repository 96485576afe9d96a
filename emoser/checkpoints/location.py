"""From what the user typed to a folder on this machine: bundled name, folder, or Hub id.

A Hub checkpoint is downloaded file by file at one resolved commit, safetensors only. Knows
nothing of tensors; huggingface_hub is imported only when a Hub id is asked for.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from emoser.errors import CheckpointError, HubError

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DEFAULT_MODEL = "emoser-tiny"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PATTERNS = ("config.json", "preprocessor_config.json", "README.md", "model*.safetensors*")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        name: What the user typed.
        folder: Where its files are.
        revision: The commit of a Hub checkpoint, else None.
    """

    name: str
    folder: Path
    revision: str | None = None


def find_checkpoint(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Checkpoint:
    """The checkpoint that a name stands for: a bundled one, a folder, or a Hub id, in this order.

    Raises:
        CheckpointError: If the name is neither.
        HubError: If a Hub id cannot be fetched.
    """
    name = os.fspath(model)
    if name in bundled_names():
        return Checkpoint(name, BUNDLED / name)
    if Path(name).is_dir():
        return Checkpoint(Path(name).resolve().name, Path(name))
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
    raise CheckpointError(
        f"model {name!r} is neither a bundled checkpoint ({', '.join(bundled_names())}) nor a "
        "folder nor a Hub id of the form owner/name"
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


def _download(
    name: str,
    *,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Checkpoint:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(PATTERNS),
        )
    # The Hub's client raises OSError, ValueError and its HTTP library's own errors.
    except Exception as error:
        raise _hub_error(name, revision, error) from error
    return Checkpoint(name, Path(folder), revision=Path(folder).name)


def _hub_error(name: str, revision: str | None, error: Exception) -> HubError:
    from huggingface_hub import errors

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "is gated; ask for access on its page and pass token="),
        (errors.RevisionNotFoundError, f"has no revision {revision!r}"),
        (errors.RepositoryNotFoundError, "does not exist on the Hub, or is private; pass token="),
        (errors.LocalEntryNotFoundError, "is not in the cache and the Hub cannot be reached"),
        (errors.OfflineModeIsEnabled, "is not in the cache and offline mode is on"),
    )
    for kind, reason in reasons:
        if isinstance(error, kind):
            return HubError(f"{name} {reason}")
    return HubError(f"{name} could not be fetched from the Hub: {type(error).__name__}: {error}")
