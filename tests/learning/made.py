"""Recipes, samples and short runs for the tests of learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.switches import switch_on
from lora_scene.learning.attention import AttentionRecorder
from lora_scene.learning.draws import Sample
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import EncodedVariant, encode_variants
from lora_scene.learning.lora import add_lora
from lora_scene.learning.objective import Objective
from lora_scene.learning.training import TrainingResult, train
from lora_scene.recipe import Recipe, load_recipe
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.scene import Scene
from lora_scene.scenes.union import prompt_for
from tests import tiny

ROOT = Path(__file__).parents[2]  # where `tests` and `lora_scene` lie
ON_GROUNDS = (  # what is far, at every noise; the prompts leave room for the phrase
    "grounds.prob=1",
    "grounds.n_images=2",
    "grounds.n_steps=1",
    "grounds.n_per_noun=1",
    "grounds.noise_from=0",
    "grounds.prompts=['sand']",
    "grounds.phrases=['on sand']",
    "handles.templates=['{}']",
)


def recipe(base: str, *overrides: str, name: str = "paper", steps: tuple[int, int] = (2, 2)):
    """Return a shipped recipe on a tiny base, short, in 32 bits, without a prior."""
    return load_recipe(
        name,
        [
            f"base.model={base}",
            f"base.resolution={tiny.RESOLUTION}",
            f"phase1.steps={steps[0]}",
            f"phase2.steps={steps[1]}",
            "lora.rank=4",
            "optimizer.name=adamw",
            "prior.weight=0",
            "run.watch=0",
            *overrides,
        ],
    )


def run(scene: Scene, settings: Recipe, out: Path, **options: Any) -> TrainingResult:
    """Train on the CPU."""
    return train(scene, settings, out=out, device="cpu", **options)


def numbers(result: TrainingResult) -> dict[str, torch.Tensor]:
    """Return everything that a run learnt, by name."""
    adapter = result.adapter
    found = {
        f"{concept.handle} {index}": rows
        for concept in adapter.concepts
        for index, rows in enumerate(concept.rows)
    }
    for key, module in adapter.modules.items():
        found[f"{key} down"], found[f"{key} up"] = module.down, module.up
    return found


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Assert equality bit for bit; name the largest difference."""
    assert ours.keys() == theirs.keys()
    worst = max(ours, key=lambda name: float((ours[name] - theirs[name]).abs().max()))
    difference = float((ours[worst] - theirs[worst]).abs().max())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), (worst, difference)


@dataclass
class Bench:
    """A base with handles and adapters, ready for a forward pass."""

    backbone: Backbone
    table: HandleTable
    variants: tuple[EncodedVariant, ...]
    settings: Recipe
    scene: Scene

    def sample(self, subset: Sequence[int], *, seed: int = 0, t: int = 500) -> Sample:
        """Return a sample of the photo that names some concepts."""
        noise = torch.Generator().manual_seed(seed)
        shape = self.variants[0].moments.mean.shape
        handles = [self.scene.concepts[k].handle for k in subset]
        nouns = [self.scene.concepts[k].noun for k in subset]
        return Sample(
            variant=self.variants[0],
            subset=tuple(subset),
            prompt=prompt_for(handles),
            plain_prompt=prompt_for(nouns),
            t=t,
            z=torch.randn(shape, generator=noise),
            eps=torch.randn(shape, generator=noise),
        )

    @contextmanager
    def objective(self, phase: int = 2, *, has_grounds: bool = False) -> Iterator[Objective]:
        """Attach what a phase attaches."""
        recorder = AttentionRecorder(self.backbone.unet)
        self.backbone.unet.train()
        with self.table.spliced(), recorder.attached():
            yield Objective(
                self.backbone,
                self.table,
                recorder,
                recipe=self.settings,
                phase=self.settings.phases[phase - 1],
                has_grounds=has_grounds,
            )


def bench(
    pipe: Any,
    scene: Scene,
    settings: Recipe,
    *,
    with_lora: bool = True,
    canvas: Canvas | None = None,
) -> Bench:
    """Put a bench together; LoRA's factors are random and not zero."""
    backbone = Backbone(pipe, name="tiny", resolution=tiny.RESOLUTION)
    variants = encode_variants(
        backbone,
        scene,
        settings.augment,
        canvas=canvas or backbone.canvas(),
        generator=np.random.default_rng(0),
        resize=settings.masked_loss.resize,
    )
    table = HandleTable(
        backbone,
        scene.concepts,
        n_vectors=settings.handles.n_vectors,
        init=settings.handles.init,
        generator=torch.Generator().manual_seed(0),
    )
    switch_on(backbone.unet, settings.base, device="cpu")
    if with_lora:
        noise = torch.Generator().manual_seed(1)
        for parameter in add_lora(backbone, settings.lora):
            parameter.data = torch.randn(parameter.shape, generator=noise) * 0.2
    return Bench(backbone, table, variants, settings, scene)


def factors(model: torch.nn.Module) -> dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Return each adapted layer's down and up matrix, by the layer's name."""
    found = dict(model.named_parameters())
    ending = ".lora_A.scene.weight"
    return {
        name.removesuffix(ending): (down, found[name.replace(".lora_A.", ".lora_B.")])
        for name, down in found.items()
        if name.endswith(ending)
    }
