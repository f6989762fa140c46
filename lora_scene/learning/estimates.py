"""What a recipe needs of a device, phase by phase, from the architecture alone.

Nothing is measured here: one step of each phase is simulated, optimizer states are counted by
formula, convolution workspaces and fragmentation stand in the estimate as an assumed share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_scene.backbones.architectures import Architecture
from lora_scene.backbones.loading import DTYPES, resolve_dtype
from lora_scene.learning.devices import memory_switches
from lora_scene.learning.preparation import refuse_no_steps
from lora_scene.learning.simulation import CONTEXT, PhaseEstimate, Simulation
from lora_scene.recipe import Recipe
from lora_scene.size import Size

CARDS = (4, 6, 8, 10, 12, 16, 24, 40, 48, 80)  # GiB


@dataclass(frozen=True)
class MemoryEstimate:
    """The peaks of all phases of a run.

    Attributes:
        architecture: Its name.
        recipe: Its name.
        resolution: Side of the square of the training's area, pixels.
        size: Of the largest picture, pixels.
        dtype: In which frozen weights compute.
        quantization: How the UNet's weights are stored.
        phases: In the order of the run.
        is_dtype_assumed: Whether the dtype `auto` stands for bf16 because no card is here.
    """

    architecture: str
    recipe: str
    resolution: int
    size: Size
    dtype: str
    quantization: str
    phases: tuple[PhaseEstimate, ...]
    is_dtype_assumed: bool = False

    @property
    def peak_bytes(self) -> int:
        """Return the peak of the largest phase."""
        return max(phase.peak_bytes for phase in self.phases)

    @property
    def card(self) -> int | None:
        """Return the smallest usual card, in GiB, that holds the peak and CUDA itself."""
        need = self.peak_bytes + CONTEXT
        return next((size for size in CARDS if need <= size * 2**30), None)


def estimate_memory(
    architecture: Architecture,
    recipe: Recipe,
    *,
    n_concepts: int = 3,
    photos: Sequence[Size] = (),
) -> MemoryEstimate:
    """Estimate the peak of each phase on a CUDA device.

    Args:
        architecture: The base's parts.
        recipe: Every setting; the dtype `auto` is the card's, bf16 without one.
        n_concepts: Handles, all drawn at once.
        photos: The photos' sizes, which a recipe with `base.shape=photo` keeps the shapes of;
            none for a square one.

    Raises:
        BackboneError: The size does not fit the architecture.
        RecipeError: A setting does not fit the architecture, or nothing would be trained.
    """
    refuse_no_steps(recipe)
    dtype: str = recipe.base.dtype
    is_assumed = dtype == "auto" and not torch.cuda.is_available()
    if is_assumed:
        dtype = "bf16"
    elif dtype == "auto":  # the card's own: fp16 before Ampere
        dtype = "fp16" if resolve_dtype("auto", "cuda") == torch.float16 else "bf16"
    simulation = Simulation(
        architecture, recipe, DTYPES[dtype], n_concepts=n_concepts, photos=photos
    )
    phases = [simulation.encode()]
    if recipe.has_prior:
        phases.append(simulation.drawing("prior"))
    if recipe.grounds.is_on and recipe.grounds.far:
        phases.append(simulation.colours())
    if recipe.grounds.is_on:
        phases.append(simulation.drawing("grounds"))
    phases += [simulation.train(n) for n, phase in enumerate(recipe.phases, 1) if phase.steps]
    if recipe.run.sample_every:
        phases.append(simulation.samples())
    return MemoryEstimate(
        architecture.name,
        recipe.name,
        simulation.backbone.resolution,
        simulation.size,
        dtype,
        recipe.base.quantization,
        tuple(phases),
        is_assumed,
    )


def estimate_savings(
    architecture: Architecture, varied: Callable[[list[str]], Recipe], *, before: int, **asked: Any
) -> dict[str, int]:
    """Estimate what each memory switch that is not on yet would save alone, in bytes.

    Args:
        architecture: The base's parts.
        varied: Returns the recipe with some more overrides.
        before: The peak without any, in bytes.
        asked: As in `estimate_memory`, which also says what is raised.
    """
    savings = {}
    for switch in memory_switches(varied([])):
        changed = varied(switch.replace("--set ", "").split())
        after = estimate_memory(architecture, changed, **asked).peak_bytes
        savings[switch] = before - after
    return savings
