"""Mask files to arrays: what black, white, labels, palettes and transparency mean in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_scene.errors import SceneError, warn_of
from lora_scene.ownership import is_ours
from lora_scene.scenes.colour_spaces import DEEP_MODES
from lora_scene.scenes.pictures import (
    UPRIGHT,
    Mask,
    Pixels,
    UprightPhoto,
    decode_image,
    deep_values,
    turn_upright,
)

Regions = npt.NDArray[np.bool_]

INSIDE = 0.5  # a soft mask's value from which a pixel counts as the concept's
MIN_COVERAGE = 0.001  # of the photo: 262 pixels at 512 px, about four latent cells
WHITE = 250 / 255  # and above: JPEG's white
DARK = 8 / 255  # and below: JPEG's black
EDGE = 4  # pixels from what is not dark: nearer, dark values are the end of a soft edge
MOST_LABELS = 16  # a soft edge has more values than that
DARKEST_HUE, HUE_SPREAD = 48, 0.1  # of 255; of a channel's share in the brightest one
VOC_VOID = (224, 224, 192)  # Pascal VOC's colour for a border that belongs to nobody
AGREEING = 0.9  # IoU from which alpha and colours tell one mask


def read_mask(path: Path, photo: UprightPhoto | None = None) -> Mask:
    """Read a mask of any mode as (H, W) float32 in 0..1, soft edges kept.

    - An alpha channel that cuts something out is the mask, as in cut-outs, read as greys are.
    - Otherwise the brightest colour channel is, so that a red mask counts like a white one.
    - A palette of colours is a picture of labels, and so is one of a few plain colours: black is
      outside, every other colour inside, but for Pascal VOC's void border. So is a grey picture
      of a few values without white, such as 0 and 1, or 0 and 128, and one with white whose greys
      fill areas, as in 0, 127 and 255, and are no soft edges: 0 is outside, every other inside.
    - A soft mask that is grey at its brightest is scaled, so that it counts fully there.
    - A grey picture without black has its darkest value outside.
    - What is nearly black, and at no soft edge, is outside: the noise of JPEGs and of networks.

    The mask's own EXIF orientation is obeyed. A mask without one that fits `photo` only as the
    file stores it is turned with it. A `LoraSceneWarning` tells what else than black and white
    was found, and what it was taken for.

    Raises:
        SceneError: The file is missing, not an image, damaged, too large or of floats, or a
            palette's labels without black.
    """
    decoded = decode_image(path)
    mask = decoded.upright(_opacity(decoded.image, path))
    says_nothing = decoded.orientation == UPRIGHT
    if photo is not None and says_nothing and mask.shape == photo.stored_shape:
        turned = turn_upright(mask, photo.orientation)
        if mask.shape != photo.pixels.shape[:2]:
            mask = turned
        elif (turned != mask).any() and not is_ours(path):  # ours are drawn on what is seen
            warn_of(path, "its photo is turned by EXIF; the mask, which says nothing of it, is not")
    return np.ascontiguousarray(mask)


def _opacity(image: Image.Image, path: Path) -> Mask:
    if image.mode in DEEP_MODES:
        return _levels(deep_values(image, path), path)
    if not image.has_transparency_data:
        return _colours(image, path)
    alpha = np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.float32) / 255.0
    if alpha.min() == alpha.max():
        return _colours(image, path)
    is_opaque = alpha >= INSIDE * alpha.max()
    if min(is_opaque.mean(), 1 - is_opaque.mean()) < MIN_COVERAGE:
        warn_of(path, "its transparency cuts nothing out; its colours are taken for the mask")
        return _colours(image, path)
    grey = np.asarray(image.convert("RGB"), dtype=np.float32).max(axis=2) / 255.0
    is_drawn = bool(np.isin(grey, (0.0, 1.0)).all()) and grey.min() < grey.max()
    if is_drawn and iou(grey >= INSIDE, is_opaque) < AGREEING:
        warn_of(path, "its transparency and its colours tell different masks; the former is taken")
    return _levels(alpha, path)


def _colours(image: Image.Image, path: Path) -> Mask:
    """Return the mask that colours tell: labels where they are a palette's, else brightness."""
    pixels = np.asarray(image.convert("RGB"))
    brightest = pixels.max(axis=2)
    is_labels = image.mode == "P" and bool((pixels != pixels[:, :, :1]).any())
    if not is_labels and _has_several_hues(pixels, brightest):
        is_labels = len(np.unique(pixels.reshape(-1, 3), axis=0)) <= MOST_LABELS
        if not is_labels:
            warn_of(path, "a picture in many colours: is it a mask? the brighter, the more inside")
    if is_labels:
        return _labels(pixels, path)
    return _levels(brightest.astype(np.float32) / np.float32(255.0), path)


