"""`lora-scene decompose`: each concept of a scene alone."""

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
    out_option,
    sampling_from,
    sampling_options,
    size_option,
)


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
@click.option("--photo", type=click.Path(path_type=Path), help="Shown beside the parts.")
@out_option
@size_option
@sampling_options
@control_options
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@base_options
@json_option
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw what the adapters in DIR know: each thing, the background, and all together.

    Entangled things, a dog and its shirt, come apart. Writes each picture and parts.png.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.decompose import SHEET, decompose, plan_parts
    from lora_scene.creating.generate import batches
    from lora_scene.creating.prompts import parse_size
    from lora_scene.creating.requests import Request
    from lora_scene.scenes.pictures import read_photo

    photo = read_photo(shared["photo"]).pixels if shared["photo"] else None
    studio = open_from(adapters, shared)
    default = Request(
        "",
        negative=shared["negative"],
        size=parse_size(shared["size"]) if shared["size"] else None,
        sampling=sampling_from(shared, studio),
        control=control_from(shared),
    )
    parts = plan_parts(
        studio,
        seeds=shared["seeds"] or (0,),
        default=default,
        template=shared["template"],
        is_apart=shared["is_apart"],
    )
    requests = [request for part in parts for request in part.requests]
    n_runs = len(batches(requests, shared["batch"]))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = decompose(
            studio, parts, out=out, photo=photo, batch_size=shared["batch"], tick=tick
        )
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), out / SHEET]:
        click.echo(path)
