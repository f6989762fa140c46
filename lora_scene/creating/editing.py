"""Local editing by example: what is in a region becomes what a prompt says.

    photo, mask -> window around the mask, at the base's size
      -> Blended Latent Diffusion -> laid over the photo through the mask

Several regions are edited one after the other, each on the result of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_scene.creating.blending import Brush, check_photo_and_mask, redraw
from lora_scene.creating.encoding import check_prompt
from lora_scene.creating.requests import picture_hash, provenance
from lora_scene.creating.sampling import Pixels, Tick
from lora_scene.creating.studio import Studio
from lora_scene.creating.windows import (
    FEATHER,
    Window,
    back_to_window,
    feathered,
    to_size,
    window_around,
)
from lora_scene.scenes.photos import Mask


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a photo, and what it should become.

    Attributes:
        mask: (H, W) float32 of the photo's size, 0..1; where it is 0 nothing changes.
        brush: What to draw there.
        source: The mask's file, for messages.
    """

    mask: Mask
    brush: Brush
    source: str = "mask"


def edit(
    studio: Studio,
    photo: Pixels,
    regions: Sequence[Region],
    *,
    feather: float = FEATHER,
    tick: Tick | None = None,
) -> Pixels:
    """Edit regions of a photo of any size, one after the other.

    Args:
        studio: The base and its adapters.
        photo: (H, W, 3) uint8.
        regions: Where, and what.
        feather: Width of the seam's blending inside each mask, a share of the window's side.
        tick: Called after every step; the solver runs once a region.

    Returns:
        (H, W, 3) uint8, equal to the photo wherever all masks are 0.

    Raises:
        CreationError: A mask is empty or of another size; a prompt names an unknown handle.
    """
    for region in regions:
        check_photo_and_mask(photo, region.mask, region.source)
        check_prompt(studio, region.brush.prompt)
        region.brush.control.check_named(studio, region.brush.prompt)
    for region in regions:
        window = window_around(region.mask, studio.backbone.resolution)
        photo = paint(studio, photo, region, window, feather=feather, tick=tick)
    return photo


def edit_record(
    studio: Studio, photo: Pixels, regions: Sequence[Region], feather: float
) -> dict[str, Any]:
    """Return everything that makes an edit again, but for the photo and the masks themselves."""
    return {
        **provenance(studio),
        "verb": "edit",
        "photo": picture_hash(photo),
        "feather": feather,
        "regions": [{"mask": picture_hash(r.mask), **r.brush.record()} for r in regions],
    }


def paint(
    studio: Studio,
    photo: Pixels,
    region: Region,
    window: Window,
    *,
    feather: float = FEATHER,
    tick: Tick | None = None,
) -> Pixels:
    """Draw a region's part of a window anew and lay it over a copy of the photo."""
    source, mask = to_size(window, photo, region.mask, studio.backbone.resolution)
    drawn = redraw(studio, source, mask, region.brush, tick=tick)
    alpha = feathered(window.cut_mask(region.mask), window.side, feather)
    return window.paste(photo, back_to_window(window, drawn), alpha)
