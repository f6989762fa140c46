"""What is asked of single concepts, done: placed in boxes, and attended to more or less.

Guiding follows layout guidance (arXiv:2304.03373, equation 2): before each of the first steps the
latents move down the gradient of E = sum_h (1 - sum(A_h * box_h) / sum(A_h))^2, A_h being handle
h's cross-attention map. We differ in the step's length: it is a share of the latents' deviation
along the gradient's direction, and their norm is kept, so that one setting serves all bases,
solvers and sizes. Gating takes the handle's token away from all cells outside its box. Emphasis
multiplies the odds with which the picture attends to a handle, its identity unchanged.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_scene.creating.encoding import Text
from lora_scene.creating.requests import Control, Place
from lora_scene.creating.sampling import Step, run_unet
from lora_scene.creating.studio import Studio
from lora_scene.creating.token_attention import MapReader, biased, token_columns
from lora_scene.size import Size

GATE = 1e4  # logits; e^-10000 is 0 in every dtype, and float16 holds the number
# Compared by eye and by share on a 64 px base: longer moves or more guided steps place no better,
# and fill the rest of the picture with debris.
GUIDED_SHARE = 0.3  # of the steps; later ones only draw details
N_MOVES = 3  # a guided step
GRADIENT_SCALE = 1024.0  # its direction alone counts, and float16 would round it to nothing
MOVE = 0.05  # of the latents' deviation


def box_cells(place: Place, grid: Size) -> Tensor:
    """Return a box as (rows, columns), 1 where it holds a cell's centre; at least one cell."""
    left, top, right, bottom = place.box
    rows, columns = _inside(top, bottom, grid.height), _inside(left, right, grid.width)
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
    _cells: dict[Size, Tensor] = field(default_factory=dict)

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Move the latents, in the first steps."""
        if step.index >= GUIDED_SHARE * step.n_steps:
            return z_t
        for _ in range(self.n_moves):
            z_t = moved(z_t, self.gradient(z_t, step))
        self.reader.clear()
        return z_t

    def gradient(self, z_t: Tensor, step: Step) -> Tensor:
        """Return `GRADIENT_SCALE` times the energy's gradient at latents, in their shape."""
        with torch.enable_grad():
            z = z_t.detach().requires_grad_()
            scaled = step.scheduler.scale_model_input(z, step.t)
            run_unet(self.studio, scaled, step, self.text.positive)
            maps = self.reader.take()
            energy = ((1 - inside_share(maps, self._boxes(maps))) ** 2).sum()
            (gradient,) = torch.autograd.grad(GRADIENT_SCALE * energy, z)
        return gradient

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Take down the shares that the step's prediction saw."""
        maps = self.reader.take()
        self.shares.append(inside_share(maps, self._boxes(maps)))
        return z_t

    def mean_shares(self) -> Tensor:
        """Return (b, K) shares inside the boxes, averaged over the steps."""
        return torch.stack(self.shares).mean(dim=0)

    def told(self) -> list[dict[str, float]]:
        """Return each sample's mean shares inside its boxes, by handle, for its record."""
        handles = [place.handle for place in self.places]
        return [
            {handle: round(share, 4) for handle, share in zip(handles, row, strict=True)}
            for row in self.mean_shares().tolist()
        ]

    def _boxes(self, maps: Tensor) -> Tensor:
        grid = Size.of(maps.shape)
        if grid not in self._cells:
            cells = torch.stack([box_cells(place, grid) for place in self.places])
            self._cells[grid] = cells.to(maps.device)
        return self._cells[grid]


def moved(z_t: Tensor, gradient: Tensor) -> Tensor:
    """Move latents (b, c, h, w) against a gradient by `MOVE` deviations, their norms kept."""
    dims = (1, 2, 3)
    length = gradient.float().pow(2).mean(dim=dims, keepdim=True).sqrt().clamp_min(1e-20)
    spread = z_t.float().std(dim=dims, keepdim=True)
    there = z_t.float() - MOVE * spread * gradient.float() / length
    norms = [z.pow(2).sum(dim=dims, keepdim=True).sqrt() for z in (z_t.float(), there)]
    return (there * norms[0] / norms[1]).to(z_t.dtype)


@contextlib.contextmanager
def steered(
    studio: Studio,
    prompts: Sequence[str],
    control: Control,
    *,
    text: Text,
    latents: Size,
) -> Iterator[list[PlaceGuide]]:
    """Steer the attention of a batch; give the guides that `denoise` needs for it.

    Args:
        studio: The base and its adapters.
        prompts: One a sample.
        control: What is asked, of every sample alike.
        text: The encoded prompts.
        latents: The latents' size, cells.

    Raises:
        CreationError: A prompt does not name a handle that is asked for.
    """
    if not control.attended:
        yield []
        return
    n_tokens = text.positive.states.shape[1]
    columns = [[token_columns(studio, prompt, h) for h in control.attended] for prompt in prompts]

    def bias_of(grid: Size) -> Tensor:
        return attention_bias(control, columns, n_tokens, grid)

    unet = studio.backbone.unet
    with contextlib.ExitStack() as stack:
        stack.enter_context(biased(unet, bias_of, latents))
        guides = []
        if control.places:
            placed = [sample[: len(control.places)] for sample in columns]
            reader = MapReader(unet, placed, n_tokens=n_tokens, latents=latents)
            stack.enter_context(reader.attached())
            guides = [PlaceGuide(studio, text, control.places, reader)]
        yield guides


def attention_bias(
    control: Control,
    columns: Sequence[Sequence[Sequence[int]]],
    n_tokens: int,
    grid: Size,
) -> Tensor:
    """Return the bias on the attention's logits that gates places and emphasises handles.

    Args:
        control: Its places, then its emphases: factors on a handle's unnormalised attention.
        columns: Of each sample, of each of these, the token positions of its handle.
        n_tokens: Of the text.
        grid: Of the layer's cells.

    Returns:
        (b, n_cells, n_tokens) float32.
    """
    bias = torch.zeros(len(columns), grid.area, n_tokens)
    for sample, handles in zip(bias, columns, strict=True):
        for place, positions in zip(control.places, handles, strict=False):
            outside = 1 - box_cells(place, grid).flatten()
            sample[:, list(positions)] -= GATE * outside[:, None]
        others = handles[len(control.places) :]
        for (_, factor), positions in zip(control.emphases, others, strict=True):
            sample[:, list(positions)] += math.log(factor) if factor else -GATE
    return bias


def _inside(start: float, end: float, n: int) -> Tensor:
    centers = (torch.arange(n) + 0.5) / n
    inside = (centers >= start) & (centers < end)
    if not inside.any():
        inside[min(int((start + end) / 2 * n), n - 1)] = True
    return inside
