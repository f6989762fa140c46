"""`lora-scene variations`: a scene's concepts, arranged anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import AdapterOptions, adapters_argument, seed_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import PictureOptions, draw_list, open_for, picture_options
from lora_scene.cli.values import COUNT

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture


@click.command(short_help="Arrange a scene's concepts anew.")
@adapters_argument
@click.option("--n", default=9, show_default=True, type=COUNT, help="How many.")
@click.option("--handle", "handles", multiple=True, help="What to show; repeatable.  [all]")
@click.option("--template", default="a photo of {}", show_default=True)
@click.option("--place", "is_placed", is_flag=True, help="A random box for each thing.")
@click.option("--photo", type=GIVEN, help="Shown first on the sheet.")
@seed_option
@picture_options
def command(
    chosen: AdapterOptions,
    n: int,
    handles: tuple[str, ...],
    template: str,
    is_placed: bool,
    photo: Path | None,
    seed: int,
    pictures: PictureOptions,
) -> None:
    """Draw the concepts of the adapters in DIR in new arrangements.

    Picture i has seed --seed + i. Writes each picture and variations.png.
    """
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.arrangements import (
        VARIATIONS_SHEET,
        plan_variations,
        variations_sheet,
    )
    from lora_scene.scenes.pictures import read_photo

    pixels = read_photo(photo).pixels if photo else None
    cast = chosen.read()
    requests = plan_variations(
        cast,
        n,
        handles=handles,
        template=template,
        default=pictures.request(seed=seed),
        is_placed=is_placed,
    )
    if is_placed and not requests[0].control.places:
        show_notices(["--place: only a background is shown, which has no box"])

    def sheet(drawn: list[Picture]) -> Image:
        return variations_sheet([picture.pixels for picture in drawn], pixels)

    studio, requests = open_for(cast, requests, pictures)
    draw_list(studio, requests, how=pictures, sheet=(VARIATIONS_SHEET, sheet))
