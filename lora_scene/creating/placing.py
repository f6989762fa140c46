"""Region control: a concept is placed in a box, by guiding and gating its handle's attention.

Guiding follows layout guidance (arXiv:2304.03373, equation 2): before each of the first steps the
latents move down the gradient of E = sum_h (1 - sum(A_h * box_h) / sum(A_h))^2, A_h being handle
h's cross-attention map. We differ in the step's length: it is a share of the latents' deviation
along the gradient's direction, and their norm is kept, so that one setting serves all bases,
solvers and sizes. Gating takes the handle's token away from all cells outside its box.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_scene.creating.encoding import Text
from lora_scene.creating.sampling import Step, run_unet
from lora_scene.creating.studio import Studio
from lora_scene.creating.token_attention import Grid, MapReader
from lora_scene.errors import CreationError

GATE = 1e4  # logits; e^-10000 is 0 in every dtype, and float16 holds the number
# Compared by eye and by share on a 64 px base: longer moves or more guided steps place no better,
# and fill the rest of the picture with debris.
GUIDED_SHARE = 0.3  # of the steps; later ones only draw details
N_MOVES = 3  # a guided step
MOVE = 0.05  # of the latents' deviation


@dataclass(frozen=True)
class Place:
    """Where a concept should stand.

    Attributes:
        handle: The concept's handle.
        box: (left, top, right, bottom), shares of the picture's sides, 0..1.
    """

    handle: str
    box: tuple[float, float, float, float]

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `bear=0.1,0.5,0.5,1.0`; the handle's brackets may be left out.

        Raises:
            CreationError: It has another form, or is no box within the picture.
        """
        number = r"(\d+\.?\d*|\.\d+)"
        match = re.fullmatch(rf"<?([^=<>]+)>?={','.join([number] * 4)}", text.strip())
        numbers = [float(part) for part in match.groups()[1:]] if match else []
        is_box = len(numbers) == 4 and (
            0 <= numbers[0] < numbers[2] <= 1 and 0 <= numbers[1] < numbers[3] <= 1
        )
        if match is None or not is_box:
            raise CreationError(
                "not a place",
                where=text,
                expected="handle=left,top,right,bottom, shares of the picture from 0 to 1, such as "
                "bear=0.1,0.5,0.5,1.0",
            )
        return cls(f"<{match.group(1)}>", (numbers[0], numbers[1], numbers[2], numbers[3]))


def box_cells(place: Place, grid: Grid) -> Tensor:
    """Return a box as (rows, columns), 1 where it holds a cell's centre; at least one cell."""
    left, top, right, bottom = place.box
    rows, columns = _inside(top, bottom, grid[0]), _inside(left, right, grid[1])
    return (rows[:, None] & columns[None, :]).float()


def inside_share(maps: Tensor, boxes: Tensor) -> Tensor:
    """Return the share (...,) of maps (..., rows, columns) that lies in boxes of that shape."""
    return (maps * boxes).sum(dim=(-2, -1)) / maps.sum(dim=(-2, -1)).clamp_min(1e-12)


@dataclass
class PlaceGuide:
    """Moves the latents until the handles attend to their boxes, and takes down how far they do.

    Attributes:
        studio: The base and its adapters.
        text: The prompts.
        places: K places, the same in every sample.
        reader: Attached to the UNet; one map a place, in their order.
        n_moves: Moves a guided step; 0 only measures.
        shares: Of each step's own prediction: (b, K) shares inside the boxes.
    """

    studio: Studio
    text: Text
    places: Sequence[Place]
    reader: MapReader
    n_moves: int = N_MOVES
    shares: list[Tensor] = field(default_factory=list)

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Move the latents, in the first steps."""
        if step.index >= GUIDED_SHARE * step.n_steps:
            return z_t
        for _ in range(self.n_moves):
            z_t = self._moved(z_t, step)
        self.reader.clear()
        return z_t

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Take down the shares that the step's prediction saw."""
        maps = self.reader.take()
        self.shares.append(inside_share(maps, self._boxes(maps)).cpu())
        return z_t

    def mean_shares(self) -> Tensor:
        """Return (b, K) shares inside the boxes, averaged over the steps."""
        return torch.stack(self.shares).mean(dim=0)

    def told(self, index: int) -> dict[str, float]:
        """Return sample `index`'s mean share inside its box, a handle each, for its record."""
        shares = self.mean_shares()[index]
        return {
            place.handle: round(float(share), 4)
            for place, share in zip(self.places, shares, strict=True)
        }

    def _moved(self, z_t: Tensor, step: Step) -> Tensor:
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            run_unet(
                self.studio,
                step.scheduler.scale_model_input(z, step.t),
                step.t,
                self.text.positive,
            )
            maps = self.reader.take()
            energy = ((1 - inside_share(maps, self._boxes(maps))) ** 2).sum()
            (gradient,) = torch.autograd.grad(energy, z)
        return moved(z_t, gradient)

    def _boxes(self, maps: Tensor) -> Tensor:
        grid = (maps.shape[-2], maps.shape[-1])
        return torch.stack([box_cells(place, grid) for place in self.places]).to(maps.device)


def moved(z_t: Tensor, gradient: Tensor) -> Tensor:
    """Move latents (b, c, h, w) against a gradient by `MOVE` deviations, their norms kept."""
    dims = (1, 2, 3)
    length = gradient.float().pow(2).mean(dim=dims, keepdim=True).sqrt().clamp_min(1e-20)
    spread = z_t.float().std(dim=dims, keepdim=True)
    there = z_t.float() - MOVE * spread * gradient.float() / length
    norms = [z.pow(2).sum(dim=dims, keepdim=True).sqrt() for z in (z_t.float(), there)]
    return (there * norms[0] / norms[1]).to(z_t.dtype)


def _inside(start: float, end: float, n: int) -> Tensor:
    centers = (torch.arange(n) + 0.5) / n
    inside = (centers >= start) & (centers < end)
    if not inside.any():
        inside[min(int((start + end) / 2 * n), n - 1)] = True
    return inside
