"""A base on the hub as a folder here: what is needed of it is downloaded, or taken from the cache.

One question is asked first, with a time limit: libraries ask six times and wait between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lora_scene.backbones.pipeline_folder import (
    check_parts,
    choose_variant,
    read_index,
    weight_parts,
)
from lora_scene.errors import BackboneError

TIMEOUT = 10  # seconds to wait for the hub's first answer
SHARDS = ("", "-?????-of-?????")
SMALL = ("*.json", "*.txt", "*/*.json", "*/*.txt")


def download_base(model: str, look: Callable[[Path], None] = lambda folder: None) -> Path:
    """Return the folder of a base of the hub: its small files are looked at before its weights.

    Args:
        model: Hub id.
        look: Called with the folder once its small files are there.

    Raises:
        BackboneError: It is not there, not to be had, or not a base.
    """
    asked = _ask(model)
    if isinstance(asked, Path):
        look(asked)
        return asked
    names, revision = asked
    folder = _fetch(model, revision, SMALL)
    look(folder)
    parts = weight_parts(check_parts(folder, read_index(folder, where=model), where=model))
    variant = choose_variant(names, parts, where=model)
    ending = ("" if variant is None else f".{variant}", ".safetensors")
    patterns = [f"{part}/*model{shard.join(ending)}" for part in parts for shard in SHARDS]
    return _fetch(model, revision, patterns)


def download_configurations(model: str) -> Path:
    """Return a folder with the small files of a base of the hub.

    Raises:
        BackboneError: It is not there or not to be had.
    """
    asked = _ask(model)
    return asked if isinstance(asked, Path) else _fetch(model, asked[1], SMALL)


def _ask(model: str) -> tuple[list[str], str] | Path:
    """Return a repository's files and commit, or where only the cache can be asked its folder.

    Raises:
        BackboneError: The hub says no, or there is neither a hub nor a copy.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(model, timeout=TIMEOUT)
    except HFValidationError:
        raise BackboneError("not a hub id", where=model, expected="user/name") from None
    except GatedRepoError:
        raise BackboneError(
            "a base whose licence must be accepted on its page",
            where=model,
            hint="accept it there, then log in: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise BackboneError(
            "no such base on the hub, or a private one",
            where=model,
            hint="check the name; for a private one log in: hf auth login",
        ) from None
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        return _cached(model, error)
    return [each.rfilename for each in info.siblings or ()], str(info.sha)


def _cached(model: str, reason: Exception) -> Path:
    """Return the copy of an earlier download, as far as it goes."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError as error:
        place = getattr(error, "snapshot_path", None)
    if place is not None:
        return Path(place)
    raise BackboneError(
        "the base is not on this machine, and the hub cannot be reached",
        where=model,
        got=_said(reason),
        hint="check the connection and HF_HUB_OFFLINE, or give a folder or a .safetensors file; "
        "the embedded base, --recipe mini, needs neither",
    ) from None


def _fetch(model: str, revision: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # as above
        raise BackboneError(
            "the download of the base broke off",
            where=model,
            got=_said(error),
            hint="start it again: what is complete is kept",
        ) from None


def _said(error: Exception) -> str:
    """Name an error without its text, which may hold addresses and tokens."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
    return f"an answer of status {status}" if status else f"{type(error).__name__} {reason}".strip()
