"""What the names in a scene's folder tell: its description, or its photo and its masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.errors import MAX_SHOWN, SceneError
from lora_scene.scenes.pictures import HEIF_SUFFIXES

MANIFEST_NAME = "scene.toml"
OVERLAY, REGIONS = "_overlay.png", "_regions.png"  # ends of what `check` and `mask --list` draw
MASK_HINT = "lora-scene mask PHOTO makes a scene folder from a photo"
IMAGE_SUFFIXES = (  # what `pictures.FORMATS` are usually called
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
    *(".jfif", ".tga", ".ppm", ".pgm", ".pbm", ".jp2"),
    *HEIF_SUFFIXES,
)


@dataclass(frozen=True)
class Layout:
    """The files of a folder without a scene.toml.

    Attributes:
        images: File names of the photos; one, where nothing is wrong.
        masks: File names of the masks, by their numbers.
        left_out: What is called like a photo, a mask or nearly like scene.toml, and is not read.
    """

    images: tuple[str, ...]
    masks: tuple[str, ...]
    left_out: tuple[str, ...]


def descriptions_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are called scene.toml, in any case."""
    return sorted(path for path in folder.glob("*") if path.name.lower() == MANIFEST_NAME)


def read_layout(folder: Path) -> tuple[Layout, list[SceneError]]:
    """Return a folder's photo and masks, and what keeps it from being one photo and its masks."""
    there = sorted(folder.iterdir())
    found = [path for path in there if path.suffix.lower() in IMAGE_SUFFIXES]
    images = [p.name for p in found if p.stem.lower() == "img"]
    numbered: dict[int, list[str]] = {}
    for path in found:
        if match := re.fullmatch(r"mask(\d{1,9})", path.stem, re.IGNORECASE | re.ASCII):
            numbered.setdefault(int(match[1]), []).append(path.name)
    problems = _problems(folder, images, numbered)
    masks = tuple(numbered[n][0] for n in sorted(numbered))
    read = {*images, *masks}
    alike = [p.name for p in there if p.is_file() and p.name not in read and _is_alike(p.name)]
    return Layout(tuple(images), masks, tuple(alike)), problems


def _is_alike(name: str) -> bool:
    is_drawn = name.endswith((OVERLAY, REGIONS))
    return name.lower().startswith(("img", "mask", MANIFEST_NAME)) and not is_drawn


def _problems(
    folder: Path, images: Sequence[str], numbered: Mapping[int, Sequence[str]]
) -> list[SceneError]:
    problems = []
    there = _brief(sorted(p.name for p in folder.iterdir()))
    if len(images) != 1:
        problems.append(
            SceneError(
                "which file is the photo?",
                where=folder,
                expected=f"a {MANIFEST_NAME}, or one img.jpg ({', '.join(IMAGE_SUFFIXES)})",
                got=", ".join(images) or f"no img; the folder holds {there}",
                hint=f"keep one, or list them in a {MANIFEST_NAME}" if images else MASK_HINT,
            )
        )
    doubled = [name for names in numbered.values() if len(names) > 1 for name in sorted(names)]
    if sorted(numbered) != list(range(len(numbered))) or not numbered or doubled:
        masks = [name for n in sorted(numbered) for name in numbered[n]]
        problems.append(
            SceneError(
                "two masks have one number"
                if doubled
                else "the masks are not numbered from 0 without a gap"
                if masks
                else "no mask",
                where=folder,
                expected="mask0.png, mask1.png, ...",
                got=_brief(doubled or masks) if masks else f"the folder holds {there}",
                hint=None if masks else MASK_HINT,
            )
        )
    return problems


def _brief(names: Sequence[str]) -> str:
    more = len(names) - MAX_SHOWN
    return (", ".join(names[:MAX_SHOWN]) or "nothing") + (f" and {more} more" if more > 0 else "")
