"""What autograd keeps of a step, counted by hooks, beside the estimate's activations.

    python -m benchmarks.kept --recipes sd15 sd21 sdxl-24gb          # meta device, full size, bf16
    python -m benchmarks.kept --recipes sd15 --small --device cpu    # the same on real tensors

The estimate follows every tensor's life by the dispatcher; here autograd itself tells what it saves
for the backward pass, so that neither can repeat the other's mistake. With checkpointing, what a
block keeps is counted while it runs: all blocks' inputs, and the largest block's own tensors.
Weights are left out on both sides; the estimate's part that moves is its activations and gradients
together, the peak above what lies there before the step. What it has besides are the tensors of the
moment in which that peak stands.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.contenders import base_dtype, random_backbone, small
from benchmarks.records import circumstances, write
from lora_scene.backbones.architectures import Architecture, find_architecture, meta_backbone
from lora_scene.backbones.switches import switch_on
from lora_scene.learning.ledger import kernels_of_gpus
from lora_scene.learning.simulation import Simulation, trainer_of
from lora_scene.recipe import Recipe, load_recipe

CONCEPTS = 3


class Kept:
    """Counts what autograd saves, each storage once.

    Args:
        unet: Whose checkpointed blocks are counted apart.
        weights: Left out.
    """

    def __init__(self, unet: Any, weights: list[Tensor]) -> None:
        self._unet = unet
        self._seen = {weight.untyped_storage()._cdata for weight in weights}
        self._alive: list[Tensor] = list(weights)  # no storage may take the name of another
        self._in_block: int | None = None
        self.outside = self.largest_block = 0

    @property
    def total(self) -> int:
        """Return the bytes kept at the end of the forward pass, or inside the largest block."""
        return self.outside + self.largest_block

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is saved."""
        key = tensor.untyped_storage()._cdata
        if key not in self._seen:
            self._seen.add(key)
            self._alive.append(tensor)
            size = tensor.untyped_storage().nbytes()
            if self._in_block is None:
                self.outside += size
            else:
                self._in_block += size
        return tensor

    def block(self, function: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """Run what would be a checkpointed block: its inputs stay, the rest is its own."""
        for one in inputs:
            if isinstance(one, Tensor):
                self.pack(one)
        self._in_block = 0
        try:
            return function(*inputs, **named)
        finally:
            self.largest_block = max(self.largest_block, self._in_block)
            self._in_block = None

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is done inside."""
        parts = [m for m in self._unet.modules() if getattr(m, "gradient_checkpointing", False)]
        kept = [part._gradient_checkpointing_func for part in parts]
        for part in parts:
            part._gradient_checkpointing_func = self.block
        try:
            with saved_tensors_hooks(self.pack, lambda tensor: tensor):
                yield
        finally:
            for part, function in zip(parts, kept, strict=True):
                part._gradient_checkpointing_func = function


def count(architecture: Architecture, recipe: Recipe, phase: int, device: str) -> dict[str, int]:
    """Return the bytes that autograd keeps in a step of a phase, and those of the estimate."""
    dtype = base_dtype(recipe)
    estimated = Simulation(architecture, recipe, dtype, n_concepts=CONCEPTS).train(phase).parts
    if device == "meta":
        size = recipe.base.resolution
        backbone = meta_backbone(architecture, dtype=dtype, resolution=size)
        switch_on(backbone.unet, recipe.base, device=device)
    else:
        backbone = random_backbone(architecture, recipe, device)
    trainer = trainer_of(backbone, recipe, CONCEPTS)
    with trainer.table.spliced():
        stepper = trainer.stepper(phase)
        modules = (backbone.unet, *backbone.text_encoders)
        weights = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        kept = Kept(backbone.unet, [*weights, *trainer.parameters()])
        kernels = kernels_of_gpus() if device == "meta" else contextlib.nullcontext()
        with stepper.attached(), kernels, kept.counting():
            stepper.gradients(0)
    moving = estimated["activations"] + estimated["gradients"]
    return {"kept_bytes": kept.total, "estimated_bytes": moving}


def main() -> None:
    """Write a line a recipe, phase and checkpointing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["sd15", "sd21", "sdxl-24gb"])
    parser.add_argument("--device", default="meta")
    parser.add_argument("--small", action="store_true", help="fewer channels: for a CPU")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(given.device)
    for name in given.recipes:
        for switch in ("false", "true"):
            switches = [f"base.gradient_checkpointing={switch}", "prior.weight=0"]
            recipe = load_recipe(name, ["base.dtype=bf16", *switches, *given.overrides])
            architecture = find_architecture(recipe.base.model)
            architecture = small(architecture) if given.small else architecture
            for phase in (1, 2):
                counted = count(architecture, recipe, phase, given.device)
                setting = {"recipe": name, "phase": phase, "checkpointing": switch == "true"}
                write({**setting, **counted, **about}, given.out)


if __name__ == "__main__":
    main()
