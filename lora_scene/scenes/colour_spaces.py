"""Colours of image files to sRGB: by profile, else by what EXIF, codes or a gamma tell."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from lora_scene.errors import SceneError, warn_of

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
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
SRGB_GAMMA = 1 / 2.2  # what a PNG's gAMA says of sRGB
SAME_COLOUR = 2  # of 255: a profile that moves colours less than this is sRGB by another name
PROFILED_MODES = {  # the modes that a profile's colour space can speak for, and the one it is fed
    "RGB": (("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA", "1", *DEEP_MODES), "RGB"),
    "GRAY": (("L", "LA", "1", *DEEP_MODES), "L"),
    "CMYK": (("CMYK",), "CMYK"),
    "Lab": (("LAB",), "LAB"),
}


def to_srgb(image: Image.Image, path: Path) -> Image.Image:
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
