"""Pictures to files that say whose they are, by the one writer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from lora_scene.errors import FileError
from lora_scene.files import write_bytes
from lora_scene.ownership import EXIF_SOFTWARE, NAME, UNMARKED, mark_picture

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LOSSY = (".jpg", ".jpeg")
QUALITY = 95  # of JPEG, out of 100
EXIF_DESCRIPTION = 0x010E  # TIFF 6.0, section 8
MAX_EXIF = 60_000  # bytes; a JPEG's whole EXIF has 65,533


def write_picture(
    path: Path,
    image: Image.Image,
    texts: Mapping[str, str] | None = None,
    *,
    root: Path | None = None,
    force: bool = False,
) -> Path:
    """Write a picture in the format of its name; folders are made if need be.

    Args:
        path: A `.png`, `.jpg` or `.webp`.
        image: What to write.
        texts: See `encode_picture`.
        root: See `writing`.
        force: Whether a file of others may be replaced.

    Raises:
        FileError: An unknown format, a foreign file, or the place cannot be written.
    """
    # encoded first: an encoder that meets a full disk itself says only "encoder error -2"
    return write_bytes(path, encode_picture(image, path, texts), root=root, force=force)


def check_format(path: Path) -> str:
    """Return the format of a picture's file by its ending.

    Raises:
        FileError: No format has it.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise FileError("no format of pictures", where=path, expected=", ".join(FORMATS))
    return kind


def encode_picture(image: Image.Image, path: Path, texts: Mapping[str, str] | None = None) -> bytes:
    """Return a picture's file in the format of its name, marked as ours; WebP without loss.

    Args:
        image: What to write.
        path: A `.png`, `.jpg` or `.webp`.
        texts: Kept in a PNG. The others hold the one named `lora_scene`, in ASCII, as their EXIF's
            description.

    Raises:
        FileError: An unknown format, or a text that it cannot hold.
    """
    kind, texts = check_format(path), texts or {}
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", UNMARKED)
        for key, text in texts.items():
            info.add_itxt(key, text)
        options = {"pnginfo": info}
    else:
        exif = Image.Exif()
        exif[EXIF_SOFTWARE] = UNMARKED
        if NAME in texts:
            exif[EXIF_DESCRIPTION] = texts[NAME]
        if len(texts.get(NAME, "")) > MAX_EXIF:
            raise FileError("too long a record for this format", where=path, hint="write a .png")
        options |= {"exif": exif, "quality": QUALITY}
    return _encoded(image, kind, options)


def encode_gif(images: Sequence[Image.Image], *, milliseconds: int) -> bytes:
    """Return an endless GIF, `milliseconds` a frame, marked as ours."""
    options = {
        "save_all": True,
        "append_images": images[1:],
        "duration": milliseconds,
        "loop": 0,
        "comment": UNMARKED,
    }
    return _encoded(images[0], "GIF", options)


def _encoded(image: Image.Image, kind: str, options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return mark_picture(file.getvalue())
