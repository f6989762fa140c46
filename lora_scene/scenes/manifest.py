"""What a scene's folder says of itself: `scene.toml`, or the layout of mask0.png, mask1.png...

images = ["img.jpg"]            # one or several
[[concepts]]
handle = "<bear>"
noun = "teddy bear"             # optional
masks = ["mask0.png"]           # one per image; "" where the concept is absent
[[concepts]]
handle = "<room>"
background = true               # its mask is the complement of all others
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_scene.errors import SceneError, did_you_mean
from lora_scene.scenes.handle_names import check_handles, default_noun

MANIFEST_NAME = "scene.toml"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_SCENE_KEYS = ("images", "concepts")
_CONCEPT_KEYS = ("handle", "noun", "masks", "background")


@dataclass(frozen=True)
class ManifestConcept:
    """A concept as the folder names it.

    Attributes:
        handle: Its token in prompts.
        noun: Its class noun.
        masks: One file name per image, "" where it is absent; empty for the background.
        is_background: Whether its mask is the complement of all others.
    """

    handle: str
    noun: str
    masks: tuple[str, ...]
    is_background: bool = False


@dataclass(frozen=True)
class Manifest:
    """A scene as its folder names it.

    Attributes:
        folder: What the file names are relative to.
        images: File names of the photos.
        concepts: The concepts, in order.
        is_named: Whether a scene.toml, or the caller, chose the handles.
    """

    folder: Path
    images: tuple[str, ...]
    concepts: tuple[ManifestConcept, ...]
    is_named: bool


def read_manifest(
    path: Path, *, handles: Sequence[str] | None = None, nouns: Sequence[str] | None = None
) -> Manifest:
    """Read a scene folder's description, without opening its images.

    Args:
        path: The folder, or its scene.toml.
        handles: Handles for the masks of a folder without scene.toml; default <v0>, <v1>...
        nouns: Class nouns for the same.

    Raises:
        SceneError: All that is wrong with it, collected.
    """
    folder = path.parent if path.name == MANIFEST_NAME else path
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise SceneError("no such scene", where=path, expected="a folder", got=got)
    if not (folder / MANIFEST_NAME).is_file():
        return _from_file_names(folder, handles, nouns)
    if handles is not None or nouns is not None:
        raise SceneError(
            "handles and nouns are given twice",
            where=folder / MANIFEST_NAME,
            hint="change them in scene.toml; arguments are for folders without one",
        )
    return _from_toml(folder)


def manifest_text(images: Sequence[str], concepts: Sequence[ManifestConcept]) -> str:
    """Write a scene.toml that `read_manifest` reads back to the same."""

    def quote(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string

    lines = [f"images = [{', '.join(map(quote, images))}]"]
    for concept in concepts:
        lines += ["", "[[concepts]]", f"handle = {quote(concept.handle)}"]
        lines.append(f"noun = {quote(concept.noun)}")
        if concept.is_background:
            lines.append("background = true")
        else:
            lines.append(f"masks = [{', '.join(map(quote, concept.masks))}]")
    return "\n".join(lines) + "\n"


def _raise_any(problems: Sequence[SceneError], where: object) -> None:
    if problems:
        raise SceneError.collect(problems, f"{where} cannot be read as a scene")


def _from_file_names(
    folder: Path, handles: Sequence[str] | None, nouns: Sequence[str] | None
) -> Manifest:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [p.name for p in found if p.stem == "img"]
    numbered = {
        int(match[1]): p.name for p in found if (match := re.fullmatch(r"mask(\d+)", p.stem))
    }
    problems = _file_name_problems(folder, images, numbered)
    chosen, named = _names(len(numbered), handles, nouns)
    if not len(chosen) == len(named) == len(numbered):
        expected, got = f"{len(numbered)} of each", f"{len(chosen)} handles, {len(named)} nouns"
        problems.append(
            SceneError("not one handle and noun a mask", where=folder, expected=expected, got=got)
        )
    problems += check_handles(chosen, folder)
    _raise_any(problems, folder)
    concepts = tuple(
        ManifestConcept(handle, noun, (numbered[n],))
        for n, (handle, noun) in enumerate(zip(chosen, named, strict=True))
    )
    return Manifest(folder, (images[0],), concepts, is_named=handles is not None)


def _file_name_problems(
    folder: Path, images: Sequence[str], numbered: Mapping[int, str]
) -> list[SceneError]:
    """Return what keeps a folder without a manifest from being one photo and its masks."""
    problems = []
    if len(images) != 1:
        problems.append(
            SceneError(
                "which file is the photo?",
                where=folder,
                expected=f"a {MANIFEST_NAME}, or one img.jpg, img.png or img.webp",
                got=", ".join(images) or "neither",
                hint="lora-scene mask PHOTO makes a scene folder from a photo",
            )
        )
    if sorted(numbered) != list(range(len(numbered))) or not numbered:
        problems.append(
            SceneError(
                "the masks are not numbered from 0 without a gap",
                where=folder,
                expected="mask0.png, mask1.png, ...",
                got=", ".join(numbered[n] for n in sorted(numbered)) or "no mask",
            )
        )
    return problems


def _names(
    n_masks: int, handles: Sequence[str] | None, nouns: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    chosen = [f"<v{n}>" for n in range(n_masks)] if handles is None else list(handles)
    return chosen, [default_noun(handle) for handle in chosen] if nouns is None else list(nouns)


def _from_toml(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SceneError("not valid TOML", where=file, got=str(error)) from error
    problems = _unknown_keys(table, _SCENE_KEYS, file)
    images = _strings(table.get("images"), f"{file}: images", problems)
    tables = table.get("concepts")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        expected = "one [[concepts]] table, or more"
        problems.append(SceneError("no concepts", where=file, expected=expected, got=repr(tables)))
        tables = []
    concepts = [
        _concept(entry, f"{file}: concept {n + 1}", len(images), problems)
        for n, entry in enumerate(tables)
    ]
    problems += check_handles([concept.handle for concept in concepts if concept.handle], file)
    backgrounds = sum(concept.is_background for concept in concepts)
    if backgrounds > 1 or (backgrounds and len(concepts) == 1):
        problems.append(
            SceneError(
                "a background needs other concepts, and no second background",
                where=file,
                expected="at most one concept with background = true, beside others with masks",
                got=f"{backgrounds} of {len(concepts)} concepts",
            )
        )
    _raise_any(problems, file)
    return Manifest(folder, images, tuple(concepts), is_named=True)


def _concept(
    entry: Mapping[str, Any], where: str, n_images: int, problems: list[SceneError]
) -> ManifestConcept:
    problems += _unknown_keys(entry, _CONCEPT_KEYS, where)
    handle = _string(entry.get("handle"), f"{where}: handle", problems)
    noun = default_noun(handle)
    if "noun" in entry:
        noun = _string(entry["noun"], f"{where}: noun", problems)
    is_background = entry.get("background", False)
    if not isinstance(is_background, bool):
        problems.append(
            SceneError(
                "not a truth value",
                where=f"{where}: background",
                expected="true or false",
                got=repr(is_background),
            )
        )
    if is_background is True:
        if "masks" in entry:
            hint = "leave out masks, or leave out background"
            problems.append(SceneError("a background takes no masks", where=where, hint=hint))
        return ManifestConcept(handle, noun, (), is_background=True)
    masks = _strings(entry.get("masks"), f"{where}: masks", problems)
    if masks and n_images and len(masks) != n_images:
        problems.append(
            SceneError(
                "not one mask per image",
                where=f"{where}: masks",
                expected=f'{n_images}, with "" for an image that the concept is absent from',
                got=len(masks),
            )
        )
    elif masks and not any(masks):
        problems.append(SceneError("the concept is in no image", where=f"{where}: masks"))
    return ManifestConcept(handle, noun, masks)


def _unknown_keys(
    table: Mapping[str, Any], known: tuple[str, ...], where: object
) -> list[SceneError]:
    return [
        SceneError(
            f"unknown key {key!r}",
            where=where,
            expected=", ".join(known),
            hint=did_you_mean(key, known),
        )
        for key in table
        if key not in known
    ]


def _string(value: object, where: str, problems: list[SceneError]) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    got = "nothing" if value is None else repr(value)
    problems.append(SceneError("a text is needed", where=where, expected="a string", got=got))
    return ""


def _strings(value: object, where: str, problems: list[SceneError]) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    got = "nothing" if value is None else repr(value)
    problems.append(
        SceneError("file names are needed", where=where, expected='["name.png", ...]', got=got)
    )
    return ()
