"""A scene: one photo or several, and for every concept a handle, a noun and its masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lora_scene.errors import LoraSceneError, SceneError, warn_of
from lora_scene.scenes.folder_names import MANIFEST_NAME
from lora_scene.scenes.handles import Concept
from lora_scene.scenes.manifest import Manifest, read_manifest
from lora_scene.scenes.mask_files import INSIDE, MIN_COVERAGE, read_mask
from lora_scene.scenes.pictures import Mask, Pixels, UprightPhoto, read_photo
from lora_scene.size import Size

SAME_REGION_IOU = 0.95

__all__ = [
    "INSIDE",
    "MIN_COVERAGE",
    "Concept",
    "Photo",
    "Scene",
    "View",
    "load_scene",
    "read_scene",
    "shared_areas",
]


@dataclass(frozen=True)
class View:
    """The part of a photo that a picture shows, in pixels of that photo.

    Attributes:
        of: The whole photo's size.
        left: The part's left edge.
        top: Its upper edge.
        width: Its width.
        height: Its height.
    """

    of: Size
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture and where each concept is in it.

    Attributes:
        pixels: (H, W, 3) uint8.
        masks: (K, H, W) float32 in 0..1, one per concept of the scene; all 0 where it is absent.
        source: The file, for messages.
        part: The part of a larger photo that this is, or None for a whole photo.
    """

    pixels: Pixels
    masks: Mask
    source: str
    part: View | None = None

    @property
    def height(self) -> int:
        """Return the number of pixel rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Return the number of pixel columns."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> Size:
        """Return width and height."""
        return Size(self.width, self.height)

    @property
    def digest(self) -> str:
        """Return the sha256 of its pixels, hexadecimal."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()

    @property
    def view(self) -> View:
        """Return what it shows of the photo that it comes from."""
        return self.part or View(self.size, 0, 0, self.width, self.height)

    @property
    def present(self) -> tuple[int, ...]:
        """Return the indices of the concepts that the photo shows."""
        return tuple(k for k, mask in enumerate(self.masks) if bool((mask >= INSIDE).any()))


@dataclass(frozen=True)
class Scene:
    """What one adapter is learnt from.

    Attributes:
        concepts: K concepts, in the order of the photos' masks.
        photos: The photos, at least one.
        source: The folder, for messages.
        is_named: Whether somebody chose the handles; False for <v0>, <v1>...
    """

    concepts: tuple[Concept, ...]
    photos: tuple[Photo, ...]
    source: str
    is_named: bool = True

    @property
    def handles(self) -> tuple[str, ...]:
        """Return the handles, in order."""
        return tuple(concept.handle for concept in self.concepts)

    @property
    def nouns(self) -> tuple[str, ...]:
        """Return the class nouns, in order."""
        return tuple(concept.noun for concept in self.concepts)

    @property
    def things(self) -> tuple[int, ...]:
        """Return the indices of the concepts that are not the background."""
        return tuple(k for k, concept in enumerate(self.concepts) if not concept.is_background)


def load_scene(
    path: Path | str, *, handles: Sequence[str] | None = None, nouns: Sequence[str] | None = None
) -> Scene:
    """Read a scene folder, as `lora_scene.scenes.manifest` describes it, and check all of it.

    Photos keep their own sizes; `lora_scene.scenes.framing` brings them to the training size.

    Args:
        path: The folder, or its scene.toml.
        handles: Handles for the masks of a folder without scene.toml; default <v0>, <v1>...
        nouns: Class nouns for the same; default as `manifest.default_noun` guesses.

    Raises:
        SceneError: Everything that is wrong in the folder, collected.
    """
    problems: list[LoraSceneError] = []
    manifest = read_manifest(Path(path), handles=handles, nouns=nouns, problems=problems)
    return read_scene(manifest, problems)


def read_scene(manifest: Manifest, problems: list[LoraSceneError]) -> Scene:
    """Read the photos and masks that a folder's description names, and check them.

    Args:
        manifest: The description.
        problems: What `read_manifest` found wrong with it; told with what is wrong here.

    Raises:
        SceneError: All of it.
    """
    if manifest.left_out:
        names = ", ".join(manifest.left_out)
        read = f"one img.jpg, mask0.png, mask1.png... and a {MANIFEST_NAME}"
        text = f"{names} left out: only {read} are read"
        warn_of(manifest.folder, text)
    photos = [_read(manifest, n, problems) for n in range(len(manifest.images))]
    if problems:
        raise SceneError.collect(problems, f"{manifest.folder} cannot be learnt from")
    complete = tuple(photo for photo in photos if photo is not None)
    return Scene(manifest.concepts, complete, str(manifest.folder), manifest.is_named)


