"""`lora-scene edit`: what is in a region of a photo becomes what a prompt says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import (
    AdapterOptions,
    ControlOptions,
    adapters_argument,
    control_options,
    look_at,
    photo_option,
    picture_option,
)
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import (
    DrawingOptions,
    check_picture,
    drawing_options,
    save_result,
)
from lora_scene.cli.values import Number

if TYPE_CHECKING:
    from lora_scene.scenes.pictures import Mask, UprightPhoto


@click.command(short_help="Redraw regions of a photo.")
@adapters_argument
@photo_option
@click.option("--mask", "masks", multiple=True, required=True, type=GIVEN,
              help="Bright where to redraw; repeatable, each with its --prompt.")  # fmt: skip
@click.option("--prompt", "prompts", multiple=True, required=True, help="For each mask, in order.")
@click.option("--redraw", default=1.0, show_default=True,
              type=Number(0, 1, min_open=True), help="Share of the noising; below 1 "
              "something of what was there is kept.")  # fmt: skip
@click.option("--feather", default=0.03, show_default=True, type=Number(0, 0.5),
              help="Width of the seam inside the mask, a share of the redrawn square.")  # fmt: skip
@picture_option
@drawing_options
@control_options
def command(
    chosen: AdapterOptions,
    photo: Path,
    masks: tuple[Path, ...],
    prompts: tuple[str, ...],
    redraw: float,
    feather: float,
    out: Path,
    how: DrawingOptions,
    controls: ControlOptions,
) -> None:
    """Redraw regions of a photo with the adapters in DIR, one region after the other.

    Where all masks are black, the result equals the photo in sRGB to the last bit.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.editing import Region, edit, edit_record
    from lora_scene.picture_writing import check_sides
    from lora_scene.scenes.pictures import read_photo

    if len(masks) != len(prompts):
        raise click.UsageError(f"{len(masks)} --mask, but {len(prompts)} --prompt: one each")
    check_picture(out, [photo, *masks], verb="edit")
    asked = how.sampling.request(seed=how.seed, strength=redraw, control=controls.read())
    read = read_photo(photo)
    loaded = [_read_mask(mask, read) for mask in masks]
    check_sides(out, *read.pixels.shape[1::-1])
    cast = chosen.read()
    shares = asked.control.shared_out(cast, prompts)
    requests = [
        replace(asked, prompt=prompt, seed=asked.seed + number, control=control)
        for number, (prompt, control) in enumerate(zip(prompts, shares, strict=True))
    ]
    requests = look_at(cast, requests)
    studio = how.base.open(cast)
    sources = map(str, masks)
    regions = [Region(*region) for region in zip(loaded, requests, sources, strict=True)]
    with drawing_bar("editing", len(regions), is_quiet=how.as_json) as tick:
        result = edit(studio, read.pixels, regions, feather=feather, tick=tick)
    record = edit_record(studio, read.pixels, regions, feather)
    save_result(out, result, record, as_json=how.as_json)


def _read_mask(path: Path, photo: UprightPhoto) -> Mask:
    """Read a region that is to be redrawn, and look at it."""
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.editing import check_photo_and_mask, notes_on_mask
    from lora_scene.scenes.mask_files import read_mask

    mask = read_mask(path, photo)
    check_photo_and_mask(photo.pixels, mask, path)
    show_notices(notes_on_mask(mask, path))
    return mask
