"""Where an adapter lies, a folder or a hub id, and what it is called after that."""

from __future__ import annotations

import re
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.layers import is_reserved
from lora_scene.errors import AdapterError, HubError


def locate(source: Path | str, *, revision: str | None = None) -> Path:
    """Return the folder of an adapter: the one given, or a copy of the one on a hub.

    Args:
        source: The folder, or a hub id.
        revision: Branch, tag or commit on the hub; the default branch when None.

    Raises:
        AdapterError: There is neither.
    """
    path = Path(source).expanduser()
    if path.is_dir() and revision is not None:
        raise AdapterError("a folder has no revisions", where=path, got=revision)
    if path.is_dir():
        return path
    if path.is_file():
        raise AdapterError(
            "an adapter is a folder; a single file has no place for its handles",
            where=path,
            hint="give the folder it lies in",
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        from lora_scene.adapters.hub import fetch_adapter

        try:
            return fetch_adapter(str(source), revision=revision)
        except HubError as error:  # what was meant may be a folder
            what = f"no such folder; as a hub id: {error.what}"
            raise HubError(what, where=path, got=error.got, hint=error.hint) from error
    raise AdapterError(
        "no such folder", where=path, expected="an adapter's folder, or a hub id such as user/name"
    )


def plain_name(source: Adapter | Path | str) -> str:
    """Return a name for an adapter made of letters, digits, _ and -: that of its folder."""
    if isinstance(source, Adapter):
        return "_".join(concept.stem for concept in source.concepts)
    name = Path(source).expanduser().absolute().name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "adapter"


def name_in_pipeline(source: Adapter | Path | str) -> str:
    """Return what to call an adapter in a pipeline: that of its folder, if torch leaves it free."""
    name = plain_name(source)
    return f"{name}_adapter" if is_reserved(name) else name
