"""Scene completion: holes are filled, and the canvas grows, with the scene's own concepts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from lora_scene.creating.editing import Region, check_photo_and_mask, region_record, repaint
from lora_scene.creating.limits import MAX_SEED
from lora_scene.creating.names import Names
from lora_scene.creating.records import picture_hash, provenance
from lora_scene.creating.rendering import checked
from lora_scene.creating.requests import Request
from lora_scene.creating.sampling import Tick
from lora_scene.creating.studio import Studio
from lora_scene.creating.windows import SquareWindow, next_window, prefilled
from lora_scene.errors import CreationError
from lora_scene.scenes.pictures import MAX_PIXELS, Mask, Pixels

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Growth:
    """How far the canvas grows on each side, pixels."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @classmethod
    def parse(cls, text: str) -> Growth:
        """Read `left=64,right=64`, or `64` for all sides.

        Raises:
            CreationError: It has another form.
        """
        if re.fullmatch(r"[0-9]{1,5}", text.strip()):
            return cls(*[int(text)] * 4)
        parts = [re.fullmatch(r"\s*(\w+)=([0-9]{1,5})\s*", part) for part in text.split(",")]
        amounts = {match.group(1): int(match.group(2)) for match in parts if match is not None}
        if len(amounts) != len(parts) or not set(amounts) <= set(SIDES):
            raise CreationError(
                "not a growth", where=text, expected="pixels, or such as left=64,bottom=32"
            )
        return cls(**amounts)


def default_prompt(names: Names) -> str:
    """Return a prompt for what is around a scene: its own background, if it was learnt.

    Raises:
        CreationError: No adapter has a background handle.
    """
    if names.background is None:
        raise CreationError(
            "no background was learnt, so the hole needs a prompt",
            expected="--prompt, or an adapter of a scene with background = true",
        )
    return f"a photo of {names.background}"


def grown(photo: Pixels, growth: Growth) -> tuple[Pixels, Mask]:
    """Return a larger canvas with a photo on it, and the hole (H, W) around it.

    Raises:
        CreationError: It is larger than any photo that is read.
    """
    height = growth.top + photo.shape[0] + growth.bottom
    width = growth.left + photo.shape[1] + growth.right
    if width * height > MAX_PIXELS:
        raise CreationError(
            "the canvas is too large",
            where="grow",
            expected=f"at most {MAX_PIXELS // 1_000_000} megapixels",
            got=f"{width} x {height} pixels",
        )
    margins = ((growth.top, growth.bottom), (growth.left, growth.right))
    canvas = np.pad(photo, (*margins, (0, 0)), mode="edge")
    hole = np.pad(np.zeros(photo.shape[:2], np.float32), margins, constant_values=1)
    return canvas, hole


def plan_windows(hole: Mask, side: int) -> list[SquareWindow]:
    """Return windows of a side that fill a hole (H, W) one after the other.

    Each takes the place with most to fill beside most that is known, so that the picture grows
    from what is there outwards. Seen from a later window, what an earlier one drew is known.
    """
    left = hole > 0
    windows = []
    while left.any():
        windows.append(next_window(left, side))
        left[windows[-1].inside] = False
    return windows


def spread(hole: Mask, pixels: int) -> Mask:
    """Return a hole (H, W) of 0 and 1: every pixel that it touches, and `pixels` more around.

    The rim of a thing often lies just outside its mask, and would stay as a ghost.
    """
    known = (hole <= 0).astype(np.uint8)
    if known.all():
        return np.zeros_like(hole)
    distance = cv2.distanceTransform(known, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    wider: Mask = (distance <= pixels).astype(np.float32)
    return wider


def complete(
    studio: Studio,
    photo: Pixels,
    hole: Mask,
    request: Request,
    *,
    windows: Sequence[SquareWindow] = (),
    tick: Tick | None = None,
) -> Pixels:
    """Fill a hole of any size and form, window by window.

    Args:
        studio: The base and its adapters.
        photo: (H, W, 3) uint8.
        hole: (H, W) float32, 1 where is to be filled; elsewhere nothing changes.
        request: What to draw; window n is drawn with seed + n.
        windows: Of `plan_windows`, at the base's resolution; none plans them here.
        tick: Called after every step; the solver runs once a window.

    Returns:
        (H, W, 3) uint8, equal to the photo wherever the hole is 0.

    Raises:
        CreationError: The hole is empty or of another size; the prompt names an unknown handle.
    """
    check_photo_and_mask(photo, hole, "hole")
    request = checked(studio, request, has_start=True)
    left = spread(hole, 0)
    windows = windows or plan_windows(hole, studio.backbone.resolution)
    photo = prefilled(photo, left)
    for number, window in enumerate(windows):
        part = np.zeros_like(left)
        part[window.inside], left[window.inside] = left[window.inside], 0
        seeded = replace(request, seed=(request.seed + number) % (MAX_SEED + 1))
        photo = repaint(studio, photo, Region(part, seeded), window, feather=0, tick=tick)
    return photo


def complete_record(studio: Studio, photo: Pixels, hole: Mask, request: Request) -> dict[str, Any]:
    """Return everything that fills a hole again, but for the photo and the hole themselves."""
    return {
        **provenance(studio),
        "verb": "complete",
        "photo": picture_hash(photo),
        "hole": picture_hash(hole),
        "regions": [region_record(studio, request)],
    }
