"""Blended Latent Diffusion (arXiv:2206.02779): only what is inside a mask is drawn anew.

After every step the latents outside the mask are replaced by the source's, noised to that step:

    z_t <- m z_t + (1 - m) noised(z_source, t)

Where the paper re-fits the decoder to the background, we lay the decoded pixels over the photo
through the mask, which leaves the outside equal to the last bit. For thin masks the paper's
progressive shrinking (section 4.4) is used: early steps see a wider mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_scene.creating.control import Control, steered
from lora_scene.creating.encoding import encode_prompts
from lora_scene.creating.sampling import (
    Pixels,
    Sampling,
    Start,
    Step,
    Tick,
    decode,
    denoise,
    start_noise,
)
from lora_scene.creating.strength import strengthened
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.photos import Mask

THIN = 3  # latent cells: masks that are nowhere wider are widened in the early steps
WIDENING = 2  # latent cells
WIDE_SHARE = 0.5  # of the steps


@dataclass(frozen=True)
class Brush:
    """What is drawn inside a mask, and how.

    Attributes:
        prompt: With handles.
        seed: Of the noise.
        negative: The negative prompt.
        sampling: Solver, steps, guidance; a strength below 1 keeps something of what was there.
        control: Places, strengths and emphases of concepts, places within the window.
    """

    prompt: str
    seed: int = 0
    negative: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    control: Control = field(default_factory=Control)

    def record(self) -> dict[str, Any]:
        """Return what a picture's record says of it."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "negative": self.negative,
            "steps": self.sampling.n_steps,
            "guidance": self.sampling.guidance,
            "scheduler": self.sampling.scheduler,
            "strength": self.sampling.strength,
            **self.control.record(),
        }


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

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Leave the latents as they are."""
        return z_t

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Replace what is outside the mask."""
        source = self.z
        if step.next_t is not None:
            source = step.scheduler.add_noise(self.z, self.eps, step.next_t[None])
        mask = widened(self.cells, step.index / step.n_steps).to(z_t)
        blended: Tensor = mask * z_t + (1 - mask) * source.to(z_t)
        return blended


def latent_mask(mask: Mask, factor: int) -> Tensor:
    """Return the cells (h, w) that a mask (H, W) covers by half, or touches if it covers none."""
    shares = F.avg_pool2d(torch.from_numpy(mask)[None, None].float(), factor)[0, 0]
    cells = shares >= 0.5
    return (cells if bool(cells.any()) else shares > 0).float()


def widened(cells: Tensor, progress: float) -> Tensor:
    """Return the cells (h, w) that a step may draw: more of them early on, where they are thin.

    Args:
        cells: (h, w) of 0 and 1.
        progress: Share of the steps that are done, 0..1.
    """
    eroded = -F.max_pool2d(-cells[None, None], THIN, stride=1, padding=THIN // 2)
    reach = round(WIDENING * max(0.0, 1 - progress / WIDE_SHARE))
    if bool(eroded.any()) or reach == 0:
        return cells
    return F.max_pool2d(cells[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]


def redraw(
    studio: Studio, source: Pixels, mask: Mask, brush: Brush, *, tick: Tick | None = None
) -> Pixels:
    """Draw anew what is inside a mask; the outside only comes near the source, by the VAE.

    Args:
        studio: The base and its adapters.
        source: (H, W, 3) uint8, of a size that the base can draw.
        mask: (H, W), 1 inside.
        brush: What to draw.
        tick: Called after every step.

    Returns:
        (H, W, 3) uint8.
    """
    backbone = studio.backbone
    height, width = mask.shape
    control = brush.control.resolved(studio)
    with strengthened(studio, dict(control.strengths)):
        text = encode_prompts(studio, [brush.prompt], [brush.negative])
    noise = start_noise(studio, [brush.seed], (width, height))
    z = backbone.encode_picture(source).mean[None].to(backbone.device, backbone.dtype)
    is_whole = brush.sampling.strength == 1
    start = Start(noise.eps, noise.generators, None if is_whole else z)
    cells = latent_mask(mask, backbone.vae_factor)
    blend = Blend(z, start.eps.to(z), cells)
    rows, columns = cells.shape
    with steered(studio, [brush.prompt], control, text=text, latents=(rows, columns)) as guides:
        z_0 = denoise(
            studio,
            text,
            start,
            sampling=brush.sampling,
            guides=[*guides, blend],
            tick=tick,
        )
    return decode(studio, z_0)[0]


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


def _told(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
