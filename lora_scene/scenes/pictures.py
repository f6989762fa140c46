"""Photo files to arrays: any mode, upright, in sRGB, within a pixel limit."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_scene.errors import LoraSceneWarning, SceneError
from lora_scene.extras import optional

MAX_PIXELS = 64_000_000  # more than any phone's camera by default, 256 MB as RGBA
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
EXIF_ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4
EXIF_IFD, EXIF_COLOR_SPACE, EXIF_INTEROP = 0x8769, 0xA001, 0xA005  # EXIF 2.3, section 4.6
UNCALIBRATED = 0xFFFF  # the colour space of all that is not sRGB
ADOBE_RGB = "R03"  # the interoperability index of DCF 2.0's optional colour space
ADOBE_GAMMA = 563 / 256  # Adobe RGB (1998), section 4.3.4.2
ADOBE_TO_SRGB = (  # of linear values: IEC 61966-2-1's inverse matrix times Adobe RGB's, both D65
    (1.39836, -0.39836, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, -0.04293, 1.04293),
)
CODED = {"PNG": (b"cICP", 1), "AVIF": (b"colrnclx", 2), "HEIF": (b"colrnclx", 2)}  # bytes a code
HEAD = 1 << 18  # bytes of a file in which it tells them
SRGB_CODES = ((1, 2, 5, 6), (1, 2, 4, 6, 13, 14, 15))  # ITU-T H.273, tables 2 and 3: near to sRGB
REDUCED = 254  # the TIFF tag that says so of a page: TIFF 6.0, NewSubfileType, bit 0
SRGB_GAMMA = 1 / 2.2  # what a PNG's gAMA says of sRGB
UPRIGHT = 1
STRAY_ALPHA = 0.001  # of the pixels: less transparency than that is nobody's meaning
HEIF_SUFFIXES = (".heic", ".heif")
FORMATS = (  # those that are decoded here and now; EPS, for one, would start another program
    *("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"),
    *("JPEG2000", "PPM", "TGA"),
)
SAME_COLOUR = 2  # of 255: a profile that moves colours less than this is sRGB by another name
PROFILED_MODES = {  # the modes that a profile's colour space can speak for, and the one it is fed
    "RGB": (("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA", "1", *DEEP_MODES), "RGB"),
    "GRAY": (("L", "LA", "1", *DEEP_MODES), "L"),
    "CMYK": (("CMYK",), "CMYK"),
    "Lab": (("LAB",), "LAB"),
}

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


def read_photo(path: Path) -> UprightPhoto:
    """Read a photo of any mode as upright 8-bit sRGB; transparent parts become white.

    Colours are converted by the file's ICC profile, where it has one, and from Adobe RGB where the
    EXIF data alone say so. A `LoraSceneWarning` tells of what cannot be followed: a broken profile,
    another colour space without one, broken EXIF, further frames, and of transparent parts.

    Raises:
        SceneError: The file is missing, not an image, damaged, too large, of floats or a preview.
    """
    image, orientation = open_image(path)
    if image.mode in DEEP_MODES:
        profile = image.info.get("icc_profile")
        image = Image.fromarray(np.rint(deep_values(image, path) * 255).astype(np.uint8))
        image.info["icc_profile"] = profile
    colours = _to_srgb(image, path)
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        clear = float((np.asarray(alpha) < 255).mean())
        if clear > STRAY_ALPHA:
            warn_of(path, f"{100 * clear:.0f} % of it is transparent, and is read as white")
        colours.putalpha(alpha)
        paper = Image.new("RGBA", image.size, "white")
        colours = Image.alpha_composite(paper, colours).convert("RGB")
    stored = np.asarray(colours)
    pixels = np.ascontiguousarray(turn_upright(stored, orientation))
    return UprightPhoto(pixels, stored.shape[:2], orientation)


def open_image(path: Path) -> tuple[Image.Image, int]:
    """Decode an image file's first frame, and read its EXIF orientation, 1 to 8.

    Raises:
        SceneError: As in `read_photo`.
    """
    _check_is_file(path)
    if path.suffix.lower() in HEIF_SUFFIXES:
        _admit_heif(path)
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own; what matters of them is told below
        try:
            with Image.open(path, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                n_frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
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
                got=str(error).replace(f" {str(path)!r}", "") or type(error).__name__,
            ) from error
        _refuse_preview(image, path)
        orientation = _orientation(image)
    if not orientation:
        warn_of(path, "its EXIF data cannot be read; if it lies on its side, turn it and save it")
    if n_frames > 1:
        warn_of(path, f"the first of its {n_frames} frames or pages is read, the others are not")
    if image.mode == "F":
        raise _ranges_unknown(path, "floats")
    return image, orientation or UPRIGHT


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


def _to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert an 8-bit image of any mode to RGB, by its profile; alpha is left out."""
    from PIL import ImageCms

    data = image.info.get("icc_profile")
    if image.mode == "CMYK" and not data:
        warn_of(path, "CMYK without a colour profile: its colours are guessed; save it as sRGB")
    if not data and image.mode != "LAB":
        return _without_profile(image, path)
    try:
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        profile = ImageCms.ImageCmsProfile(BytesIO(data)) if data else lab
        space = profile.profile.xcolor_space.strip()
        modes, fed = PROFILED_MODES.get(space, ((), ""))
        if image.mode not in modes:
            raise ValueError(f"it is for {space}, the pixels are {image.mode}")
        srgb = ImageCms.createProfile("sRGB")
        convert = ImageCms.buildTransform(
            profile,
            srgb,
            fed,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if fed == "RGB":
            levels = np.arange(0, 256, 15, dtype=np.uint8)
            cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
            moved = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), convert))
            if np.abs(moved.astype(int) - cube).max() <= SAME_COLOUR:
                return image.convert("RGB")
        converted = ImageCms.applyTransform(image.convert(fed), convert)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        if image.mode == "LAB":
            raise SceneError("Lab colours cannot be read", where=path, got=error) from error
        warn_of(path, f"its colour profile cannot be used ({error}); it is read as sRGB")
        return image.convert("RGB")
    assert converted is not None, "only conversion in place returns nothing"
    return converted


