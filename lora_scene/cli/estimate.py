"""`lora-scene estimate`: what a recipe needs of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_scene.cli.options import json_option, overrides_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.values import once
from lora_scene.creating.limits import SIDES


@click.command(short_help="Estimate a recipe's memory without running it.")
@click.option("--base", help="sd15, sd21, sd21-768, sdxl, mini or a diffusers folder.")
@click.option("--recipe", default="sd15", show_default=True, help="A recipe's name or TOML file.")
@click.option("--resolution", type=click.IntRange(*SIDES), help="Pixels; else the recipe's.")
@click.option("--scene", type=GIVEN, help="Count its photos' own shapes; else a square one.")
@click.option("--concepts", default=3, show_default=True, type=click.IntRange(1, 64),
              help="Handles in one prompt.")  # fmt: skip
@overrides_option
@click.option("--drawing", is_flag=True, help="Also a picture's: plain, and with --at.")
@click.option("--switches", is_flag=True, help="Also what each memory switch would save.")
@json_option
def command(
    base: str | None,
    recipe: str,
    resolution: int | None,
    scene: Path | None,
    concepts: int,
    overrides: tuple[str, ...],
    drawing: bool,
    switches: bool,
    as_json: bool,
) -> None:
    """Estimate the peak of each phase on a CUDA device, from the architecture alone."""
    from lora_scene.backbones.architectures import find_architecture
    from lora_scene.backbones.families import identify
    from lora_scene.backbones.fitness import check_family
    from lora_scene.cli.estimate_view import print_estimate, show_estimate
    from lora_scene.creating.drawing_memory import estimate_drawings
    from lora_scene.learning.estimates import estimate_memory, estimate_savings
    from lora_scene.recipe import Recipe, load_recipe
    from lora_scene.scenes.scene import load_scene

    named = once([*overrides, *([f"base.resolution={resolution}"] if resolution else [])])

    def varied(more: list[str]) -> Recipe:
        if more and not as_json:
            click.echo(f"estimating with {' '.join(more)}", err=True)
        return load_recipe(recipe, [*named, *more])

    settings = varied([])
    architecture = find_architecture(base or settings.base.model)
    family = identify({"in_channels": 4, "out_channels": 4, **architecture.unet})
    check_family(family, settings.base, where=architecture.name)
    photos = [photo.size for photo in load_scene(scene).photos] if scene else []
    asked: dict[str, Any] = {"n_concepts": concepts, "photos": photos}
    estimate = estimate_memory(architecture, settings, **asked)
    drawn = estimate_drawings(architecture, settings, estimate.dtype, **asked) if drawing else []
    peak = estimate.peak_bytes
    savings = estimate_savings(architecture, varied, before=peak, **asked) if switches else {}
    show = print_estimate if as_json else show_estimate
    show(estimate, drawn, savings)
