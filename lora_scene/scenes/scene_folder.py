"""Write a scene folder: the photo, its masks, scene.toml and an overlay."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from lora_scene.errors import SceneError, warn_of
from lora_scene.faults import told_plainly
from lora_scene.file_groups import written_together
from lora_scene.files import check_target, write_text
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.folder_names import MANIFEST_NAME, descriptions_in
from lora_scene.scenes.manifest import Manifest, manifest_text, refuse_too_many
from lora_scene.scenes.masking import MaskedPhoto
from lora_scene.scenes.overlay import draw_overlay
from lora_scene.scenes.pictures import Mask
from lora_scene.scenes.scene import Scene

OVERLAY_NAME = "overlay.png"
PHOTO_NAME = "img.png"
OUR_MASK = re.compile(r"mask\d{1,9}\.png")  # as `write_scene` names them


def check_scene_place(
    folder: Path, n_things: int, *, photo: Path, may_replace: bool = False
) -> tuple[str, ...]:
    """Find what would stop `write_scene`, before the work for it is done; return its files' names.

    Args:
        folder: The scene folder.
        n_things: How many masks there will be.
        photo: The photo's file; one that lies in the folder is used where it is.
        may_replace: Whether files of an existing scene may be replaced, but for a photo that is
            not ours.

    Raises:
        SceneError: Too many concepts, a photo that cannot be named, or files stand in the way:
            those of a scene, or a scene.toml in other capitals.
        FileError: The folder cannot be written to, or holds another photo that is not ours.
    """
    refuse_too_many(n_things, folder)
    _refuse_other_spelling(folder)
    is_there = photo.resolve().parent == folder.resolve()
    if is_there and photo.name != photo.name.encode("utf-8", "replace").decode("utf-8"):
        raise SceneError(
            "the name of the photo is no UTF-8, and scene.toml could not name it",
            where=photo,
            hint="rename it, or choose a folder of its own for the scene",
        )
    masks = [f"mask{k}.png" for k in range(n_things)]
    names = ([] if is_there else [PHOTO_NAME]) + [*masks, OVERLAY_NAME, MANIFEST_NAME]
    check_target(folder, names, inputs=[photo], force=True)
    check_target(folder, [PHOTO_NAME] if PHOTO_NAME in names else [])  # it may be the only copy
    clashes = [name for name in names if (folder / name).exists()]
    if clashes and not may_replace:
        raise SceneError(
            "files of a scene stand here already",
            where=folder,
            got=", ".join(clashes),
            hint="choose another folder, or allow their replacement with --replace",
        )
    return tuple(names)


def write_scene(
    folder: Path, masked: MaskedPhoto, *, photo: Path, may_replace: bool = False
) -> tuple[Path, ...]:
    """Write what `load_scene` reads, all files or none.

    The photo becomes a PNG as it was read, upright and in sRGB, without its file's EXIF data,
    which may tell where it was taken; one that lies in the folder already stays as it is.

    Args:
        folder: The scene folder; made where it is missing.
        masked: What `make_masks` gave.
        photo: The photo's file.
        may_replace: Whether files of an existing scene may be replaced, but for the photo; masks of
            ours that it has no more go, and what is not as we wrote it is kept beside.

    Returns:
        The files that were written.

    Raises:
        SceneError: Files stand in the way.
        FileError: The folder cannot be written to.
    """
    scene = masked.scene
    (seen,) = scene.photos
    refuse_too_many(len(scene.concepts), folder)
    names = check_scene_place(folder, len(scene.things), photo=photo, may_replace=may_replace)
    pictures = {f"mask{k}.png": _mask_image(seen.masks[k]) for k in scene.things}
    pictures[OVERLAY_NAME] = masked.preview
    if PHOTO_NAME in names:
        pictures[PHOTO_NAME] = Image.fromarray(seen.pixels)
    masks = tuple(
        () if c.is_background else (f"mask{k}.png",) for k, c in enumerate(scene.concepts)
    )
    image = PHOTO_NAME if PHOTO_NAME in names else photo.name
    manifest = Manifest(folder, (image,), scene.concepts, masks)
    gone = {path.name for path in folder.glob("mask*.png") if OUR_MASK.fullmatch(path.name)}
    _write(manifest, pictures, gone=gone if may_replace else set(), may_replace=may_replace)
    return tuple(folder / name for name in names)


def save_scene(folder: Path, scene: Scene) -> None:
    """Write a scene of any number of photos for `load_scene`, in place of the one we wrote there.

    Photos become PNGs without their files' EXIF data, which may tell where they were taken.

    Args:
        folder: The scene folder; made where it is missing.
        scene: What to write; the masks of a background are not kept.

    Raises:
        SceneError: It holds a scene.toml in other capitals.
        FileError: The folder cannot be written to, or holds files that are not ours.
    """
    _refuse_other_spelling(folder)
    images = tuple(f"img{n}.png" for n in range(len(scene.photos)))
    pictures = {
        name: Image.fromarray(p.pixels) for name, p in zip(images, scene.photos, strict=True)
    }
    masks = []
    for k, concept in enumerate(scene.concepts):
        present = [k in photo.present for photo in scene.photos]
        names = [f"mask{n}_{k}.png" if there else "" for n, there in enumerate(present)]
        masks.append(() if concept.is_background else tuple(names))
        if not concept.is_background:
            pictures |= {
                name: _mask_image(photo.masks[k])
                for name, photo in zip(names, scene.photos, strict=True)
                if name
            }
    pictures[OVERLAY_NAME] = draw_overlay(scene)
    manifest = Manifest(folder, images, scene.concepts, tuple(masks))
    _write(manifest, pictures, gone={path.name for path in folder.glob("*.png")})


def _write(
    manifest: Manifest,
    pictures: Mapping[str, Image.Image],
    *,
    gone: set[str],
    may_replace: bool = False,
) -> None:
    """Write pictures and scene.toml together; what is gone goes where it is ours and not new.

    What somebody else made or edited, and may be replaced, is kept beside as `<name>.old`.
    """
    folder = manifest.folder
    for name in (*pictures, MANIFEST_NAME) if may_replace else ():
        if (folder / name).is_file() and not is_ours(folder / name):
            _keep_copy(folder / name)
    with written_together(folder, obsolete=gone - set(pictures), force=may_replace) as aside:
        for name, picture in pictures.items():
            write_picture(aside / name, picture)
        write_text(aside / MANIFEST_NAME, manifest_text(manifest))


def _keep_copy(file: Path) -> None:
    """Copy a file beside itself, under a name that is free, and tell."""
    names = (file.with_name(f"{file.name}.old{n or ''}") for n in itertools.count())
    copy = next(name for name in names if not os.path.lexists(name))
    with told_plainly(copy):
        shutil.copy2(file, copy)
    warn_of(file, f"is not as this program wrote it, and is replaced; kept as {copy.name}")


def _refuse_other_spelling(folder: Path) -> None:
    """Refuse a folder that is described under a name which ours would stand beside."""
    with told_plainly(folder):
        others = [file for file in descriptions_in(folder) if file.name != MANIFEST_NAME]
    if others:
        raise SceneError(
            f"another description stands where {MANIFEST_NAME} would be written",
            where=others[0],
            hint="move it away, or choose another folder",
        )


def _mask_image(mask: Mask) -> Image.Image:
    return Image.fromarray((255 * mask).round().astype("uint8"))
