"""`lora-scene complete`: fill holes in a photo, or grow its canvas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import (
    AdapterOptions,
    adapters_argument,
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
from lora_scene.creating.limits import SIDES

if TYPE_CHECKING:
    from lora_scene.creating.completion import Growth
    from lora_scene.scenes.pictures import Mask, Pixels, UprightPhoto


@click.command(short_help="Fill holes in a photo, or grow its canvas.")
@adapters_argument
@photo_option
@click.option("--mask", type=GIVEN, help="Bright where a hole is.")
@click.option("--spread", default=0, show_default=True, type=click.IntRange(0, SIDES[1]),
              help="Pixels by which the hole is widened, so that no rim of what was there "
              "stays.")  # fmt: skip
@click.option("--grow", help="Pixels on all sides, or such as left=64,bottom=32.")
@click.option("--prompt", help="What is there.  [default: the scene's own background]")
@picture_option
@drawing_options
def command(
    chosen: AdapterOptions,
    photo: Path,
    mask: Path | None,
    spread: int,
    grow: str | None,
    prompt: str | None,
    out: Path,
    how: DrawingOptions,
) -> None:
    """Fill holes in a photo, or grow its canvas, with the adapters in DIR.

    Where there is no hole, the result equals the photo in sRGB to the last bit.
    """
    from lora_scene.cli.progress import drawing_bar, show_notices
    from lora_scene.creating.completion import (
        Growth,
        complete,
        complete_record,
        default_prompt,
        plan_windows,
    )
    from lora_scene.creating.editing import check_photo_and_mask, notes_on_mask
    from lora_scene.picture_writing import check_sides
    from lora_scene.scenes.pictures import read_photo

    if bool(mask) == bool(grow):
        raise click.UsageError("give either --mask or --grow")
    check_picture(out, [path for path in (photo, mask) if path], verb="complete")
    asked = how.sampling.request(seed=how.seed)
    read = read_photo(photo)
    canvas, hole = _opened(read, mask or Growth.parse(grow or ""), spread)
    check_sides(out, *canvas.shape[1::-1])
    check_photo_and_mask(canvas, hole, mask or "hole")
    show_notices(notes_on_mask(hole, mask or "hole"))
    cast = chosen.read()
    prompt = default_prompt(cast) if prompt is None else prompt
    (request,) = look_at(cast, [replace(asked, prompt=prompt)])
    studio = how.base.open(cast)
    windows = plan_windows(hole, studio.backbone.resolution)
    with drawing_bar("completing", len(windows), is_quiet=how.as_json) as tick:
        result = complete(studio, canvas, hole, request, windows=windows, tick=tick)
    record = complete_record(studio, read.pixels, hole, request)
    save_result(out, result, record, as_json=how.as_json)


def _opened(photo: UprightPhoto, place: Growth | Path, spread: int) -> tuple[Pixels, Mask]:
    """Return the canvas, and the hole in it that a mask's file or a growth asks for."""
    from lora_scene.creating.completion import grown
    from lora_scene.creating.completion import spread as widened
    from lora_scene.scenes.mask_files import read_mask

    if isinstance(place, Path):
        return photo.pixels, widened(read_mask(place, photo), spread)
    canvas, hole = grown(photo.pixels, place)
    return canvas, widened(hole, spread)
