"""`lora-scene complete`: fill holes in a photo, or grow its canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lora_scene.cli.options import (
    adapters_argument,
    base_options,
    json_option,
    open_from,
    picture_option,
    sampling_from,
    sampling_options,
    seed_option,
)
from lora_scene.cli.paths import GIVEN


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
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Fill holes in a photo, or grow its canvas, with the adapters in DIR.

    Where there is no hole, the result equals the photo to the last bit.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.blending import Brush
    from lora_scene.creating.completion import (
        Growth,
        complete,
        complete_record,
        count_windows,
        default_prompt,
        grown,
        spread,
    )
    from lora_scene.creating.picture_files import save_picture
    from lora_scene.files import check_file
    from lora_scene.scenes.mask_files import read_mask
    from lora_scene.scenes.photos import read_photo

    if bool(shared["mask"]) == bool(shared["grow"]):
        raise click.UsageError("give either --mask or --grow")
    check_file(out, inputs=[path for path in (shared["photo"], shared["mask"]) if path])
    photo = read_photo(shared["photo"])
    if shared["mask"]:
        canvas, hole = photo.pixels, spread(read_mask(shared["mask"], photo), shared["spread"])
    else:
        canvas, hole = grown(photo.pixels, Growth.parse(shared["grow"]))
    studio = open_from(adapters, shared)
    prompt = shared["prompt"] or default_prompt(studio)
    brush = Brush(prompt, shared["seed"], shared["negative"], sampling_from(shared, studio))
    with drawing_bar("completing", count_windows(studio, hole), is_quiet=as_json) as tick:
        result = complete(studio, canvas, hole, brush, tick=tick)
    record = complete_record(studio, photo.pixels, hole, brush)
    save_picture(out, result, record)
    click.echo(json.dumps({"path": str(out), **record}, indent=2) if as_json else out)
