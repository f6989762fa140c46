"""`lora-scene variations`: a scene's concepts, arranged anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import adapters_argument, cast_from, request_from, seed_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import draw_list, picture_options

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture


@click.command(short_help="Arrange a scene's concepts anew.")
@adapters_argument
@click.option("--n", default=9, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--handle", "handles", multiple=True, help="What to show; repeatable.  [all]")
@click.option("--template", default="a photo of {}", show_default=True)
@click.option("--place", "is_placed", is_flag=True, help="A random box for each thing.")
@click.option("--photo", type=GIVEN, help="Shown first on the sheet.")
@seed_option
@picture_options
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw the concepts of the adapters in DIR in new arrangements.

    Picture i has seed --seed + i. Writes each picture and variations.png.
    """
    from lora_scene.creating.arrangements import (
        VARIATIONS_SHEET,
        plan_variations,
        variations_sheet,
    )
    from lora_scene.scenes.pictures import read_photo

    photo = read_photo(shared["photo"]).pixels if shared["photo"] else None
    cast = cast_from(adapters, shared)
    requests = plan_variations(
        cast,
        shared["n"],
        handles=shared["handles"],
        template=shared["template"],
        default=request_from(shared, seed=shared["seed"]),
        is_placed=shared["is_placed"],
    )

    def sheet(pictures: list[Picture]) -> Image:
        return variations_sheet([picture.pixels for picture in pictures], photo)

    draw_list(
        cast, requests, out=out, shared=shared, as_json=as_json, sheet=(VARIATIONS_SHEET, sheet)
    )
