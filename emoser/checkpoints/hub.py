"""Download checkpoints from the Hugging Face Hub, pinned to one commit, and upload them.

Every failure raises a `HubError` that states its cause in one sentence and within seconds: the
Hub is first asked without retries, before huggingface_hub downloads. Downloaded files are
compared with the hash that the Hub states. In offline mode no request is made.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoser.checkpoints.files import ADAPTER
from emoser.errors import HubError

SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "golden.json",
    "trained_on.json",
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
"""Names of weight files by format, safest first; a format needs a file for each of its names."""
TIMEOUT_SECONDS = 10.0
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
STATUSES: Mapping[int | None, tuple[str, str]] = {
    401: ("gated", "needs a valid token; pass token= or log in with `hf auth login`"),
    403: ("gated", "may not be read with this token; ask for access on its page"),
    404: ("not-found", "was not found: the Hub answers 404"),
    429: ("rate-limited", "was refused: too many requests to the Hub; wait, or pass token="),
}
"""The reason and the rest of the sentence for the statuses of responses."""
UNREACHABLE = ("network", "server", "rate-limited")
"""Reasons of a `HubError` after which the cached copy is used."""


@dataclass(frozen=True)
class HubOptions:
    """How a checkpoint is downloaded.

    Attributes:
        revision: Branch, tag or commit; the default branch if None.
        cache_dir: Cache folder; the default of huggingface_hub if None.
        local_files_only: Use the cache only and make no request.
        token: Access token for gated or private checkpoints.
    """

    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None


def fetch(name: str, options: HubOptions) -> Path:
    """Download what is missing of a checkpoint; its folder in the cache, named after its commit.

    Raises:
        HubError: If the checkpoint cannot be downloaded; `reason` is the cause in one word.
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
    """The files of a repository that emoser needs; empty if none of them holds weights.

    Example:
        >>> choose_files(["config.json", "model.safetensors", "pytorch_model.bin", "x.py"])
        ['config.json', 'model.safetensors']
    """
    present = sorted(names)
    for patterns in WEIGHTS:
        found = [[name for name in present if re.fullmatch(each, name)] for each in patterns]
        if all(found):
            small = [name for name in SMALL_FILES if name in present]
            return [*small, *itertools.chain.from_iterable(found)]
    return []


def check_name(repo_id: str) -> None:
    """Check that a repository id is well-formed; no request is made.

    Raises:
        HubError: If the id is not of the form owner/name.
    """
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _explained(repo_id):
        validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise HubError(f"{repo_id} has no owner; name it owner/{repo_id}", reason="not-found")


def address_of(repo_id: str) -> str:
    """The URL of the page of a repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo_id}"


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | bool | None) -> str:
    """Upload a folder as one commit and return the URL of the commit.

    The repository is created if it does not exist.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _explained(repo_id, failed="could not be uploaded"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload with emoser"
        )
    return str(commit.commit_url)


def _download(name: str, options: HubOptions) -> Path:
    from huggingface_hub import HfApi

    with _explained(name, options.revision):
        info = HfApi(token=options.token).model_info(
            name, revision=options.revision, timeout=TIMEOUT_SECONDS
        )
        present = [item.rfilename for item in info.siblings or ()]
        if ADAPTER in present:
            raise HubError(
                f"{name} holds an adapter of PEFT, and emoser loads merged weights; merge it into "
                "its base with peft's merge_and_unload() and load the folder that it saves",
                reason="no-weights",
            )
        files = choose_files(present)
        if not files:
            kinds = "; ".join(" with ".join(kind).replace("\\", "") for kind in WEIGHTS)
            raise HubError(
                f"{name} holds no weights that emoser reads ({kinds})", reason="no-weights"
            )
        commit = str(info.sha)
        missing = [file for file in files if _find_file(name, file, commit, options) is None]
        hashes = {file: _request_hash(name, file, commit, options) for file in missing}
        folder = _snapshot(name, commit, files, options, local_files_only=not missing)
        for file, stated in hashes.items():
            _verify(folder / file, stated, name)
    known = _find_file(name, files[0], options.revision, options)
    if known is None or known.parent.name != commit:
        with suppress(*_faults()):  # a cache that is read-only
            # Records the commit of the branch or tag; the files are in the cache already.
            _snapshot(name, options.revision, files[:1], options)
    return folder


