"""`lora-scene generate`: pictures from prompts with handles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from lora_scene.creating.prompts import PromptLine
    from lora_scene.creating.requests import Request
    from lora_scene.creating.studio import Studio


@click.command(short_help="Draw pictures from prompts with handles.")
@adapters_argument
@click.option("--prompt", "prompts", multiple=True, help="With handles; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path),
    help="A file with a prompt a line, each with options such as --seed 7 --weight 0.7.",
)
@click.option(
    "--again", type=click.Path(path_type=Path), help="Make this PNG anew, from what it says itself."
)
@out_option
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="One picture a seed; repeatable.  [default: 0]"
)
@click.option("--weight", "weights", multiple=True, type=float, help="Of the LoRA; repeatable.")
@size_option
@sampling_options
@control_options
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--grid", is_flag=True, help="A labelled sheet too, at weights 0, 0.7 and 1.")
@click.option("--with-base", is_flag=True, help="The base's picture beside each.")
@base_options
@json_option
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw pictures with the adapters in DIR, each at its own WEIGHT.

    Several DIRs work together. Every picture says in its file how it was made.
    """
    from lora_scene.cli.progress import drawing_bar, show_notices
    from lora_scene.creating.generate import GRID, batches, generate
    from lora_scene.creating.pictures import read_record
    from lora_scene.creating.requests import request_again

    lines, again = _lines(shared), shared["again"]
    if bool(lines) == bool(again):
        raise click.UsageError("give --prompt or --prompts, or --again alone")
    studio = open_from(adapters, shared)
    if again:
        request, notices = request_again(studio, read_record(again))
        requests = [request]
        show_notices(notices)
    else:
        requests = _planned(lines, studio, shared)
    batch, grid = shared["batch"], shared["grid"]
    n_runs = len(batches(requests, batch))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = generate(studio, requests, out=out, batch_size=batch, with_grid=grid, tick=tick)
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), *([out / GRID] if grid else [])]:
        click.echo(path)


def _lines(shared: dict[str, Any]) -> list[PromptLine]:
    from lora_scene.creating.prompts import PromptLine, read_prompts

    lines = [PromptLine(prompt) for prompt in shared["prompts"]]
    return lines + (read_prompts(shared["file"]) if shared["file"] else [])


def _planned(lines: list[PromptLine], studio: Studio, shared: dict[str, Any]) -> list[Request]:
    from lora_scene.creating.generate import GRID_WEIGHTS, plan
    from lora_scene.creating.prompts import parse_size
    from lora_scene.creating.requests import Request

    return plan(
        lines,
        seeds=shared["seeds"] or (0,),
        weights=shared["weights"] or (GRID_WEIGHTS if shared["grid"] else (1.0,)),
        default=Request(
            "",
            negative=shared["negative"],
            size=parse_size(shared["size"]) if shared["size"] else None,
            sampling=sampling_from(shared, studio),
            control=control_from(shared),
        ),
        with_base=shared["with_base"],
    )
