"""What autograd keeps of a step, counted by hooks, beside the estimate's activations.

    python -m benchmarks.kept --recipes sd15 sd21 sdxl-24gb          # meta device, full size, bf16
    python -m benchmarks.kept --recipes sd15 --small --device cpu    # the same on real tensors
    python -m benchmarks.kept --guided                               # a move of a guided drawing

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.contenders import base_dtype, random_backbone, small
from benchmarks.records import circumstances, write
from lora_scene.backbones.architectures import Architecture, find_architecture, meta_backbone
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.switches import switch_on
from lora_scene.creating.drawing_memory import drawing_bytes, led
from lora_scene.creating.encoding import Text
from lora_scene.creating.sampling import Step
from lora_scene.judging.encoders import ClipEncoder
from lora_scene.learning.ledger import Ledger, kernels_of_gpus
from lora_scene.learning.simulation import Simulation, trainer_of
from lora_scene.recipe import Recipe, load_recipe
from lora_scene.size import Size
from lora_scene.workshop.guidance import ClipGuide

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
    dtype = base_dtype(recipe, device)
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
        weights = _weights([backbone.unet, *backbone.text_encoders])
        kept = Kept(backbone.unet, [*weights, *trainer.parameters()])
        kernels = kernels_of_gpus() if device == "meta" else contextlib.nullcontext()
        with stepper.attached(), kernels, kept.counting():
            stepper.gradients(0)
    moving = estimated["activations"] + estimated["gradients"]
    return {"kept_bytes": kept.total, "estimated_bytes": moving}


def count_guided(backbone: Backbone, guide: str) -> dict[str, int]:
    """Return what autograd keeps of one move of a picture that is led, and what is estimated."""
    size = Size(backbone.resolution, backbone.resolution)
    cells = size.cells(backbone.vae_factor)
    shape = (1, backbone.latent_channels, *cells.rows_columns)
    z_t = torch.empty(shape, device="meta", dtype=backbone.dtype)
    with torch.no_grad():
        encoded = backbone.encode_tokens(backbone.tokenize([""]))
    step = Step(0, 10, torch.tensor(500), torch.tensor(500, device="meta"),
                backbone.pipeline.scheduler, None)  # fmt: skip
    parts = [backbone.unet, backbone.vae, *backbone.text_encoders]
    text = Text(encoded, encoded)
    if guide == "places":
        kept = Kept(backbone.unet, _weights(parts))
        with led(backbone, text, cells, CONCEPTS) as movers, kernels_of_gpus(), kept.counting():
            movers[0].before(z_t, step)
        estimated = drawing_bytes(backbone, size, n_places=CONCEPTS)
        return {"kept_bytes": kept.total, "estimated_bytes": estimated}
    eyes = clip_without_numbers()
    looks = [torch.empty(CONCEPTS, eyes.model.config.projection_dim, device="meta")]
    weights = _weights([*parts, eyes.model])
    kept, ledger = Kept(backbone.unet, weights), Ledger("meta")
    held = ledger.hold(weights)
    studio: Any = SimpleNamespace(backbone=backbone)
    with kernels_of_gpus(), ledger, kept.counting():
        ClipGuide(studio, eyes, text, looks=looks, scale=0.1).before(z_t, step)
    return {"kept_bytes": kept.total, "estimated_bytes": ledger.peak - held}


def _weights(parts: Sequence[Any]) -> list[Tensor]:
    return [t for part in parts for t in (*part.parameters(), *part.buffers())]


def clip_without_numbers() -> ClipEncoder:
    """Return CLIP ViT-B/32 on the meta device."""
    from transformers import CLIPConfig, CLIPModel

    eyes: Any = ClipEncoder.__new__(ClipEncoder)
    with torch.device("meta"):
        eyes.model = CLIPModel(CLIPConfig()).requires_grad_(False)
    eyes.processor = SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    found: ClipEncoder = eyes
    return found


def main() -> None:
    """Write a line a recipe, phase and checkpointing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["sd15", "sd21", "sdxl-24gb"])
    parser.add_argument("--device", default="meta")
    parser.add_argument("--small", action="store_true", help="fewer channels: for a CPU")
    parser.add_argument("--guided", action="store_true", help="drawing in place of training")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(given.device)
    for name in given.recipes:
        recipe = load_recipe(name, ["base.dtype=bf16", *given.overrides])
        architecture, size = find_architecture(recipe.base.model), recipe.base.resolution
        dtype = base_dtype(recipe, given.device)
        for guide in ("places", "clip") if given.guided else ():
            backbone = meta_backbone(architecture, dtype=dtype, resolution=size)
            write({"recipe": name, "guide": guide, **count_guided(backbone, guide), **about},
                  given.out)  # fmt: skip
        for switch in () if given.guided else ("false", "true"):
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
