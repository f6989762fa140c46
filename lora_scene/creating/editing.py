"""Local editing by example: what is in a region becomes what a prompt says.

    photo, mask -> window around the mask, at the base's size
      -> Blended Latent Diffusion -> laid over the photo through the mask

Blended Latent Diffusion (arXiv:2206.02779): after every step the latents outside the mask are
replaced by the source's, noised to that step:

    z_t <- m z_t + (1 - m) noised(z_source, t)

Where the paper re-fits the decoder to the background, we lay the decoded pixels over the photo
through the mask, which leaves the outside equal to the last bit. For thin masks the paper's
progressive shrinking (section 4.4) is used: early steps see a wider mask. Several regions are
edited one after the other, each on the result of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_scene.creating.records import picture_hash, provenance
from lora_scene.creating.rendering import checked, render
from lora_scene.creating.requests import Request
from lora_scene.creating.sampling import Step, Tick, start_noise
from lora_scene.creating.studio import Studio
from lora_scene.creating.windows import (
    FEATHER,
    SquareWindow,
    feathered,
    to_size,
    window_around,
)
from lora_scene.errors import CreationError
from lora_scene.scenes.framing import resize_pixels
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.size import Size

THIN = 3  # latent cells: masks that are nowhere wider are widened in the early steps
WIDENING = 2  # latent cells
WIDE_SHARE = 0.5  # of the steps


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a photo, and what it should become.

    Attributes:
        mask: (H, W) float32 of the photo's size, 0..1; where it is 0 nothing changes.
        request: What to draw there; a strength below 1 keeps something of what was there, places
            are within the window, the size is the base's own.
        source: The mask's file, for messages.
    """

    mask: Mask
    request: Request
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
    regions = [
        replace(region, request=checked(studio, region.request, has_start=True))
        for region in regions
    ]
    for region in regions:
        window = window_around(region.mask, studio.backbone.resolution)
        photo = repaint(studio, photo, region, window, feather=feather, tick=tick)
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
        "regions": [
            {"mask": picture_hash(r.mask), **region_record(studio, r.request)} for r in regions
        ],
    }


def region_record(studio: Studio, request: Request) -> dict[str, Any]:
    """Return what a record says of what was drawn in a region."""
    drawn = checked(studio, replace(request, size=None), has_start=True)
    return {**drawn.record(), "strength": request.sampling.strength}


def repaint(
    studio: Studio,
    photo: Pixels,
    region: Region,
    window: SquareWindow,
    *,
    feather: float = FEATHER,
    tick: Tick | None = None,
) -> Pixels:
    """Draw a region's part of a window anew and lay it over a copy of the photo."""
    source, mask = to_size(window, photo, region.mask, studio.backbone.resolution)
    drawn = redraw(studio, source, mask, region.request, tick=tick)
    alpha = feathered(window.cut_mask(region.mask), window.side, feather)
    return window.paste(photo, resize_pixels(drawn, (window.side, window.side)), alpha)


def redraw(
    studio: Studio, source: Pixels, mask: Mask, request: Request, *, tick: Tick | None = None
) -> Pixels:
    """Draw anew what is inside a mask; the outside only comes near the source, by the VAE.

    Args:
        studio: The base and its adapters.
        source: (H, W, 3) uint8, of a size that the base can draw.
        mask: (H, W), 1 inside.
        request: What to draw; see `rendering.checked`.
        tick: Called after every step.

    Returns:
        (H, W, 3) uint8.

    Raises:
        CreationError: See `rendering.render`.
    """
    backbone = studio.backbone
    start = start_noise(studio, [request.seed], Size.of(mask.shape))
    z = backbone.encode_picture(source).mean[None].to(backbone.device, backbone.dtype)
    if request.sampling.strength < 1:
        start = replace(start, z=z)
    blend = Blend(z, start.eps.to(z), latent_mask(mask, backbone.vae_factor))
    return render(studio, [request], start=start, guides=[blend], tick=tick).pixels[0]


@dataclass(frozen=True)
class Blend:
    """Puts the noised source back outside the mask after every step.

    Attributes:
        z: (b, c, h, w) the source's latents.
        eps: (b, c, h, w) its noise, the same at all steps.
        cells: (h, w), 1 where is drawn.
    """

    z: Tensor
    eps: Tensor
    cells: Tensor
    _there: dict[int, Tensor] = field(default_factory=dict)  # by reach, copied once

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Leave the latents as they are."""
        return z_t

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Replace what is outside the mask."""
        source = self.z
        if step.next_t is not None:
            source = step.scheduler.add_noise(self.z, self.eps, step.next_t[None])
        reach = reach_at(step.index / step.n_steps)
        if reach not in self._there:
            self._there[reach] = widened(self.cells, reach).to(z_t)
        mask = self._there[reach]
        blended: Tensor = mask * z_t + (1 - mask) * source.to(z_t)
        return blended


def latent_mask(mask: Mask, factor: int) -> Tensor:
    """Return the cells (h, w) that a mask (H, W) covers by half, or touches if it covers none."""
    shares = F.avg_pool2d(torch.from_numpy(mask)[None, None].float(), factor)[0, 0]
    cells = shares >= 0.5
    return (cells if bool(cells.any()) else shares > 0).float()


def reach_at(progress: float) -> int:
    """Return by how many cells thin masks are widened once a share of the steps is done."""
    return round(WIDENING * max(0.0, 1 - progress / WIDE_SHARE))


def widened(cells: Tensor, reach: int) -> Tensor:
    """Return the cells (h, w), of 0 and 1, with `reach` more around them if they are thin."""
    eroded = -F.max_pool2d(-cells[None, None], THIN, stride=1, padding=THIN // 2)
    if bool(eroded.any()) or reach == 0:
        return cells
    return F.max_pool2d(cells[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]


def check_photo_and_mask(photo: Pixels, mask: Mask, where: object = "mask") -> None:
    """Check that a mask fits a photo and marks something.

    Raises:
        CreationError: It does not.
    """
    if mask.shape != photo.shape[:2]:
        raise CreationError(
            "the mask is not of the photo's size",
            where=where,
            expected=_told(photo.shape),
            got=_told(mask.shape),
        )
    if not (mask > 0).any():
        raise CreationError("an empty region", where=where, expected="at least one bright pixel")


def notes_on_mask(mask: Mask, where: object = "mask") -> list[str]:
    """Return what a person should know of a mask that keeps nothing of the photo."""
    if not (mask > 0).all():
        return []
    return [f"{where}: all of the photo is drawn anew; black is where a photo stays as it is"]


def _told(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
