"""A picture of a photo's masks: tints, outlines, and labels with handle and coverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from lora_scene.scenes.coverage import covered
from lora_scene.scenes.framing import rescale_masks, resize_pixels
from lora_scene.scenes.pictures import Mask
from lora_scene.scenes.scene import INSIDE, Photo, Scene

# Okabe and Ito's colours, told apart by colour-blind people too; black left out
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
LEAST_SIDE, MOST_SIDE = 768, 1536  # the longer side of the drawn picture, pixels
TINT = 0.4
FONT_SHARE = 1 / 36  # of the longer side
GAP = 8  # between the pictures of several photos, pixels

_Box = tuple[float, float, float, float]
_Colour = tuple[int, int, int]
_Label = tuple[str, tuple[float, float], _Colour]  # text, (x, y) of its middle, frame


def draw_overlay(scene: Scene) -> Image.Image:
    """Draw every photo of a scene with its masks, side by side when there are several."""
    pictures = [draw_masks(photo, scene.handles) for photo in scene.photos]
    if len(pictures) == 1:
        return pictures[0]
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    width = max(picture.width for picture in pictures) + GAP
    height = max(picture.height for picture in pictures) + GAP
    sheet = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    for n, picture in enumerate(pictures):
        sheet.paste(picture, (n % columns * width, n // columns * height))
    return sheet


def draw_masks(photo: Photo, names: Sequence[str]) -> Image.Image:
    """Draw one photo with its masks, enlarged or reduced so that the labels can be read.

    Args:
        photo: The photo and its masks.
        names: One a mask, shown before the coverage.
    """
    longer = max(photo.height, photo.width)
    factor = min(max(longer, LEAST_SIDE), MOST_SIDE) / longer
    shape = max(round(photo.height * factor), 1), max(round(photo.width * factor), 1)
    pixels = resize_pixels(photo.pixels, shape).astype(np.float32)
    masks = rescale_masks(photo.masks, shape)
    line = max(round(max(shape) / 400), 1)
    labels = []
    for k in sorted(photo.present, key=lambda k: -covered(photo, k)):  # small outlines on top
        colour = COLOURS[k % len(COLOURS)]
        _tint(pixels, masks[k], colour, line)
        text = f"{names[k]} {100 * covered(photo, k):.1f} %"
        labels.append((text, _middle(masks[k]), colour))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    _write(picture, labels)
    return picture


def _tint(pixels: npt.NDArray[np.float32], mask: Mask, colour: _Colour, line: int) -> None:
    """Tint a mask's region in place, with a dark and a coloured outline."""
    import cv2

    opacity = TINT * mask[:, :, None]
    pixels *= 1.0 - opacity
    pixels += opacity * np.array(colour, dtype=np.float32)
    contours, _ = cv2.findContours(
        (mask >= INSIDE).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(pixels, contours, -1, (0.0, 0.0, 0.0), 3 * line, cv2.LINE_AA)
    cv2.drawContours(pixels, contours, -1, colour, line, cv2.LINE_AA)


def _middle(mask: Mask) -> tuple[float, float]:
    """Return the (x, y) inside a mask that is farthest from its edge."""
    import cv2

    inside = np.pad((mask >= INSIDE).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def _write(picture: Image.Image, labels: Sequence[_Label]) -> None:
    """Write the labels near their anchors, inside the picture, none upon another."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(round(max(picture.size) * FONT_SHARE), 10))
    taken: list[_Box] = []
    for text, anchor, colour in sorted(labels, key=lambda label: label[1][1]):
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        margin = (bottom - top) / 3
        size = right - left + 2 * margin, bottom - top + 2 * margin
        box = _free_box(anchor, size, picture.size, taken)
        taken.append(box)
        line = max(round(margin / 3), 1)
        draw.rounded_rectangle(box, radius=margin, fill=(0, 0, 0), outline=colour, width=line)
        at = box[0] + margin - left, box[1] + margin - top
        draw.text(at, text, fill=(255, 255, 255), font=font)


def _free_box(
    anchor: tuple[float, float],
    size: tuple[float, float],
    limits: tuple[int, int],
    taken: Sequence[_Box],
) -> _Box:
    """Return the first box from the anchor outwards, up and down, that covers no other."""
    width, height = size
    left = min(max(anchor[0] - width / 2, 0), max(limits[0] - width, 0))
    lowest = max(limits[1] - height, 0)
    middle = anchor[1] - height / 2
    n_steps = int(2 * limits[1] / height) + 1
    shifts = sorted((n * height / 2 for n in range(-n_steps, n_steps + 1)), key=abs)
    tops = [min(max(middle + shift, 0), lowest) for shift in (*shifts, 0)]
    boxes = [(left, top, left + width, top + height) for top in tops]
    return next((one for one in boxes if not any(_meet(one, t) for t in taken)), boxes[-1])


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