def _read(manifest: Manifest, n: int, problems: list[LoraSceneError]) -> Photo | None:
    """Read image n and its masks; what is wrong is added to `problems`."""
    file = manifest.folder / manifest.images[n]
    photo: UprightPhoto | None = None
    try:
        photo = read_photo(file)
    except SceneError as error:
        problems.append(error)
    masks: dict[int, Mask] = {}
    sources: dict[int, Path] = {}
    for k, concept in enumerate(manifest.concepts):
        names = manifest.masks[k]
        if concept.is_background or n >= len(names) or not names[n]:  # too few are told already
            continue
        sources[k] = manifest.folder / names[n]
        try:
            mask = read_mask(sources[k], photo)
        except SceneError as error:
            problems.append(error)
            continue
        wrong = _mask_problem(mask, photo, sources[k])
        if wrong is not None:
            problems.append(wrong)
        else:
            masks[k] = mask
    problems += _twins(masks, sources)
    if photo is None or len(masks) < len(sources):
        return None
    return _assemble(photo, masks, manifest, str(file), problems)


def _assemble(
    photo: UprightPhoto,
    masks: dict[int, Mask],
    manifest: Manifest,
    source: str,
    problems: list[LoraSceneError],
) -> Photo:
    """Stack the masks of a photo, absent ones as zeros, the background's as the complement."""
    shape = photo.pixels.shape[:2]
    stack = np.zeros((len(manifest.concepts), *shape), dtype=np.float32)
    for k, mask in masks.items():
        stack[k] = mask
    for k, concept in enumerate(manifest.concepts):
        if concept.is_background:
            stack[k] = 1.0 - stack.max(axis=0)
            wrong = _mask_problem(stack[k], photo, f"{source}: {concept.handle}")
            if wrong is not None:
                problems.append(wrong)
    return Photo(photo.pixels, stack, source)


def _mask_problem(mask: Mask, photo: UprightPhoto | None, where: object) -> SceneError | None:
    if photo is not None and mask.shape != photo.pixels.shape[:2]:
        height, width = photo.pixels.shape[:2]
        return SceneError(
            "the mask's size is not the photo's",
            where=where,
            expected=f"{width} x {height} pixels",
            got=f"{mask.shape[1]} x {mask.shape[0]}",
            hint="export the mask at the photo's full size",
        )
    if 0.0 < float(mask.max()) < INSIDE:
        return SceneError(
            "the mask is too dark",
            where=where,
            expected="white where the concept is, black elsewhere",
            got=f"a brightest pixel of {round(255 * float(mask.max()))} of 255",
            hint="paint it white: a mask is read at its full brightness",
        )
    coverage = float((mask >= INSIDE).mean())
    if coverage < MIN_COVERAGE:
        return SceneError(
            "the mask is empty" if coverage == 0.0 else "the mask is nearly empty",
            where=where,
            expected=f"at least {100 * MIN_COVERAGE:.1f} % of the photo in white",
            got=f"{100 * coverage:.3f} %",
            hint="crop the photo closer, or leave the concept out",
        )
    return None


def shared_areas(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return (K, K): how many pixels each two of K masks (K, H, W) have in common."""
    flat = inside.reshape(len(inside), -1).astype(np.float32)
    return (flat @ flat.T).astype(np.float64)


def _twins(masks: dict[int, Mask], sources: dict[int, Path]) -> list[SceneError]:
    """Name the pairs of masks that are one region; a part within a whole is no such pair."""
    problems = []
    for shape in {mask.shape for mask in masks.values()}:
        ids = [k for k, mask in masks.items() if mask.shape == shape]
        shared = shared_areas(np.stack([masks[k] >= INSIDE for k in ids]))
        for a, b in combinations(range(len(ids)), 2):
            iou = shared[a, b] / (shared[a, a] + shared[b, b] - shared[a, b])
            if iou >= SAME_REGION_IOU:
                problems.append(
                    SceneError(
                        "two masks cover each other",
                        where=f"{sources[ids[a]]} and {sources[ids[b]].name}",
                        expected="a region of its own for each concept",
                        got=f"{100 * iou:.0f} % of both in common",
                    )
                )
    return problems
