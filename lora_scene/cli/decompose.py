"""`lora-scene decompose`: each concept of a scene alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import AdapterOptions, adapters_argument
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import PictureOptions, draw_list, open_for, picture_options
from lora_scene.cli.values import SEED

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture


@click.command(short_help="Draw each concept of a scene alone.")
@adapters_argument
@click.option("--seed", "seeds", multiple=True, type=SEED, help="Repeatable.  [default: 0]")
@click.option("--template", default="a photo of {}", show_default=True)
@click.option("--apart", "is_apart", is_flag=True, help="Name the other things in the negative "
              "prompt, where they cling to each other.")  # fmt: skip
@click.option("--photo", type=GIVEN, help="Shown beside the parts.")
@picture_options
def command(
    chosen: AdapterOptions,
    seeds: tuple[int, ...],
    template: str,
    is_apart: bool,
    photo: Path | None,
    pictures: PictureOptions,
) -> None:
    """Draw what the adapters in DIR know: each thing, the background, and all together.

    Entangled things, a dog and its shirt, come apart. Writes each picture and parts.png.
    """
    from lora_scene.creating.arrangements import (
        PARTS_SHEET,
        fitting_parts,
        parts_sheet,
        plan_parts,
    )
    from lora_scene.scenes.pictures import read_photo

    pixels = read_photo(photo).pixels if photo else None
    cast = chosen.read()
    parts = plan_parts(
        cast,
        seeds=seeds or (0,),
        default=pictures.request(),
        template=template,
        is_apart=is_apart,
    )
    studio, _ = open_for(cast, [one for part in parts for one in part.requests], pictures)
    parts = fitting_parts(studio, parts)

    def sheet(drawn: list[Picture]) -> Image:
        return parts_sheet(parts, [picture.pixels for picture in drawn], pixels)

    requests = [request for part in parts for request in part.requests]
    draw_list(studio, requests, how=pictures, sheet=(PARTS_SHEET, sheet))
