"""`lora-scene edit`: what is in a region of a photo becomes what a prompt says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lora_scene.cli.options import (
    adapters_argument,
    base_options,
    control_from,
    control_options,
    json_option,
    open_from,
    picture_option,
    sampling_from,
    sampling_options,
    seed_option,
)
from lora_scene.cli.paths import GIVEN


@click.command(short_help="Redraw regions of a photo.")
@adapters_argument
@click.option("--photo", required=True, type=GIVEN, help="Any size.")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    required=True,
    type=GIVEN,
    help="Bright where to redraw; repeatable, each with its --prompt.",
)
@click.option("--prompt", "prompts", multiple=True, required=True, help="For each mask, in order.")
@click.option(
    "--redraw",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the noising; below 1 something of what was there is kept.",
)
@click.option(
    "--feather",
    default=0.03,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Width of the seam inside the mask, a share of the redrawn square.",
)
@picture_option
@seed_option
@sampling_options
@control_options
@base_options
@json_option
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Redraw regions of a photo with the adapters in DIR, one region after the other.

    Where all masks are black, the result equals the photo to the last bit.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.blending import Brush
    from lora_scene.creating.editing import Region, edit, edit_record
    from lora_scene.creating.picture_files import save_picture
    from lora_scene.files import check_file
    from lora_scene.scenes.mask_files import read_mask
    from lora_scene.scenes.photos import read_photo

    masks, prompts = shared["masks"], shared["prompts"]
    if len(masks) != len(prompts):
        raise click.UsageError(f"{len(masks)} --mask, but {len(prompts)} --prompt: one each")
    check_file(out, inputs=[shared["photo"], *masks])
    photo = read_photo(shared["photo"])
    loaded = [read_mask(mask, photo) for mask in masks]
    studio = open_from(adapters, shared)
    sampling = sampling_from(shared, studio, shared["redraw"])
    controls = control_from(shared).shared_out(studio, prompts)
    regions = [
        Region(
            mask,
            Brush(prompt, shared["seed"] + number, shared["negative"], sampling, control),
            str(masks[number]),
        )
        for number, (mask, prompt, control) in enumerate(
            zip(loaded, prompts, controls, strict=True)
        )
    ]
    feather = shared["feather"]
    with drawing_bar("editing", len(regions), is_quiet=as_json) as tick:
        result = edit(studio, photo.pixels, regions, feather=feather, tick=tick)
    record = edit_record(studio, photo.pixels, regions, feather)
    save_picture(out, result, record)
    click.echo(json.dumps({"path": str(out), **record}, indent=2) if as_json else out)
