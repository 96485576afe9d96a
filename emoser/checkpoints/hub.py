"""Fetch the files of a checkpoint from the Hub, at one commit, and put a folder there.

Every fault is one `HubError` that names its cause, within seconds: what the Hub says is asked
without retries before a file is fetched. What came is compared with the hash that the Hub
states. Offline, not a single request is made. Knows nothing of tensors.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoser.errors import HubError

SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "golden.json",
    "label_encoder.txt",
    "hyperparams.yaml",
    "tokens.txt",
)
WEIGHTS = (
    (r"model\.safetensors",),
    (r"model\.safetensors\.index\.json", r"model-\d+-of-\d+\.safetensors"),
    (r"pytorch_model\.bin",),
    (r"pytorch_model\.bin\.index\.json", r"pytorch_model-\d+-of-\d+\.bin"),
    (r"wav2vec2\.ckpt", r"model\.ckpt"),
    (r"model\.pt",),
)
"""Names of weight files, the safest kind first; a kind counts when all of its names are there."""
TIMEOUT_SECONDS = 10.0
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
BLOCK_BYTES = 2**20
WITHOUT_NETWORK = "check the network, or name a folder or the bundled emoser-tiny, which need none"
UNREACHABLE = ("network", "server", "rate-limited")
"""Reasons for which a copy in the cache is as good as an answer."""


@dataclass(frozen=True)
class HubOptions:
    """How the Hub is asked.

    Attributes:
        revision: Branch, tag or commit; the default branch when None.
        cache_dir: Where files are kept; huggingface_hub's default when None.
        local_files_only: Take everything from the cache, without any request.
        token: For gated or private checkpoints.
    """

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    token: str | bool | None = None

    @property
    def cache(self) -> str | None:
        """`cache_dir` as huggingface_hub takes it."""
        return None if self.cache_dir is None else os.fspath(self.cache_dir)


def fetch(name: str, options: HubOptions) -> Path:
    """The folder of a checkpoint in the cache, whose name is its commit.

    Raises:
        HubError: If it cannot be had; `reason` tells why.
    """
    from huggingface_hub.constants import is_offline_mode

    if options.local_files_only or is_offline_mode():
        return _find_cached(name, options)
    try:
        return _download(name, options)
    except HubError as error:
        if error.reason not in UNREACHABLE:
            raise
        try:
            return _find_cached(name, options)
        except HubError:
            raise error from error.__cause__


def choose_files(names: Iterable[str]) -> list[str]:
    """The files that emoser needs of those that a repository has; no weights give none.

    Example:
        >>> choose_files(["config.json", "model.safetensors", "pytorch_model.bin", "x.py"])
        ['config.json', 'model.safetensors']
    """
    there = sorted(names)
    for kind in WEIGHTS:
        found = [[name for name in there if re.fullmatch(pattern, name)] for pattern in kind]
        if all(found):
            small = [name for name in SMALL_FILES if name in there]
            return [*small, *itertools.chain.from_iterable(found)]
    return []


def check_name(repo_id: str) -> None:
    """Refuse what no repository can be called; nothing is asked.

    Raises:
        HubError: If the name is not of the form owner/name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise _explain(repo_id, None, error) from error
    if "/" not in repo_id:
        raise HubError(f"{repo_id} has no owner; name it owner/{repo_id}", reason="not-found")


def address_of(repo_id: str) -> str:
    """Where the page of a repository is."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo_id}"


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | bool | None) -> str:
    """Upload a folder as one commit, in a new repository where there is none; its address.

    Raises:
        HubError: If the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload with emoser"
        )
    except _faults() as error:
        fault = _explain(repo_id, None, error)
        sentence = str(fault).replace("could not be fetched", "could not be uploaded")
        raise HubError(sentence, reason=fault.reason) from error
    return str(commit.commit_url)


def _download(name: str, options: HubOptions) -> Path:
    from huggingface_hub import HfApi

    try:
        info = HfApi(token=options.token).model_info(
            name, revision=options.revision, timeout=TIMEOUT_SECONDS
        )
    except _faults() as error:
        raise _explain(name, options.revision, error) from error
    files = choose_files(item.rfilename for item in info.siblings or ())
    if not files:
        raise HubError(
            f"{name} holds no weights that emoser reads ({_list_kinds()})", reason="no-weights"
        )
    commit = str(info.sha)
    paths = [_fetch_file(name, file, commit, options) for file in files]
    folder = paths[-1].parent
    _remember(folder, options.revision or "main", commit)
    return folder


def _fetch_file(name: str, file: str, commit: str, options: HubOptions) -> Path:
    """One file in the cache, compared with its hash when it had to be fetched."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, file, cache_dir=options.cache, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    try:
        etag = _ask(name, file, commit, options)
        path = hf_hub_download(
            name, file, revision=commit, cache_dir=options.cache, token=options.token
        )
    except _faults() as error:
        raise _explain(name, options.revision, error) from error
    _verify(Path(path), etag, name)
    return Path(path)


def _ask(name: str, file: str, commit: str, options: HubOptions) -> str:
    """The hash that the Hub states for a file, asked once."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    metadata = get_hf_file_metadata(
        hf_hub_url(name, file, revision=commit), token=options.token, timeout=TIMEOUT_SECONDS
    )
    return str(metadata.etag or "")


