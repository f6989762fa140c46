"""Photo files to arrays: any mode, upright, in sRGB, within a pixel limit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lora_scene.errors import SceneError, warn_of
from lora_scene.extras import optional
from lora_scene.scenes.colour_spaces import DEEP_MODES, to_srgb
from lora_scene.silence import quiet_warnings

MAX_PIXELS = 64_000_000  # more than any phone's camera by default, 256 MB as RGBA
EXIF_ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4
REDUCED = 254  # the TIFF tag that says so of a page: TIFF 6.0, NewSubfileType, bit 0
UPRIGHT, LYING = 1, (5, 6, 7, 8)  # of its values: as seen, and with rows for columns
DARK_PEAK = 1 / 16  # of 16 bits: 12-bit values, and 8-bit ones, lie below it
READABLE = 4  # letters at a file's beginning that tell what it is, such as %PDF and 8BPS
GREY_SPREAD = 8  # of 255, between a pixel's channels: JPEG leaves as much of none
COLOURED = 0.01  # of the pixels: fewer with more spread than that are a stain or a stamp
STRAY_ALPHA = 0.001  # of the pixels: less transparency than that is nobody's meaning
HEIF_SUFFIXES = (".heic", ".heif")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
FORMATS = (  # those that are decoded here and now; EPS, for one, would start another program
    *("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"),
    *("JPEG2000", "PPM", "TGA"),
)

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UprightPhoto:
    """A photo's pixels as people see them, and how the file stores them.

    Attributes:
        pixels: (H, W, 3) uint8, upright, sRGB.
        stored_shape: (height, width) in the file, before the EXIF orientation.
        orientation: The EXIF orientation, 1 to 8; 1 is upright.
    """

    pixels: Pixels
    stored_shape: tuple[int, int]
    orientation: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image file's first frame, and how it is to be turned.

    Attributes:
        image: Its pixels.
        orientation: What EXIF says of the file, 1 to 8; 1 is upright.
        is_turned: Whether the decoder has turned the pixels by it already.
    """

    image: Image.Image
    orientation: int
    is_turned: bool

    def upright(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn what has the image's rows and columns, (H, W, ...), as people see it."""
        return array if self.is_turned else turn_upright(array, self.orientation)


def read_photo(path: Path) -> UprightPhoto:
    """Read a photo of any mode as upright 8-bit sRGB; transparent parts become white.

    Colours are converted by the file's ICC profile, where it has one, and from Adobe RGB where the
    EXIF data alone say so. A `LoraSceneWarning` tells of what cannot be followed: a broken profile,
    another colour space without one, broken EXIF, further frames, and of transparent parts.

    Raises:
        SceneError: The file is missing, not an image, damaged, too large, of floats or a preview.
    """
    decoded = decode_image(path)
    image, orientation = decoded.image, decoded.orientation
    if image.mode in DEEP_MODES:
        profile = image.info.get("icc_profile")
        deep = deep_values(image, path)
        if deep.max() < DARK_PEAK:
            peak = f"{65535 * deep.max():.0f} of 65535"
            warn_of(
                path, f"its brightest is {peak}, nearly black; if it holds fewer bits, scale it"
            )
        image = Image.fromarray(np.rint(deep * 255).astype(np.uint8))
        image.info["icc_profile"] = profile
    colours = to_srgb(image, path)
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        clear = float((np.asarray(alpha) < 255).mean())
        if clear > STRAY_ALPHA:
            warn_of(path, f"{100 * clear:.1f} % of it is transparent, and is read as white")
        colours.putalpha(alpha)
        paper = Image.new("RGBA", image.size, "white")
        colours = Image.alpha_composite(paper, colours).convert("RGB")
    pixels = np.ascontiguousarray(decoded.upright(np.asarray(colours)))
    height, width = pixels.shape[:2]
    stored_shape = (width, height) if orientation in LYING else (height, width)
    return UprightPhoto(pixels, stored_shape, orientation)


def open_image(path: Path) -> tuple[Image.Image, int]:
    """Decode an image file's first frame, and tell how it is still to be turned, 1 to 8.

    Raises:
        SceneError: As in `read_photo`.
    """
    decoded = decode_image(path)
    return decoded.image, UPRIGHT if decoded.is_turned else decoded.orientation


def decode_image(path: Path) -> Decoded:
    """Decode an image file's first frame, and read its EXIF orientation.

    Raises:
        SceneError: As in `read_photo`.
    """
    _check_is_file(path)
    head = _head(path)
    if path.suffix.lower() in HEIF_SUFFIXES or _is_heif(head):
        _admit_heif(path)
    Image.init()
    with quiet_warnings():  # Pillow's own; what matters of them is told below
        try:
            with Image.open(path, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                n_frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
                orientation = _orientation(image)
                if orientation in LYING:
                    image.filename = ""  # else Pillow 12.3 maps a plain TIFF by its turned width
                image.load()
        except Image.DecompressionBombError as error:
            raise SceneError(
                "the image is too large",
                where=path,
                expected=f"at most {MAX_PIXELS // 1_000_000} megapixels",
                hint="scale it down first; training sees at most about 1 megapixel",
            ) from error
        except Exception as error:  # decoders raise anything at all on a stranger's bytes
            raise SceneError(
                "not a readable image",
                where=path,
                expected="a whole JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF file",
                got=_told(error, path, head),
            ) from error
        _refuse_preview(image, path)
        is_turned = orientation > UPRIGHT and _orientation(image) == UPRIGHT
    if not orientation:
        warn_of(path, "its EXIF data cannot be read; if it lies on its side, turn it and save it")
    if n_frames > 1:
        warn_of(path, f"the first of its {n_frames} frames or pages is read, the others are not")
    if image.mode == "F":
        raise _ranges_unknown(path, "floats")
    return Decoded(image, orientation or UPRIGHT, is_turned)


def grey_doubt(pixels: Pixels) -> tuple[str, ...]:
    """Say that a photo has no colours, and what follows; nothing of one that has some.

    Args:
        pixels: (H, W, 3) uint8.
    """
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    if (spread > GREY_SPREAD).mean() > COLOURED:
        return ()
    return (
        "the photo is grey: its things are learnt grey, and are far from the colours that the base "
        "gives most nouns, so that a recipe with grounds shows them on the base's coloured ones; "
        "take a photo in colour if they are to have any",
    )


def _refuse_preview(image: Image.Image, path: Path) -> None:
    if image.format == "TIFF" and image.tag_v2.get(REDUCED, 0) & 1:  # type: ignore[attr-defined]
        raise SceneError(
            "its first page is the preview of a larger photo, as in a camera's raw files",
            where=path,
            got=f"{image.width} x {image.height} pixels",
            hint="develop it to a JPEG or PNG",
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 0 where it cannot be read."""
    try:
        found = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    except Exception:  # readers raise anything at all on a stranger's bytes
        return 0
    return int(found) if found in range(1, 9) else 0


def deep_values(image: Image.Image, path: Path) -> Mask:
    """Return a 16-bit image's (H, W) values in 0..1.

    Raises:
        SceneError: It holds other integers than 16 bits do.
    """
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise _ranges_unknown(path, "32-bit integers")
    return (deep.astype(np.float64) / 65535.0).astype(np.float32)


def turn_upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn stored rows and columns (H, W, ...) as an EXIF orientation says."""
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


def _check_is_file(path: Path) -> None:
    try:
        if path.is_file():
            return
        what = "not a file" if path.exists() else "no such file"
        near = sorted(p.name for p in path.parent.glob("*") if p.is_file())
    except OSError as error:
        raise SceneError("cannot be read", where=path, got=error.strerror or error) from error
    got = f"beside it: {', '.join(near[:8])}" + (f" and {len(near) - 8} more" if near[8:] else "")
    alike = [n for n in near if _folded(n) == _folded(path.name)]
    hint = f"is it {alike[0]}? that name is spelled in other capitals or accents" if alike else None
    raise SceneError(what, where=path, expected="an image", got=got if near else None, hint=hint)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise SceneError("cannot be read", where=path, got=error.strerror or error) from error


def _is_heif(head: bytes) -> bool:
    """Tell by its beginning whether a file is HEIF, as a phone's photo that was renamed is.

    ISO 23008-12, annex B: a box `ftyp` with its brand, and the others that it fits. AVIF, which
    shares brands, is read without help.
    """
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head[: head[3]]


def _told(error: Exception, path: Path, head: bytes) -> str:
    """Return why a file is no image, and how it begins where that is text: a page, a pointer."""
    if not head:
        return "an empty file"
    said = str(error).replace(f" {str(path)!r}", "") or type(error).__name__
    words = re.match(rb"[ -~]*", head.lstrip(b"\xef\xbb\xbf\r\n\t "))
    if isinstance(error, UnidentifiedImageError) and words and len(words[0]) >= READABLE:
        return f"{said}; it begins with {words[0].decode('ascii')!r}"
    return said


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _admit_heif(path: Path) -> None:
    """Let Pillow read HEIF by pillow-heif, where that is installed."""
    instead = "save the photo as a JPEG or PNG"
    optional("pillow_heif", error=SceneError, where=path, instead=instead).register_heif_opener()


def _ranges_unknown(path: Path, of: str) -> SceneError:
    return SceneError(
        f"an image of {of}, whose range nobody can tell",
        where=path,
        expected="8 or 16 bits a channel",
        hint="save it as an 8-bit PNG",
    )
