"""Pictures to files that say whose they are, by the one writer."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from lora_scene.errors import FileError
from lora_scene.files import write_bytes
from lora_scene.ownership import EXIF_SOFTWARE, NAME, mark_picture

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LOSSY = (".jpg", ".jpeg")
MOST_SIDE = {"WEBP": 16_383, "JPEG": 65_500}  # pixels: what libwebp and libjpeg write
QUALITY = 95  # of JPEG, out of 100
EXIF_DESCRIPTION = 0x010E  # TIFF 6.0, section 8
MAX_EXIF = 60_000  # bytes; a JPEG's whole EXIF has 65,533


def write_picture(
    path: Path,
    image: Image.Image,
    texts: Mapping[str, str] | None = None,
    *,
    root: Path | None = None,
) -> Path:
    """Write a picture in the format of its name; folders are made if need be.

    Args:
        path: A `.png`, `.jpg` or `.webp`.
        image: What to write.
        texts: See `encode_picture`.
        root: See `writing`.

    Raises:
        FileError: An unknown format, a foreign file, or the place cannot be written.
    """
    # encoded first: an encoder that meets a full disk itself says only "encoder error -2"
    return write_bytes(path, encode_picture(image, path, texts), root=root)


def check_format(path: Path) -> str:
    """Return the format of a picture's file by its ending.

    Raises:
        FileError: No format has it.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise FileError("no format of pictures", where=path, expected=", ".join(FORMATS))
    return kind


def check_sides(path: Path, width: int, height: int) -> None:
    """Refuse a picture that is too large for the format of its file's name.

    Raises:
        FileError: It is.
    """
    most = MOST_SIDE.get(check_format(path), max(width, height))
    if max(width, height) > most:
        raise FileError(
            "too large a picture for this format",
            where=path,
            expected=f"sides of at most {most} pixels",
            got=f"{width} x {height}",
            hint="write a .png",
        )


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
    if kind == "PNG":
        return _marked(image, kind, lambda mark: {"pnginfo": _png_texts(mark, texts)})
    if len(texts.get(NAME, "")) > MAX_EXIF:
        raise FileError("too long a record for this format", where=path, hint="write a .png")
    more = {"lossless": True} if kind == "WEBP" else {}
    return _marked(
        image, kind, lambda mark: {"exif": _exif(mark, texts), "quality": QUALITY, **more}
    )


def encode_gif(images: Sequence[Image.Image], *, milliseconds: int) -> bytes:
    """Return an endless GIF, `milliseconds` a frame, marked as ours."""
    timed = {"append_images": images[1:], "duration": milliseconds, "loop": 0}
    return _marked(images[0], "GIF", lambda mark: {"save_all": True, "comment": mark, **timed})


def _png_texts(mark: str, texts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", mark)
    for key, text in texts.items():
        info.add_itxt(key, text)
    return info


def _exif(mark: str, texts: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_SOFTWARE] = mark
    if NAME in texts:
        exif[EXIF_DESCRIPTION] = texts[NAME]
    return exif


def _marked(image: Image.Image, kind: str, options: Callable[[str], Mapping[str, Any]]) -> bytes:
    """Return the file of a picture; `options` are the encoder's, given the mark."""

    def encode(mark: str) -> bytes:
        file = io.BytesIO()
        image.save(file, format=kind, **options(mark))
        return file.getvalue()

    return mark_picture(encode)
