"""`lora-scene complete`: fill holes in a photo, or grow its canvas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lora_scene.cli.options import (
    AdapterOptions,
    BaseOptions,
    SamplingOptions,
    adapters_argument,
    base_options,
    json_option,
    look_at,
    picture_option,
    sampling_options,
    seed_option,
)
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import check_picture, save_result


@click.command(short_help="Fill holes in a photo, or grow its canvas.")
@adapters_argument
@click.option("--photo", required=True, type=GIVEN, help="Any size.")
@click.option("--mask", type=GIVEN, help="Bright where a hole is.")
@click.option(
    "--spread",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Pixels by which the hole is widened, so that no rim of what was there stays.",
)
@click.option("--grow", help="Pixels on all sides, or such as left=64,bottom=32.")
@click.option("--prompt", help="What is there.  [default: the scene's own background]")
@picture_option
@seed_option
@sampling_options
@base_options
@json_option
def command(
    chosen: AdapterOptions,
    photo: Path,
    mask: Path | None,
    spread: int,
    grow: str | None,
    prompt: str | None,
    out: Path,
    seed: int,
    sampling: SamplingOptions,
    base: BaseOptions,
    as_json: bool,
) -> None:
    """Fill holes in a photo, or grow its canvas, with the adapters in DIR.

    Where there is no hole, the result equals the photo to the last bit.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.completion import (
        Growth,
        complete,
        complete_record,
        count_windows,
        default_prompt,
        grown,
    )
    from lora_scene.creating.completion import spread as widened
    from lora_scene.scenes.mask_files import read_mask
    from lora_scene.scenes.pictures import read_photo

    if bool(mask) == bool(grow):
        raise click.UsageError("give either --mask or --grow")
    check_picture(out, [path for path in (photo, mask) if path])
    asked = sampling.request(seed=seed)
    growth = Growth.parse(grow) if grow else None
    read = read_photo(photo)
    if mask:
        canvas, hole = read.pixels, widened(read_mask(mask, read), spread)
    elif growth:
        canvas, hole = grown(read.pixels, growth)
    cast = chosen.read()
    asked = replace(asked, prompt=prompt or default_prompt(cast))
    (request,) = look_at(cast, [asked])
    studio = base.open(cast)
    with drawing_bar("completing", count_windows(studio, hole), is_quiet=as_json) as tick:
        result = complete(studio, canvas, hole, request, tick=tick)
    record = complete_record(studio, read.pixels, hole, request)
    save_result(out, result, record, as_json=as_json)
