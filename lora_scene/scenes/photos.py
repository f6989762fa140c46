"""Image files to arrays and back: any mode, upright, within a pixel limit."""

from __future__ import annotations

import os
import struct
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from lora_scene.errors import SceneError

MAX_PIXELS = 64_000_000  # more than any phone's camera by default, 256 MB as RGBA
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
EXIF_ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4
UPRIGHT = 1
SOFTWARE = "lora_scene"

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UprightPhoto:
    """A photo's pixels as people see them, and how the file stores them.

    Attributes:
        pixels: (H, W, 3) uint8, upright.
        stored_shape: (height, width) in the file, before the EXIF orientation.
        orientation: The EXIF orientation, 1 to 8; 1 is upright.
    """

    pixels: Pixels
    stored_shape: tuple[int, int]
    orientation: int


def read_photo(path: Path) -> UprightPhoto:
    """Read a photo of any mode as upright 8-bit RGB; transparent parts become white.

    Raises:
        SceneError: The file is missing, not an image, damaged, too large or of floats.
    """
    image = _open(path)
    orientation = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    if image.mode in SIXTEEN_BIT_MODES:
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257.0
        stored = np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        stored = np.asarray(
            Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
        )
    else:
        stored = np.asarray(image.convert("RGB"))
    pixels = np.ascontiguousarray(_upright(stored, orientation))
    return UprightPhoto(pixels, stored.shape[:2], orientation)


def read_mask(path: Path, photo: UprightPhoto | None = None) -> Mask:
    """Read a mask of any mode as (H, W) float32 in 0..1, soft edges kept.

    A varying alpha channel is the mask, as in cut-outs; otherwise the brightest colour channel
    is, so that a red or a palette mask counts like a white one. The mask's own EXIF orientation
    is obeyed. A mask without one that fits `photo` only as the file stores it is turned with it.

    Raises:
        SceneError: The file is missing, not an image, damaged, too large or of floats.
    """
    image = _open(path)
    orientation = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    mask = _opacity(image)
    if photo is not None and orientation == UPRIGHT and mask.shape != photo.pixels.shape[:2]:
        orientation = photo.orientation if mask.shape == photo.stored_shape else UPRIGHT
    return np.ascontiguousarray(_upright(mask, orientation))


def write_png(path: Path, image: Image.Image, *, software: str = SOFTWARE) -> None:
    """Write a PNG aside and rename it, so that no reader ever sees half of it.

    Args:
        path: The file; its folder must exist.
        image: What to write.
        software: Name of the writing program, kept in the file's text.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", software)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, format="PNG", pnginfo=info)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def write_own_png(path: Path, image: Image.Image, *, may_replace: bool = False) -> None:
    """Write a PNG with `write_png`, replacing nothing but this package's own pictures.

    Raises:
        SceneError: The file is somebody else's and `may_replace` is False, or its folder is
            missing or cannot be written to.
    """
    if path.exists() and not may_replace and not _is_own(path):
        raise SceneError(
            "a file that this program did not write stands here",
            where=path,
            hint="choose another name with --out",
        )
    try:
        write_png(path, image, software=SOFTWARE)
    except OSError as error:
        raise SceneError(
            "the picture cannot be written", where=path, got=error.strerror or str(error)
        ) from error


def _is_own(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, SyntaxError, ValueError):
        return False


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.is_file())[:8]
        raise SceneError(
            "no such file", where=path, expected="an image", got=f"beside it: {', '.join(near)}"
        )
    too_large = SceneError(
        "the image is too large",
        where=path,
        expected=f"at most {MAX_PIXELS // 1_000_000} megapixels",
        hint="scale it down first; training sees at most about 1 megapixel",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                image.load()
        except Image.DecompressionBombError as error:
            raise too_large from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise SceneError(
                "not a readable image",
                where=path,
                expected="a whole JPEG, PNG, WebP, TIFF or BMP file",
                got=str(error).replace(f" {str(path)!r}", "") or type(error).__name__,
            ) from error
    if image.mode == "F":
        raise SceneError(
            "an image of floats, whose range nobody can tell",
            where=path,
            expected="8 or 16 bits a channel",
            hint="save it as an 8-bit PNG",
        )
    return image


def _opacity(image: Image.Image) -> Mask:
    if image.mode in SIXTEEN_BIT_MODES:
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        return (deep / 65535.0).astype(np.float32)
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha.astype(np.float32) / 255.0
    brightest: Pixels = np.asarray(image.convert("RGB")).max(axis=2)
    return brightest.astype(np.float32) / np.float32(255.0)


def _upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    turned: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
        8: lambda a: np.rot90(a, 1),
    }
    return turned[orientation](array) if orientation in turned else array
