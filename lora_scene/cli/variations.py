"""`lora-scene variations`: a scene's concepts, arranged anew."""

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
    seed_option,
    size_option,
)


@click.command(short_help="Arrange a scene's concepts anew.")
@adapters_argument
@click.option("--n", default=9, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--handle", "handles", multiple=True, help="What to show; repeatable.  [all]")
@click.option("--template", default="a photo of {}", show_default=True)
@click.option("--place", "is_placed", is_flag=True, help="A random box for each thing.")
@click.option("--photo", type=click.Path(path_type=Path), help="Shown first on the sheet.")
@out_option
@seed_option
@size_option
@sampling_options
@control_options
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@base_options
@json_option
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw the concepts of the adapters in DIR in new arrangements.

    Picture i has seed --seed + i. Writes each picture and variations.png.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.generate import batches
    from lora_scene.creating.prompts import parse_size
    from lora_scene.creating.requests import Request
    from lora_scene.creating.variations import SHEET, plan_variations, vary
    from lora_scene.scenes.pictures import read_photo

    photo = read_photo(shared["photo"]).pixels if shared["photo"] else None
    studio = open_from(adapters, shared)
    default = Request(
        "",
        seed=shared["seed"],
        negative=shared["negative"],
        size=parse_size(shared["size"]) if shared["size"] else None,
        sampling=sampling_from(shared, studio),
        control=control_from(shared),
    )
    requests = plan_variations(
        studio,
        shared["n"],
        handles=shared["handles"],
        template=shared["template"],
        default=default,
        is_placed=shared["is_placed"],
    )
    n_runs = len(batches(requests, shared["batch"]))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = vary(
            studio, requests, out=out, photo=photo, batch_size=shared["batch"], tick=tick
        )
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), out / SHEET]:
        click.echo(path)
