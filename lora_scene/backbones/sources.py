"""Where a base lies (a hub id, a path, `mini`), what may be said of it, how it is found again.

Only a base's public name is written into what leaves this machine. So that a base in a folder is
found again all the same, its place is noted in the user's cache, under its hash.
"""

from __future__ import annotations

import contextlib
import os
from importlib import resources
from pathlib import Path

from lora_scene.errors import BackboneError
from lora_scene.targets import refuse_unread_names

EMBEDDED = "mini"  # the base within this package
WEIGHTS = ".safetensors"
HASHES = "hashes.json"


def resolve_model(model: str | Path) -> str:
    """Return the hub id, or the full path of what lies on this machine.

    Raises:
        BackboneError: A path that does not exist, or holds a name that is no UTF-8.
    """
    text = str(model)
    if text == EMBEDDED:
        folder = Path(str(resources.files("lora_scene.backbones"))) / EMBEDDED
        if not (folder / "model_index.json").is_file():
            raise BackboneError(
                "this installation has no embedded base", where=text, hint="reinstall lora-scene"
            )
        return str(folder)
    found = _existing(text)
    if found is not None:
        refuse_unread_names(found, BackboneError)
    if found is not None or is_hub_id(text):
        return str(found or text)
    raise BackboneError(
        "no such base",
        where=text or repr(text),
        expected="a hub id (user/name), a diffusers folder, a .safetensors file, or mini",
    )


def embedded_hashes(package: str, folder: str) -> str:
    """Return the hashes of what comes with this package in a folder, as the folder states them.

    They change with each version of its weights, while its name stays.
    """
    files = resources.files(package) / folder / HASHES
    return files.read_text("utf-8") if files.is_file() else ""


def is_hub_id(model: str) -> bool:
    """Tell a hub id, `user/name`, from the path of something on this machine."""
    looks_like_id = model.count("/") == 1 and not model.startswith((".", "~", "/"))
    is_plain = looks_like_id and not model.endswith("/") and "\\" not in model
    return is_plain and Path(model).suffix != WEIGHTS and _existing(model) is None


def public_name(model: str | Path) -> str:
    """Return what may be recorded of a base: its hub id, `mini`, or the last part of its path."""
    text = str(model)
    if text == EMBEDDED or is_hub_id(text):
        return text
    last = Path(text.replace("\\", "/")).expanduser().resolve().name or "base"
    return last.encode("utf-8", "replace").decode("utf-8")  # metadata are UTF-8


def is_same_base(one: str, other: str) -> bool:
    """Tell whether two of `Backbone.content_hash` agree in what both tell.

    Files of earlier versions tell of the UNet alone, and those of low-bit bases of nothing.
    """
    parts = zip(one.split("."), other.split("."), strict=False)
    return not (one and other) or all(a == b for a, b in parts)


def other_base(trained: tuple[str, str], here: tuple[str, str], *, is_rounded: bool) -> str | None:
    """Say how a base differs from the one that an adapter was trained on, or None.

    The weights decide; only where one of them tells no hash, the names do.

    Args:
        trained: Name and `Backbone.content_hash`, as the adapter records them.
        here: The same of the base.
        is_rounded: Whether it is here in float16, to which 32-bit weights of its name are rounded.
    """
    (name, was), (model, found) = trained, here
    is_named = public_name(name) == public_name(model)
    if was and found:
        if is_same_base(was, found):
            return None
        rounding = " (or float16 rounds the same ones)" if is_named and is_rounded else ""
        what = "other weights" if is_named else "another base"
        was, found = (_first_difference(a, b) for a, b in ((was, found), (found, was)))
        told = f"({public_name(name)}, sha256 {was}) than here ({public_name(model)}, {found})"
        return f"was trained on {what} {told}{rounding}"
    if is_named or not name:
        return None
    told = f"({public_name(name)}) than here ({public_name(model)})"
    return f"was trained on a base of another name {told}; their weights cannot be compared"


def _first_difference(one: str, other: str) -> str:
    """Return the beginning of the first part of a hash in which another differs."""
    parts = zip(one.split("."), other.split("."), strict=False)
    return next((a for a, b in parts if a != b), one)[:12]


def note_base(model: str | Path, base_hash: str) -> None:
    """Note in the user's cache where a base with a hash lies, so that `find_base` finds it."""
    place = _existing(str(model))
    if str(model) == EMBEDDED or place is None or not base_hash:
        return
    with contextlib.suppress(OSError):  # a cache that cannot be written only forgets
        _notes().mkdir(parents=True, exist_ok=True)
        (_notes() / base_hash).write_bytes(os.fsencode(place.resolve()))


def find_base(name: str, *, base_hash: str = "", near: Path | None = None) -> str:
    """Return what `load_pipeline` opens for the base that an adapter was trained on.

    Looked for as it is recorded, beside the adapter, and where a base of its hash was last seen.

    Args:
        name: As recorded: a hub id, `mini`, or a folder's or file's name.
        base_hash: `Backbone.content_hash` as recorded.
        near: The adapter's folder, if it has one.

    Raises:
        BackboneError: It is not there.
    """
    if name == EMBEDDED:
        return name
    last = public_name(name)
    places = [] if near is None else [near / last, near.parent / last]
    for place in (_noted(base_hash), _existing(name), *places):
        if place is not None and place.exists():
            return str(place)
    if is_hub_id(name):
        return name
    raise BackboneError(
        "the base that this adapter was trained on is not here",
        where=name or "base",
        expected=f"a folder or file of that name here or beside the adapter (sha256 "
        f"{base_hash[:12]})",
        hint="say where it lies: --base PATH, or --base USER/NAME on the hub",
    )


def _existing(text: str) -> Path | None:
    """Return the path of what exists; a name that no system takes exists nowhere."""
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _notes() -> Path:
    cache = os.environ.get("LORA_SCENE_CACHE") or Path.home() / ".cache" / "lora_scene"
    return Path(cache) / "bases"


def _noted(base_hash: str) -> Path | None:
    parts = base_hash.split(".")
    if not all(part.isalnum() and part.isascii() for part in parts):
        return None
    try:
        return _existing(os.fsdecode((_notes() / base_hash).read_bytes()))
    except (OSError, UnicodeDecodeError, RuntimeError):
        return None