def _snapshot(
    name: str,
    revision: str | None,
    files: Sequence[str],
    options: HubOptions,
    *,
    local_files_only: bool = False,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Progress(tqdm):
        """A bar on a terminal and none in a pipe."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.setdefault("disable", None)
            super().__init__(*args, **settings)  # type: ignore[no-untyped-call]

    folder = snapshot_download(
        name,
        revision=revision,
        allow_patterns=list(files),
        cache_dir=options.cache_dir,
        token=options.token,
        local_files_only=local_files_only,
        tqdm_class=Progress,
    )
    return Path(folder)


def _find_file(name: str, file: str, revision: str | None, options: HubOptions) -> Path | None:
    """The path of a file in the cache, or None if it is not there; no request is made."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, cache_dir=options.cache_dir, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _request_hash(name: str, file: str, commit: str, options: HubOptions) -> str:
    """The hash that the Hub states for a file, from one request without retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    metadata = get_hf_file_metadata(
        hf_hub_url(name, file, revision=commit), token=options.token, timeout=TIMEOUT_SECONDS
    )
    return str(metadata.etag or "")


def _verify(path: Path, stated: str, name: str) -> None:
    """Compare a file with its hash: SHA-256 of large files, the git blob hash of small ones.

    A file that differs is removed.
    """
    if SHA256.fullmatch(stated):
        digest = hashlib.sha256()
    elif GIT_SHA1.fullmatch(stated):
        header = f"blob {path.stat().st_size}\0".encode()
        digest = hashlib.sha1(header, usedforsecurity=False)
    else:
        return
    with path.open("rb") as opened:
        if hashlib.file_digest(opened, lambda: digest).hexdigest() == stated:
            return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise HubError(
        f"{name}: the downloaded {path.name} does not match the hash that the Hub states; it was "
        "removed from the cache, try again",
        reason="broken-file",
    )


def _find_cached(name: str, options: HubOptions) -> Path:
    at = "" if options.revision is None else f" at {options.revision!r}"
    try:
        folder = _snapshot(name, options.revision, SMALL_FILES[:1], options, local_files_only=True)
    except _faults() as error:
        raise HubError(
            f"{name} is not in the cache{at}; download it once with a network connection",
            reason="not-cached",
        ) from error
    if not choose_files(item.name for item in folder.iterdir()):
        raise HubError(
            f"{name} is in the cache{at} without its weights; download it once with a network "
            "connection",
            reason="not-cached",
        )
    return folder


def _faults() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises: its own errors, those of its HTTP library, bad responses."""
    from huggingface_hub.errors import HfHubHTTPError

    return (HfHubHTTPError, _http_library().HTTPError, OSError, ValueError, KeyError)


@contextmanager
def _explained(
    name: str, revision: str | None = None, *, failed: str = "could not be downloaded"
) -> Iterator[None]:
    """Raise the errors of huggingface_hub inside the block as a `HubError` of one sentence."""
    try:
        yield
    except HubError:
        raise
    except _faults() as error:
        from huggingface_hub.errors import LocalEntryNotFoundError

        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        reason, sentence = _explain(cause or error, revision, failed)
        raise HubError(f"{name} {sentence}", reason=reason) from error


def _explain(error: BaseException, revision: str | None, failed: str) -> tuple[str, str]:
    """The reason in one word, and the rest of the sentence that begins with the name."""
    from huggingface_hub import errors

    httpx, line = _http_library(), _first_line(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    other = ("server", f"{failed}: the Hub answers {status}; try again later")
    offline = "check the network, or use a folder or the bundled emoser-small, which need none"
    kinds: Sequence[tuple[type[Exception], str, str]] = (
        (errors.GatedRepoError, "gated", "is gated; ask for access on its page and pass token="),
        (errors.RevisionNotFoundError, "no-revision", f"has no revision {revision!r}"),
        (errors.EntryNotFoundError, "no-file", f"has a file missing: {line}"),
        (errors.HFValidationError, "not-found", f"is not a valid Hub id: {line}"),
        (
            errors.RepositoryNotFoundError,
            "not-found",
            "does not exist on the Hub or is private; check the name or pass token=",
        ),
        (errors.HfHubHTTPError, *STATUSES.get(status, other)),
        (httpx.TooManyRedirects, "server", f"{failed}: the Hub redirects in a loop; {offline}"),
        (httpx.TimeoutException, "network", f"{failed}: the Hub does not respond; {offline}"),
        (httpx.HTTPError, "network", f"{failed}: no connection to the Hub ({error}); {offline}"),
    )
    for kind, reason, sentence in kinds:
        if isinstance(error, kind):
            return reason, sentence
    cause = f"{type(error).__name__}: {line}"
    return "broken-file", f"{failed}: the response is not from the Hub or is damaged ({cause})"


def _first_line(error: BaseException) -> str:
    """The first line of a message that has an address, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "/" in line), lines[0] if lines else "")


def _http_library() -> Any:
    """The HTTP library of this version of huggingface_hub: httpx, from 2.0 on httpx2."""
    from huggingface_hub import utils

    return utils.httpx  # type: ignore[attr-defined]
