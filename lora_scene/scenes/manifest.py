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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.documents import build, filled, parse_toml, read_text
from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.scenes.handle_names import check_handles, default_noun

MANIFEST_NAME = "scene.toml"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class ConceptTable:
    """A table [[concepts]], as it is written."""

    handle: str = filled("")
    noun: str | None = None
    masks: tuple[str, ...] = ()
    background: bool = False


@dataclass(frozen=True)
class SceneTable:
    """A scene.toml, as it is written."""

    images: tuple[str, ...] = filled(())
    concepts: tuple[ConceptTable, ...] = filled(())


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


def _raise_any(problems: Sequence[LoraSceneError], where: object) -> None:
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
    problems: list[LoraSceneError] = []
    table = parse_toml(read_text(file, SceneError), file, SceneError)
    scene = build(SceneTable, table, problems, error=SceneError, where=f"{file}: ") or SceneTable()
    told = {problem.where for problem in problems}
    for number, entry in enumerate(scene.concepts, 1):
        found = _mistakes(entry, f"{file}: concepts #{number}", len(scene.images))
        problems += [problem for problem in found if problem.where not in told]
    concepts = tuple(_concept(entry) for entry in scene.concepts)
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
    return Manifest(folder, scene.images, concepts, is_named=True)


def _concept(entry: ConceptTable) -> ManifestConcept:
    handle = entry.handle.strip()
    noun = default_noun(handle) if entry.noun is None else entry.noun.strip()
    return ManifestConcept(handle, noun, entry.masks, is_background=entry.background)


def _mistakes(entry: ConceptTable, where: str, n_images: int) -> Iterator[SceneError]:
    """Yield what is wrong with a concept whose values are of the right types."""
    n_masks = len(entry.masks)
    if entry.noun is not None and not entry.noun.strip():
        yield SceneError("a text is needed", where=f"{where}.noun")
    if entry.background:
        if entry.masks:
            hint = "leave out masks, or leave out background"
            yield SceneError("a background takes no masks", where=where, hint=hint)
    elif n_images and n_masks != n_images:
        yield SceneError(
            "not one mask per image",
            where=f"{where}.masks",
            expected=f'{n_images}, with "" for an image that the concept is absent from',
            got=n_masks,
        )
    elif n_masks and not any(entry.masks):
        yield SceneError("the concept is in no image", where=f"{where}.masks")
