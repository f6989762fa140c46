"""Adapters to a model hub and back, over huggingface_hub.

    <the hub's cache>/lora_scene/<user>--<name>/
    ├── refs/<revision>     the commit that it was when it was last looked at
    └── <commit>/           the adapter's own files

The token comes from the usual login (`hf auth login`, or `HF_TOKEN`); it is never printed or kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lora_scene.adapters.earlier_files import earlier_files
from lora_scene.adapters.folder import read_adapter, refuse_another
from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.embeddings import FOLDER
from lora_scene.adapters.formats.metadata import write_note
from lora_scene.adapters.hub_calls import (
    download,
    in_time,
    is_whole,
    plain_errors,
    redacted,
    status_of,
)
from lora_scene.adapters.staging import refuse_linked, staged_files
from lora_scene.adapters.untrusted import MAX_FILE_BYTES
from lora_scene.errors import HubError
from lora_scene.file_groups import written_together
from lora_scene.folder_lock import locked

ADAPTER_FILE = re.compile(rf"{re.escape(FILE)}|{FOLDER}/[A-Za-z0-9][A-Za-z0-9_-]*\.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
PICKLES = (".bin", ".pt", ".ckpt", ".pth", ".pkl")
MAX_FILES = 1000  # of an adapter: one a concept
OFFLINE_HINT = "HF_HUB_OFFLINE=1 takes what was fetched before"


@dataclass(frozen=True)
class Published:
    """What is on the hub now.

    Attributes:
        url: The commit.
        files: Path in the repository to size, bytes.
        left: Weights in the repository that are no file of this version.
    """

    url: str
    files: dict[str, int]
    left: tuple[str, ...] = ()


def publish(
    stage: Path, repo_id: str, *, private: bool = False, endpoint: str | None = None
) -> Published:
    """Upload a staged folder in one commit, then look whether all of it is there.

    What was uploaded before a failure is not sent again by the next try; without the commit
    nothing of it is visible.

    Args:
        stage: See `stage_adapter`.
        repo_id: Such as `user/name`; made if need be.
        private: Whether a new repository is private.
        endpoint: The hub; None for the usual one.

    Raises:
        HubError: The hub refused, failed, or does not show what was sent.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    refuse_linked(stage.rglob("*"))
    api = HfApi(endpoint=endpoint)
    expected = staged_files(stage)
    with plain_errors(repo_id, "nothing was published"):
        in_time(lambda: api.create_repo(repo_id, private=private, exist_ok=True))
        before = in_time(lambda: api.model_info(repo_id)).sha
    added = [CommitOperationAdd(name, stage / name) for name in expected]
    message = f"Upload {repo_id.rpartition('/')[2]}"
    failure: Exception | None = None
    try:
        in_time(
            lambda: api.create_commit(repo_id, added, commit_message=message),
            n_sent=sum(expected.values()),
        )
    except Exception as error:
        failure = error
    if failure and (status_of(failure) or 500) < 500:  # the hub refused
        with plain_errors(repo_id, "nothing was published"):
            raise failure
    told = "whether it was published" if failure else "it was sent, but"
    with plain_errors(repo_id, f"{told} could not be looked at"):
        shown = in_time(lambda: api.model_info(repo_id, files_metadata=True))
    if failure and shown.sha == before:
        with plain_errors(repo_id, "nothing was published"):
            raise failure
    there = shown.siblings or []
    _refuse_incomplete(repo_id, stage, there)
    weights = (one.rfilename for one in there if one.rfilename.endswith(".safetensors"))
    left = tuple(sorted(name for name in weights if name not in expected))
    return Published(redacted(f"{api.endpoint}/{repo_id}/commit/{shown.sha}"), expected, left)


