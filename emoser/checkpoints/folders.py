"""From the folder that a user names to the folder that holds the checkpoint.

A run of emoser holds its checkpoint in `best/`, the cache of the Hub below `snapshots/`. A folder
that stands for several checkpoints, or for none, is refused with a sentence that says what it is.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from emoser.checkpoints.files import ADAPTER, GRAPH_MANIFEST, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.text import shorten

BEST = "best"  # of a run of emoser
SNAPSHOTS, REFS, REPOSITORY = "snapshots", "refs", "models--"  # in the cache of the Hub
STEP = re.compile(r"checkpoint-(\d+)")  # of transformers' Trainer
MAIN = "main"


def locate(folder: Path, revision: str | None = None) -> CheckpointFiles:
    """The files of the checkpoint that a folder stands for.

    Args:
        folder: A checkpoint, an exported graph, a run of emoser, or a repository in the cache of
            the Hub.
        revision: Branch, tag or commit in such a repository; "main" if None.

    Raises:
        CheckpointError: If the folder holds several checkpoints or an adapter, or the revision is
            not there.
    """
    name = folder.resolve().name
    files = CheckpointFiles(name, folder)
    if ADAPTER in files.stamps:
        raise CheckpointError(f"{folder} {describe_adapter(files)}")
    if files.has_weights or GRAPH_MANIFEST in files.stamps:
        return files
    if _holds_checkpoint(folder / BEST):
        return CheckpointFiles(name, folder / BEST)
    if (folder / SNAPSHOTS).is_dir():
        return _find_snapshot(_read_id(name), folder, revision or MAIN)
    inside = sorted(item for item in folder.iterdir() if item.is_dir())
    _refuse_steps(folder, [item for item in inside if STEP.fullmatch(item.name)])
    repositories = [item for item in inside if item.name.startswith(REPOSITORY)]
    if repositories:
        ids = [_read_id(item.name) for item in repositories]
        raise CheckpointError(
            f"{folder} is a cache of the Hub; name a model by its Hub id ({shorten(ids)}) and pass "
            "this folder as cache_dir"
        )
    below = [item for item in inside if _holds_checkpoint(item) or _holds_checkpoint(item / BEST)]
    if below:
        raise CheckpointError(
            f"{folder} is no checkpoint but holds {_enumerate(below)}; name one of them"
        )
    return files


def describe_adapter(files: CheckpointFiles) -> str:
    """What a folder with an adapter of PEFT is and what to do, after its name."""
    base = "its base"
    with suppress(CheckpointError):
        base = files.read_json(ADAPTER).get("base_model_name_or_path") or base
    return (
        f"holds an adapter of PEFT for {base}, and emoser loads merged weights; merge them with "
        "peft: PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(...)"
    )


def _read_id(name: str) -> str:
    """The Hub id of a repository in the cache."""
    return name.removeprefix(REPOSITORY).replace("--", "/")


def _holds_checkpoint(folder: Path) -> bool:
    files = CheckpointFiles(folder.name, folder)
    return files.has_weights or GRAPH_MANIFEST in files.stamps


def _find_snapshot(name: str, folder: Path, revision: str) -> CheckpointFiles:
    """A commit of a repository in the cache of the Hub, which has the layout of huggingface_hub."""
    reference = folder / REFS / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshots = sorted(item for item in (folder / SNAPSHOTS).iterdir() if item.is_dir())
    chosen = [item for item in snapshots if item.name == commit]
    if not chosen and revision == MAIN and len(snapshots) == 1:
        chosen = snapshots
    if not chosen:
        raise CheckpointError(
            f"{folder} is a repository in the cache of the Hub and holds no {revision!r}; pass "
            f"revision= with one of {_enumerate(snapshots) or 'its commits, of which none is here'}"
        )
    return CheckpointFiles(name, chosen[0], revision=chosen[0].name)


def _refuse_steps(folder: Path, steps: list[Path]) -> None:
    """Refuse the output folder of a Trainer, and name the checkpoint that it found the best."""
    if not steps:
        return
    newest = max(steps, key=lambda item: int(item.name.removeprefix("checkpoint-")))
    best = None
    with suppress(CheckpointError, TypeError):
        state = CheckpointFiles(newest.name, newest).read_json("trainer_state.json")
        best = Path(state.get("best_model_checkpoint")).name  # type: ignore[arg-type]
    advice = f"name its newest checkpoint, {newest}"
    if best is not None and (folder / best) in steps:
        advice = f"name its best checkpoint, {folder / best}"
    raise CheckpointError(
        f"{folder} is the output folder of a Trainer with {_enumerate(steps)}; {advice}"
    )


def _enumerate(folders: Iterable[Path]) -> str:
    return shorten([item.name for item in folders])
