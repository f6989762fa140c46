"""`lora-scene decompose`: each concept of a scene alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lora_scene.cli.options import adapters_argument, open_from
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import picture_options, print_pictures, request_from


@click.command(short_help="Draw each concept of a scene alone.")
@adapters_argument
@click.option("--seed", "seeds", multiple=True, type=int, help="Repeatable.  [default: 0]")
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
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.decomposition import SHEET, decompose, plan_parts
    from lora_scene.creating.generation import batches
    from lora_scene.scenes.photos import read_photo

    photo = read_photo(shared["photo"]).pixels if shared["photo"] else None
    studio = open_from(adapters, shared)
    parts = plan_parts(
        studio,
        seeds=shared["seeds"] or (0,),
        default=request_from(shared, studio),
        template=shared["template"],
        is_apart=shared["is_apart"],
    )
    requests = [request for part in parts for request in part.requests]
    n_runs = len(batches(requests, shared["batch"]))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = decompose(
            studio, parts, out=out, photo=photo, batch_size=shared["batch"], tick=tick
        )
    print_pictures(pictures, [out / SHEET], as_json=as_json)