def fetch_adapter(
    repo_id: str, *, revision: str | None = None, endpoint: str | None = None
) -> Path:
    """Download an adapter's weight files into the hub's cache, or find them there.

    Only safetensors files of the adapter layout are fetched, all of one commit. What the cache
    holds is compared with the hub's sizes and hashes, and fetched again where it differs. With
    `HF_HUB_OFFLINE=1` it is what was fetched last.

    Args:
        repo_id: Such as `user/name`.
        revision: Branch, tag or commit; the default branch when None.
        endpoint: The hub; None for the usual one.

    Returns:
        The folder that holds them.

    Raises:
        HubError: The hub does not have it, refuses it, or fails.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint)
    cache = Path(constants.HF_HUB_CACHE) / "lora_scene" / repo_id.replace("/", "--")
    ref = cache / "refs" / quote(revision or "default", safe="")
    with plain_errors(repo_id, "nothing was loaded", hint=OFFLINE_HINT):
        try:
            info = in_time(lambda: api.model_info(repo_id, revision=revision, files_metadata=True))
        except OfflineModeIsEnabled:
            return _fetched_before(repo_id, cache, ref)
        files = _adapter_files(repo_id, info.siblings or [])
        if COMMIT.fullmatch(str(info.sha)) is None:
            raise HubError("the hub names no commit", where=repo_id, got=ascii(info.sha)[:80])
        folder = cache / str(info.sha)
        for name, file in files.items():
            if not is_whole(folder / name, file):
                download(api, repo_id, file, commit=str(info.sha), path=folder / name)
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(str(info.sha))
    return folder


def copy_adapter(source: Path, out: Path) -> None:
    """Copy an adapter's own files to a new place, after all of them have been checked.

    A `LoraSceneWarning` tells of files of an earlier version that went, or stay.

    Args:
        source: Its folder.
        out: Where to; another version that was copied there is exchanged as a whole.

    Raises:
        AdapterError: The source holds no sound adapter, or `out` another one.
        FileError: A foreign file stands in the way, or the folder cannot be written.
    """
    adapter = read_adapter(source)
    names = [f"{FOLDER}/{concept.stem}.safetensors" for concept in adapter.concepts]
    names += [FILE] if adapter.modules else []
    note = write_note(adapter)  # a file may lack its own, taken out by another tool
    with locked(out):
        refuse_another(out, note, runs_alone=True)
        earlier = earlier_files(out, names, note)
        with written_together(out, obsolete=earlier.replaced) as aside:
            (aside / FOLDER).mkdir()
            for name in names:
                data = (source / name).read_bytes()  # apart: a full disk is told of `out`
                (aside / name).write_bytes(data)
        earlier.tell(out, adapter)


def _fetched_before(repo_id: str, cache: Path, ref: Path) -> Path:
    commit = ref.read_text().strip() if ref.is_file() else ""
    if COMMIT.fullmatch(commit) is None or not (cache / commit).is_dir():
        raise HubError(
            "HF_HUB_OFFLINE is set, and this was not fetched before",
            where=repo_id,
            hint="unset HF_HUB_OFFLINE once",
        )
    return cache / commit


def _adapter_files(repo_id: str, siblings: Sequence[Any]) -> dict[str, Any]:
    """Return what the hub says of each file of an adapter, by name."""
    files = {file.rfilename: file for file in siblings if ADAPTER_FILE.fullmatch(file.rfilename)}
    if not files:
        others = [file.rfilename for file in siblings]
        pickled = any(name.endswith(PICKLES) for name in others)
        raise HubError(
            "no adapter of lora_scene in this repository",
            where=repo_id,
            expected=f"{FILE} or {FOLDER}/<name>.safetensors",
            got=ascii(", ".join(others[:8])) or "nothing",
            hint="pickled files are never opened" if pickled else None,
        )
    if len(files) > MAX_FILES:
        raise HubError(
            "too many files for an adapter",
            where=repo_id,
            expected=f"at most {MAX_FILES}",
            got=f"{len(files):,}",
        )
    for name, file in files.items():
        if (file.size or 0) > MAX_FILE_BYTES:
            raise HubError("too large for an adapter", where=f"{repo_id}/{name}")
    return dict(sorted(files.items()))


def _refuse_incomplete(repo_id: str, stage: Path, siblings: Sequence[Any]) -> None:
    shown: Mapping[str, Any] = {file.rfilename: file for file in siblings}
    names = list(staged_files(stage))
    wrong = [n for n in names if n not in shown or not is_whole(stage / n, shown[n])]
    if wrong:
        raise HubError(
            "the hub does not show what was sent",
            where=repo_id,
            got=f"{len(wrong)} of {len(names)} files missing or of other content: {wrong[0]}",
            hint="run the same command again",
        )
