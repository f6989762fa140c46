"""Adapters to a model hub and back, over huggingface_hub.

The token comes from the usual login (`hf auth login`, or `HF_TOKEN`); it is never printed or kept.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lora_scene.adapters.adapter_folder import read_adapter, remove_others
from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.embeddings import FOLDER
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.adapters.gallery import last_samples
from lora_scene.adapters.model_card import CardFacts, check_card, write_card
from lora_scene.adapters.untrusted import MAX_FILE_BYTES, read_header
from lora_scene.adapters.writing import written_aside
from lora_scene.errors import HubError

ADAPTER_FILE = re.compile(rf"{re.escape(FILE)}|{FOLDER}/[A-Za-z0-9][A-Za-z0-9_-]*\.safetensors")
PICKLES = (".bin", ".pt", ".ckpt", ".pth", ".pkl")
REASONS = {
    401: ("the hub does not know you", "log in with `hf auth login`, or set HF_TOKEN"),
    403: ("you may not do that there", "use a token with write access, and a name of your own"),
    404: ("the hub has no such repository, or hides it from you", "check the name and the login"),
    409: ("someone else changed the repository meanwhile", "run the same command again"),
    413: ("a file is too large for the hub", None),
    429: ("the hub asks to slow down", "wait a while and run the same command again"),
}


@dataclass(frozen=True)
class Published:
    """What is on the hub now.

    Attributes:
        url: The commit.
        files: Path in the repository to size, bytes.
    """

    url: str
    files: dict[str, int]


def stage_adapter(folder: Path, stage: Path, *, title: Title, repo_id: str, dtype: str) -> None:
    """Put together what is to be published: all layouts, pictures, and the card.

    Args:
        folder: The adapter's folder. A README.md in it is taken as it is.
        stage: An empty folder.
        title: Name of the files, author, licence.
        repo_id: Where it will be.
        dtype: Of the files.

    Raises:
        AdapterError: The folder holds no sound adapter, or its card is not fit to publish.
    """
    adapter = read_adapter(folder)
    samples = last_samples(folder, adapter)
    export_adapter(adapter, stage, title=title, dtype=dtype, samples=samples)
    (stage / SAMPLES).mkdir()
    for sample in samples:
        shutil.copyfile(sample.path, stage / SAMPLES / sample.path.name)
    own_card = folder / "README.md"
    facts = CardFacts(title.name, repo_id, title.license, samples)
    text = own_card.read_text("utf-8") if own_card.is_file() else write_card(adapter, facts)
    check_card(text, stage)
    (stage / "README.md").write_text(text, encoding="utf-8")


def staged_files(stage: Path) -> dict[str, int]:
    """Return what would be published: path to size, bytes."""
    return {
        path.relative_to(stage).as_posix(): path.stat().st_size
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    }


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
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    expected = staged_files(stage)
    with _plain_errors(repo_id, "nothing was published"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=stage,
            commit_message=f"Upload {repo_id.rpartition('/')[2]}",
        )
    with _plain_errors(repo_id, "it was sent, but could not be looked at"):
        shown = api.model_info(repo_id, revision=commit.oid, files_metadata=True)
    sizes = {file.rfilename: file.size for file in shown.siblings or []}
    wrong = [path for path, size in expected.items() if sizes.get(path) != size]
    if wrong:
        raise HubError(
            "the hub does not show what was sent",
            where=repo_id,
            got=f"{len(wrong)} of {len(expected)} files missing or of another size: {wrong[0]}",
            hint="run the same command again",
        )
    return Published(str(commit.commit_url), expected)


def fetch_adapter(
    repo_id: str, *, revision: str | None = None, endpoint: str | None = None
) -> Path:
    """Download an adapter's weight files into the hub's cache, or find them there.

    Only safetensors files of the adapter layout are fetched, all of one commit.

    Args:
        repo_id: Such as `user/name`.
        revision: Branch, tag or commit; the default branch when None.
        endpoint: The hub; None for the usual one.

    Returns:
        The folder that holds them.

    Raises:
        HubError: The hub does not have it, refuses it, or fails.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint)
    with _plain_errors(repo_id, "nothing was loaded"):
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
        except OfflineModeIsEnabled:
            return Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        names = _adapter_names(repo_id, info.siblings or [])
        paths = [api.hf_hub_download(repo_id, filename=name, revision=info.sha) for name in names]
    depth = len(PurePosixPath(names[0]).parts)
    return Path(paths[0]).parents[depth - 1]


def copy_adapter(source: Path, out: Path) -> None:
    """Copy an adapter's own files to a new place, after all of them have been checked.

    Raises:
        AdapterError: The source holds no sound adapter.
    """
    adapter = read_adapter(source)
    names = [f"{FOLDER}/{concept.stem}.safetensors" for concept in adapter.concepts]
    names += [FILE] if adapter.modules else []
    with written_aside(out) as aside:
        (aside / FOLDER).mkdir()
        for name in names:
            shutil.copyfile(source / name, aside / name)
    remove_others(out, read_header(out / names[0]).metadata)


def _adapter_names(repo_id: str, siblings: list[Any]) -> list[str]:
    names = [file.rfilename for file in siblings if ADAPTER_FILE.fullmatch(file.rfilename)]
    if not names:
        others = [file.rfilename for file in siblings]
        pickled = [name for name in others if name.endswith(PICKLES)]
        raise HubError(
            "no adapter of lora_scene in this repository",
            where=repo_id,
            expected=f"{FILE} or {FOLDER}/<name>.safetensors",
            got=ascii(", ".join(others[:8])) or "nothing",
            hint="pickled files are never opened" if pickled else None,
        )
    large = [f for f in siblings if f.rfilename in names and (f.size or 0) > MAX_FILE_BYTES]
    if large:
        raise HubError("too large for an adapter", where=f"{repo_id}/{large[0].rfilename}")
    return sorted(names)


@contextmanager
def _plain_errors(repo_id: str, state: str) -> Iterator[None]:
    """Turn the library's errors into one sentence that says what state the hub is in."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the library's own, and those of whatever carries its requests
        response = getattr(error, "response", None)
        code = getattr(response, "status_code", None)
        what, hint = REASONS.get(code or 0, ("the hub failed, or cannot be reached", None))
        if code is not None and code >= 500:
            what, hint = "the hub failed", "run the same command again"
        raise HubError(
            f"{what}; {state}",
            where=repo_id,
            got=_redacted(f"{code or type(error).__name__}: {error}"),
            hint=hint,
        ) from error


def _redacted(text: str) -> str:
    """Return the first line of a message, without the token should it hold one."""
    from huggingface_hub import get_token

    line = text.strip().splitlines()[0][:300]
    token = get_token()
    line = line.replace(token, "***") if token else line
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "***", line)