def _without_profile(image: Image.Image, path: Path) -> Image.Image:
    """Convert an image to RGB that tells its colours, if at all, by EXIF, codes or a gamma."""
    colours = image.convert("RGB")
    if any(code not in near for code, near in zip(_codes(image, path), SRGB_CODES, strict=False)):
        warn_of(path, "it is HDR or of a wide gamut without a colour profile; it is read as sRGB")
    gamma = image.info.get("gamma")
    if gamma and "srgb" not in image.info and abs(gamma / SRGB_GAMMA - 1) > 0.05:
        warn_of(path, f"its gamma is {gamma:g} without a colour profile; it is read as sRGB")
    try:
        exif = image.getexif()
        space = exif.get_ifd(EXIF_IFD).get(EXIF_COLOR_SPACE)
        index = str(exif.get_ifd(EXIF_INTEROP).get(1, "")).strip("\0 ")
    except Exception:  # on a stranger's bytes; `open_image` told of it
        return colours
    if space == UNCALIBRATED and index != ADOBE_RGB:
        warn_of(path, "its EXIF names no colour space and it has no profile; it is read as sRGB")
    if index != ADOBE_RGB:
        return colours
    linear = (np.asarray(colours, dtype=np.float32) / 255) ** np.float32(ADOBE_GAMMA)
    linear = (linear @ np.array(ADOBE_TO_SRGB, dtype=np.float32).T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((255 * encoded).round().astype(np.uint8))


def _codes(image: Image.Image, path: Path) -> list[int]:
    """Return a file's codes of primaries and transfer; none where it tells none."""
    mark, width = CODED.get(image.format or "", (b"", 0))
    with path.open("rb") as file:
        _, found, after = file.read(HEAD if mark else 0).partition(mark or b"-")
    codes = [after[n * width : (n + 1) * width] for n in (0, 1)]
    return [int.from_bytes(code, "big") for code in codes if found]


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


def warn_of(where: object, text: str) -> None:
    """Warn of something in a file, or of a concept."""
    warnings.warn(f"{where}: {text}", LoraSceneWarning, stacklevel=2)