def _verify(path: Path, etag: str, name: str) -> None:
    """Compare a file with its hash, and forget the file where they differ.

    Raises:
        HubError: If they differ.
    """
    if SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif GIT_SHA1.fullmatch(etag):
        header = f"blob {path.stat().st_size}\0".encode()
        digest = hashlib.sha1(header, usedforsecurity=False)
    else:
        return
    with path.open("rb") as opened:
        while block := opened.read(BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() == etag:
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise HubError(
        f"{name}: {path.name} came with another hash than the Hub states; it was removed from "
        "the cache, try again",
        reason="broken-file",
    )


def _remember(folder: Path, revision: str, commit: str) -> None:
    """Note in the cache which commit a branch or tag was, as huggingface_hub does.

    A cache that cannot be written to serves all the same.
    """
    references = (folder.parent.parent / "refs").resolve()
    note = (references / revision).resolve()
    if GIT_SHA1.fullmatch(revision) or references not in note.parents:
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(f".{note.name}.{os.getpid()}")
        temporary.write_text(commit, encoding="utf-8")
        temporary.replace(note)
    except OSError:
        return


def _find_cached(name: str, options: HubOptions) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name, revision=options.revision, cache_dir=options.cache, local_files_only=True
        )
    except _faults() as error:
        raise HubError(
            f"{name} is not in the cache{_at(options.revision)}; fetch it once with a network",
            reason="not-cached",
        ) from error
    folder = Path(found)
    if not choose_files(item.name for item in folder.iterdir()):
        raise HubError(
            f"{name} is in the cache without its weights; fetch it once with a network",
            reason="not-cached",
        )
    return folder


def _faults() -> tuple[type[Exception], ...]:
    """Everything that huggingface_hub raises: its own, its HTTP library's, and bad answers."""
    from huggingface_hub.errors import HfHubHTTPError

    return (HfHubHTTPError, _http_library().HTTPError, OSError, ValueError, KeyError)


def _explain(name: str, revision: str | None, error: Exception) -> HubError:
    """One sentence on a fault of the Hub, and its reason in one word."""
    from huggingface_hub import errors

    kinds: Sequence[tuple[type[Exception], str, str]] = (
        (errors.GatedRepoError, "gated", "is gated; ask for access on its page and pass token="),
        (errors.RevisionNotFoundError, "no-revision", f"has no revision {revision!r}"),
        (errors.EntryNotFoundError, "no-file", f"has a file missing: {_telling_line(error)}"),
        (errors.HFValidationError, "not-found", f"is no name of the Hub: {_telling_line(error)}"),
        (
            errors.RepositoryNotFoundError,
            "not-found",
            "does not exist on the Hub, or is private; check the name or pass token=",
        ),
    )
    for kind, reason, sentence in kinds:
        if isinstance(error, kind):
            return HubError(f"{name} {sentence}", reason=reason)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return _explain_status(name, int(status))
    return _explain_connection(name, error)


def _explain_status(name: str, status: int) -> HubError:
    sentences = {
        401: ("gated", "needs a valid token; pass token= or log in with `hf auth login`"),
        403: ("gated", "may not be read with this token; ask for access on its page"),
        404: ("not-found", "was not found: the Hub answers 404"),
        429: ("rate-limited", "was refused: too many requests to the Hub; wait, or pass token="),
    }
    reason, sentence = sentences.get(
        status, ("server", f"could not be fetched: the Hub answers {status}; try again later")
    )
    return HubError(f"{name} {sentence}", reason=reason)


def _explain_connection(name: str, error: Exception) -> HubError:
    httpx = _http_library()
    kinds: Sequence[tuple[type[Exception], str, str]] = (
        (httpx.TooManyRedirects, "server", "could not be fetched: the Hub redirects in a circle"),
        (httpx.TimeoutException, "network", "could not be fetched: the Hub does not answer"),
        (httpx.HTTPError, "network", f"could not be fetched: no connection to the Hub ({error})"),
    )
    for kind, reason, sentence in kinds:
        if isinstance(error, kind):
            return HubError(f"{name} {sentence}; {WITHOUT_NETWORK}", reason=reason)
    return HubError(
        f"{name} could not be fetched: what answered is not the Hub, or the file came broken "
        f"({type(error).__name__}: {_telling_line(error)})",
        reason="broken-file",
    )


def _telling_line(error: Exception) -> str:
    """The line of a message that names an address, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "/" in line), lines[0] if lines else "")


def _http_library() -> Any:
    """The HTTP library that this version of huggingface_hub uses."""
    from huggingface_hub import utils

    return utils.httpx  # type: ignore[attr-defined]


def _at(revision: str | None) -> str:
    return "" if revision is None else f" at {revision!r}"


def _list_kinds() -> str:
    return "; ".join(" with ".join(kind).replace("\\", "") for kind in WEIGHTS)
