"""Write a scene folder: the photo, its masks, scene.toml and an overlay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lora_scene.errors import SceneError
from lora_scene.file_groups import written_together
from lora_scene.files import write_text
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.manifest import (
    IMAGE_SUFFIXES,
    MANIFEST_NAME,
    ManifestConcept,
    manifest_text,
)
from lora_scene.scenes.masking import MaskedPhoto
from lora_scene.scenes.photos import Mask

OVERLAY_NAME = "overlay.png"


def write_scene(
    folder: Path, masked: MaskedPhoto, *, photo: Path, may_replace: bool = False
) -> tuple[Path, ...]:
    """Write what `load_scene` reads.

    The photo's file is copied as it is, orientation and all; one that a scene folder cannot hold,
    such as a TIFF, is written anew as a PNG.

    Args:
        folder: The scene folder; made where it is missing.
        masked: What `make_masks` gave.
        photo: The photo's file.
        may_replace: Whether files of an existing scene may be replaced.

    Returns:
        The files that were written.

    Raises:
        SceneError: Files stand in the way.
        FileError: The folder cannot be written to.
    """
    pixels, pictures = masked.scene.photos[0].pixels, _mask_images(masked)
    pictures[OVERLAY_NAME] = masked.preview
    keeps_file = photo.suffix.lower() in IMAGE_SUFFIXES
    image_name = f"img{photo.suffix.lower()}" if keeps_file else "img.png"
    target = folder / image_name
    if not keeps_file:
        pictures[image_name] = Image.fromarray(pixels)
    is_copied = keeps_file and not (target.exists() and target.samefile(photo))
    names = (*([image_name] if is_copied else []), *pictures, MANIFEST_NAME)
    _refuse_clashes(folder, names, may_replace)
    with written_together(folder, force=may_replace) as aside:
        if is_copied:
            shutil.copyfile(photo, aside / image_name)
        for name, image in pictures.items():
            write_picture(aside / name, image)
        write_text(aside / MANIFEST_NAME, manifest_text([image_name], _concepts(masked)))
    return tuple(folder / name for name in names)


def _concepts(masked: MaskedPhoto) -> list[ManifestConcept]:
    return [
        ManifestConcept(
            concept.handle,
            concept.noun,
            () if concept.is_background else (f"mask{k}.png",),
            concept.is_background,
        )
        for k, concept in enumerate(masked.scene.concepts)
    ]


def _mask_images(masked: MaskedPhoto) -> dict[str, Image.Image]:
    masks = masked.scene.photos[0].masks
    return {f"mask{k}.png": _mask_image(masks[k]) for k in masked.scene.things}


def _mask_image(mask: Mask) -> Image.Image:
    return Image.fromarray((255 * mask).round().astype("uint8"))


def _refuse_clashes(folder: Path, names: Sequence[str], may_replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise SceneError("the scene's place is taken", where=folder, expected="a folder")
    clashes = [name for name in names if (folder / name).exists()]
    if clashes and not may_replace:
        raise SceneError(
            "files of a scene stand here already",
            where=folder,
            got=", ".join(clashes),
            hint="choose another folder, or allow their replacement with --replace",
        )
