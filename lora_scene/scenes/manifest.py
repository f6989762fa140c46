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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from lora_scene.documents import parse_toml, read_text
from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.faults import told_plainly
from lora_scene.forms import build, filled
from lora_scene.recipe import quoted
from lora_scene.scenes.folder_names import MANIFEST_NAME, MASK_HINT, descriptions_in, read_layout
from lora_scene.scenes.handles import Concept, check_handles, default_noun

MOST_CONCEPTS = 256  # as many as an attention map has cells at 512 px


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
class Manifest:
    """A scene as its folder names it.

    Attributes:
        folder: What the file names are relative to.
        images: File names of the photos.
        concepts: The concepts, in order.
        masks: For each concept one file name an image, "" where it is absent; none for the
            background.
        is_named: Whether a scene.toml, or the caller, chose the handles.
        name: What its scene.toml is called, if there is one.
        left_out: What is called like a photo, a mask or nearly like scene.toml, and is not read.
    """

    folder: Path
    images: tuple[str, ...]
    concepts: tuple[Concept, ...]
    masks: tuple[tuple[str, ...], ...]
    is_named: bool = True
    name: str = MANIFEST_NAME
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Return its photos and masks, wherever they lie, and its scene.toml."""
        masks = (name for names in self.masks for name in names if name)
        return [self.folder / name for name in (*self.images, *masks, self.name)]


def read_manifest(
    path: Path,
    *,
    handles: Sequence[str] | None = None,
    nouns: Sequence[str] | None = None,
    problems: list[LoraSceneError] | None = None,
) -> Manifest:
    """Read a scene folder's description, without opening its images.

    Args:
        path: The folder, or its scene.toml, in any case.
        handles: Handles for the masks of a folder without scene.toml; default <v0>, <v1>...
        nouns: Class nouns for the same.
        problems: Where the mistakes of a scene.toml go, so that the files which it names can be
            looked at too; None raises them.

    Raises:
        SceneError: All that is wrong with it, collected.
    """
    folder = path.parent if path.name.lower() == MANIFEST_NAME else path
    with told_plainly(folder):
        if not folder.is_dir():
            got = "a file" if folder.exists() else "nothing"
            raise SceneError(
                "no such scene", where=path, expected="a folder", got=got, hint=MASK_HINT
            )
        file = path if path.is_file() else _only_description(folder)
        if file is None:
            manifest = _from_file_names(folder, handles, nouns)
        elif handles is None and nouns is None:
            manifest = _from_toml(file, problems)
        else:
            raise SceneError(
                "handles and nouns are given twice",
                where=file,
                hint="change them in scene.toml; arguments are for folders without one",
            )
    refuse_too_many(len(manifest.concepts), folder)
    return manifest


def refuse_too_many(n_concepts: int, where: object) -> None:
    """Refuse more concepts than one scene may hold.

    Raises:
        SceneError: There are.
    """
    if n_concepts > MOST_CONCEPTS:
        raise SceneError(
            "too many concepts",
            where=where,
            expected=f"at most {MOST_CONCEPTS}, and better 4",
            got=n_concepts,
            hint="several scenes with an adapter each can be used together",
        )


def manifest_text(manifest: Manifest) -> str:
    """Write a scene.toml that `read_manifest` reads back to the same."""
    lines = [f"images = [{', '.join(map(quoted, manifest.images))}]"]
    for concept, masks in zip(manifest.concepts, manifest.masks, strict=True):
        lines += ["", "[[concepts]]", f"handle = {quoted(concept.handle)}"]
        lines.append(f"noun = {quoted(concept.noun)}")
        if concept.is_background:
            lines.append("background = true")
        else:
            lines.append(f"masks = [{', '.join(map(quoted, masks))}]")
    return "\n".join(lines) + "\n"


def _raise_any(problems: Sequence[LoraSceneError], where: object) -> None:
    if problems:
        raise SceneError.collect(problems, f"{where} cannot be read as a scene")


def _only_description(folder: Path) -> Path | None:
    files = descriptions_in(folder)
    if len(files) > 1:
        raise SceneError(
            "two descriptions",
            where=folder,
            expected=f"one {MANIFEST_NAME}",
            got=", ".join(file.name for file in files),
            hint="keep one, or name the one that is meant in the place of the folder",
        )
    return files[0] if files else None


def _from_file_names(
    folder: Path, handles: Sequence[str] | None, nouns: Sequence[str] | None
) -> Manifest:
    layout, problems = read_layout(folder)
    n_masks = len(layout.masks)
    chosen, named = _names(n_masks, handles, nouns)
    if not len(chosen) == len(named) == n_masks:
        expected, got = f"{n_masks} of each", f"{len(chosen)} handles, {len(named)} nouns"
        problems.append(
            SceneError("not one handle and noun a mask", where=folder, expected=expected, got=got)
        )
    problems += check_handles(chosen, folder, nouns=named)
    _raise_any(problems, folder)
    concepts = tuple(map(Concept, chosen, named))
    masks = tuple((name,) for name in layout.masks)
    return Manifest(
        folder, layout.images, concepts, masks, handles is not None, left_out=layout.left_out
    )


def _names(
    n_masks: int, handles: Sequence[str] | None, nouns: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    chosen = [f"<v{n}>" for n in range(n_masks)] if handles is None else list(handles)
    return chosen, [default_noun(handle) for handle in chosen] if nouns is None else list(nouns)


def _from_toml(file: Path, collected: list[LoraSceneError] | None) -> Manifest:
    problems: list[LoraSceneError] = []
    table = parse_toml(read_text(file, SceneError), file, SceneError)
    place = f"{file}: "
    found = build(SceneTable, table, problems, error=SceneError, where=place, is_toml=True)
    scene = found or SceneTable()
    told = {problem.where for problem in problems}
    for number, entry in enumerate(scene.concepts, 1):
        mistakes = _mistakes(entry, f"{place}concepts #{number}", len(scene.images))
        problems += [problem for problem in mistakes if problem.where not in told]
    concepts = tuple(_concept(entry) for entry in scene.concepts)
    masks = tuple(entry.masks for entry in scene.concepts)
    handles = [concept.handle for concept in concepts if concept.handle]
    problems += check_handles(handles, file, nouns=[concept.noun for concept in concepts])
    if len(set(map(PurePath, scene.images))) < len(scene.images):
        expected, got = "each photo once", ", ".join(scene.images)
        problems.append(
            SceneError("a photo is listed twice", where=file, expected=expected, got=got)
        )
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
    if collected is None:
        _raise_any(problems, file)
    else:
        collected += problems
    return Manifest(file.parent, scene.images, concepts, masks, name=file.name)


def _concept(entry: ConceptTable) -> Concept:
    handle = entry.handle.strip()
    noun = default_noun(handle) if entry.noun is None else entry.noun.strip()
    return Concept(handle, noun, entry.background)


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
