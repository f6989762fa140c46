"""Pictures to files that say whose they are, by the one writer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from lora_scene.errors import FileError
from lora_scene.files import write_bytes
from lora_scene.ownership import EXIF_SOFTWARE, NAME

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY = 95  # of JPEG and WebP, out of 100


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
        texts: Kept in a PNG; the other formats hold none.
        root: See `writing`.
        force: Whether a file of others may be replaced.

    Raises:
        FileError: An unknown format, a foreign file, or the place cannot be written.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise FileError("no format of pictures", where=path, expected=", ".join(FORMATS))
    options: dict[str, Any] = {"quality": QUALITY}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", NAME)
        for key, text in (texts or {}).items():
            info.add_itxt(key, text)
        options = {"pnginfo": info}
    else:
        exif = Image.Exif()
        exif[EXIF_SOFTWARE] = NAME
        options["exif"] = exif
    return _write(path, image, kind, options, root=root, force=force)


def write_gif(path: Path, images: Sequence[Image.Image], *, milliseconds: int) -> Path:
    """Write an endless GIF, `milliseconds` a frame.

    Raises:
        FileError: A foreign file, or the place cannot be written.
    """
    options = {
        "save_all": True,
        "append_images": images[1:],
        "duration": milliseconds,
        "loop": 0,
        "comment": NAME,
    }
    return _write(path, images[0], "GIF", options)


def _write(
    path: Path, image: Image.Image, kind: str, options: Mapping[str, Any], **rules: Any
) -> Path:
    # encoded first: an encoder that meets a full disk itself says only "encoder error -2"
    encoded = io.BytesIO()
    image.save(encoded, format=kind, **options)
    return write_bytes(path, encoded.getvalue(), **rules)
