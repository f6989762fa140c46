"""A draft on disk: photos, masks, and what was shown, so that nothing is lost with a tab.

draft/
├── draft.json       names, things, prompts; written last
├── photo0.png       as read: upright, sRGB, no EXIF data
├── mask-<of its content>.png      what the segmenter found; each file is written once
└── touches-<of its content>.png   0 painted out, 128 as found, 255 painted in
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_scene.documents import parse_json, read_text
from lora_scene.errors import SceneError
from lora_scene.files import write_json
from lora_scene.ownership import is_ours
from lora_scene.page.draft import Draft, Thing
from lora_scene.page.proposal import Proposal
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.mask_prompts import Box, Point, Prompt
from lora_scene.scenes.pictures import open_image, read_photo

DRAFT = "draft.json"
UNTOUCHED = 128  # of a picture of touches

_names: weakref.WeakKeyDictionary[Proposal, dict[str, str]] = weakref.WeakKeyDictionary()


def is_draft(folder: Path) -> bool:
    """Tell whether a folder holds a draft of ours."""
    return is_ours(folder / DRAFT)


def write_draft(folder: Path, draft: Draft) -> None:
    """Write what is not there yet, then the record.

    Raises:
        FileError: The folder cannot be written.
    """
    photos = [f"photo{n}.png" for n in range(len(draft.photos))]
    for name, pixels in zip(photos, draft.photos, strict=True):
        if not (folder / name).exists():
            write_picture(folder / name, Image.fromarray(pixels))
    things = []
    for thing in draft.things:
        found = {
            str(n): {"prompt": _told(one.prompt), **_write_masks(folder, one)}
            for n, one in thing.found.items()
        }
        things.append({"handle": thing.handle, "noun": thing.noun, "found": found})
    record = {
        "names": list(draft.names),
        "things": things,
        "photo": draft.photo,
        "thing": draft.thing,
        "has_background": draft.has_background,
    }
    write_json(folder / DRAFT, record, force=True)


def read_draft(folder: Path) -> Draft:
    """Read a draft back.

    Raises:
        SceneError: It is damaged.
    """
    path = folder / DRAFT
    record = parse_json(read_text(path, SceneError), path, SceneError)
    try:
        return _draft(folder, record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
        raise SceneError("a damaged draft", where=path, got=repr(error)) from error


def _draft(folder: Path, record: Any) -> Draft:
    photos = tuple(read_photo(folder / f"photo{n}.png").pixels for n in range(len(record["names"])))
    things = tuple(
        Thing(
            str(one["handle"]),
            str(one["noun"]),
            {int(n): _found(folder, one, kept) for n, kept in one["found"].items()},
        )
        for one in record["things"]
    )
    return Draft(
        photos,
        tuple(map(str, record["names"])),
        things,
        record["photo"],
        record["thing"],
        record["has_background"],
    )


def _told(prompt: Prompt) -> dict[str, Any]:
    told = asdict(prompt)
    return {key: told[key] for key in ("box", "points", "words")}


def _found(folder: Path, thing: Any, kept: Any) -> Proposal:
    told = kept["prompt"]
    prompt = Prompt(
        thing["handle"],
        thing["noun"],
        box=Box(**told["box"]) if told["box"] else None,
        points=tuple(Point(**point) for point in told["points"]),
        words=told["words"],
    )
    mask = _pixels(folder / kept["mask"]).astype(np.float32) / np.float32(255)
    touches = None
    if kept.get("touches"):
        levels = _pixels(folder / kept["touches"]).astype(int) - UNTOUCHED
        touches = np.sign(levels).astype(np.int8)
        if touches.all():  # so an earlier version kept a given mask: no mark could change it
            given = Prompt(thing["handle"], thing["noun"])
            return Proposal(given, (touches > 0).astype(np.float32))
    found = Proposal(prompt, mask, touches)
    _names[found] = {key: kept[key] for key in ("mask", "touches") if kept.get(key)}
    return found


def _write_masks(folder: Path, found: Proposal) -> dict[str, str]:
    """Write what is not there of a thing's masks on a photo; return the files' names."""
    names = _names.setdefault(found, {})
    if names and all((folder / name).is_file() for name in names.values()):
        return names
    pictures = {"mask": (found.mask * 255).round().astype(np.uint8)}
    if found.touches is not None:
        levels = np.clip(UNTOUCHED + found.touches.astype(int) * UNTOUCHED, 0, 255)
        pictures["touches"] = levels.astype(np.uint8)
    for key, pixels in pictures.items():
        names.setdefault(key, f"{key}-{_digest(pixels)}.png")
    for key, pixels in pictures.items():
        if not (folder / names[key]).exists():
            write_picture(folder / names[key], Image.fromarray(pixels))
    return names


def _digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Return what two pictures have in common only if they are equal, their shapes too."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:16]


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(open_image(path)[0].convert("L"))