def _has_several_hues(pixels: Pixels, brightest: npt.NDArray[np.uint8]) -> bool:
    """Tell whether what is not dark differs in hue, as labels and photos do, and red paint not."""
    bright = brightest >= DARKEST_HUE
    hues = pixels[bright] / brightest[bright][:, None].astype(np.float32)
    return bool(bright.any() and hues.std(axis=0).max() > HUE_SPREAD)


def _labels(pixels: Pixels, path: Path) -> Mask:
    inside = pixels.any(axis=2) & (pixels != VOC_VOID).any(axis=2)
    if inside.all():
        raise SceneError(
            "a picture of labels without black",
            where=path,
            expected="black where the concept is not",
            hint="save it as black and white",
        )
    n_labels = len(np.unique(pixels[inside] @ np.array([1, 256, 65536])))
    if n_labels > 1:
        warn_of(path, f"a picture of {n_labels} labels, read as one mask: all that is not black")
    return np.asarray(inside, dtype=np.float32)


def _levels(mask: Mask, path: Path) -> Mask:
    """Read brightness or opacity (H, W) in 0..1: labels, or a soft mask of any peak."""
    peak = float(mask.max())
    floor = float(mask.min())
    if peak == 0.0:
        return mask
    if 0.0 < floor < peak and (floor > DARK or len(np.unique(mask)) <= MOST_LABELS):
        warn_of(path, f"its darkest is {255 * floor:.0f} of 255, which is taken for black")
        mask = (mask - np.float32(floor)) * np.float32(peak / (peak - floor))
    labels = np.unique(mask[mask > 0])
    if len(labels) <= MOST_LABELS and (peak < WHITE or _fill_areas(mask)):
        if len(labels) > 1:
            shown = f"{len(labels)} labels ({', '.join(f'{255 * one:.0f}' for one in labels)})"
            warn_of(path, f"a picture of {shown}, read as one mask: all that is not 0")
        return (mask > 0).astype(np.float32)
    if peak >= WHITE:
        mask = _without_noise(mask)
        if (mask < INSIDE).sum() - (mask == 0).sum() > (mask >= INSIDE).sum():
            text = "more of it is dark grey than white; only what is bright counts as inside"
            warn_of(path, text)
        return mask
    if peak >= INSIDE:
        warn_of(path, f"it is grey, {100 * peak:.0f} % of white at most; scaled to count fully")
        return _without_noise(mask / np.float32(peak))
    return mask


def _without_noise(mask: Mask) -> Mask:
    """Return a mask (H, W) that is 0 where it is dark with nothing brighter near."""
    import cv2

    around = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    near = cv2.dilate((mask > DARK).astype(np.uint8), around)
    quiet: Mask = mask * near
    return quiet


def _fill_areas(mask: Mask) -> bool:
    """Tell whether most grey pixels lie among their like, as labels do and soft edges do not."""
    grey = (mask > 0) & (mask < WHITE)
    middle = mask[1:-1, 1:-1]
    inner = grey[1:-1, 1:-1].copy()
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= mask[y : y + middle.shape[0], x : x + middle.shape[1]] == middle
    return (
        bool(inner.mean() >= MIN_COVERAGE and inner.sum() > grey.sum() / 2) if inner.size else False
    )


def iou(a: Regions, b: Regions) -> float:
    """Return intersection over union of two regions (H, W), 0..1; 0 if both are empty."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))
