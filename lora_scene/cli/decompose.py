"""`lora-scene decompose`: each concept of a scene alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import adapters_argument, cast_from, request_from
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import draw_list, picture_options
from lora_scene.cli.values import SEED

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture


@click.command(short_help="Draw each concept of a scene alone.")
@adapters_argument
@click.option("--seed", "seeds", multiple=True, type=SEED, help="Repeatable.  [default: 0]")
@click.option("--template", default="a photo of {}", show_default=True)
@click.option(
    "--apart",
    "is_apart",
    is_flag=True,
    help="Name the other things in the negative prompt, where they cling to each other.",
)
@click.option("--photo", type=GIVEN, help="Shown beside the parts.")
@picture_options
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw what the adapters in DIR know: each thing, the background, and all together.

    Entangled things, a dog and its shirt, come apart. Writes each picture and parts.png.
    """
    from lora_scene.creating.arrangements import PARTS_SHEET, parts_sheet, plan_parts
    from lora_scene.scenes.pictures import read_photo

    photo = read_photo(shared["photo"]).pixels if shared["photo"] else None
    cast = cast_from(adapters, shared)
    parts = plan_parts(
        cast,
        seeds=shared["seeds"] or (0,),
        default=request_from(shared),
        template=shared["template"],
        is_apart=shared["is_apart"],
    )
    requests = [request for part in parts for request in part.requests]

    def sheet(pictures: list[Picture]) -> Image:
        return parts_sheet(parts, [picture.pixels for picture in pictures], photo)

    draw_list(cast, requests, out=out, shared=shared, as_json=as_json, sheet=(PARTS_SHEET, sheet))
