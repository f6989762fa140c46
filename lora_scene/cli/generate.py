"""`lora-scene generate`: pictures from prompts with handles."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lora_scene.cli.options import (
    adapters_argument,
    base_options,
    json_option,
    out_option,
    sampling_options,
)


@click.command(short_help="Draw pictures from prompts with handles.")
@adapters_argument
@click.option("--prompt", "prompts", multiple=True, help="With handles; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path),
    help="A file with a prompt a line, each with options such as --seed 7 --weight 0.7.",
)
@out_option
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="One picture a seed; repeatable.  [default: 0]"
)
@click.option("--weight", "weights", multiple=True, type=float, help="Of the LoRA; repeatable.")
@click.option("--size", help="Pixels, 512 or 512x768.  [default: the base's own]")
@sampling_options
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--grid", is_flag=True, help="A labelled sheet too, at weights 0, 0.7 and 1.")
@click.option("--with-base", is_flag=True, help="The base's picture beside each.")
@click.option(
    "--again", type=click.Path(path_type=Path), help="Make this PNG anew, from what it says itself."
)
@base_options
@json_option
def command(
    adapters: tuple[str, ...],
    prompts: tuple[str, ...],
    file: Path | None,
    out: Path,
    seeds: tuple[int, ...],
    weights: tuple[float, ...],
    size: str | None,
    steps: int,
    guidance: float,
    scheduler: str,
    negative: str,
    batch: int,
    grid: bool,
    with_base: bool,
    again: Path | None,
    base: str | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Draw pictures with the adapters in DIR, each at its own WEIGHT.

    Several DIRs work together. Every picture says in its file how it was made.
    """
    from lora_scene.cli.progress import drawing_bar, show_notices
    from lora_scene.creating.generate import GRID_WEIGHTS, batches, generate, plan
    from lora_scene.creating.pictures import read_record
    from lora_scene.creating.prompts import PromptLine, parse_size, read_prompts
    from lora_scene.creating.requests import Request, request_again
    from lora_scene.creating.sampling import Sampling
    from lora_scene.creating.studio import AdapterChoice, open_studio

    lines = [PromptLine(prompt) for prompt in prompts] + (read_prompts(file) if file else [])
    if bool(lines) == bool(again):
        raise click.UsageError("give --prompt or --prompts, or --again alone")
    requests = plan(
        lines,
        seeds=seeds or (0,),
        weights=weights or (GRID_WEIGHTS if grid else (1.0,)),
        default=Request(
            "",
            negative=negative,
            size=parse_size(size) if size else None,
            sampling=Sampling(steps, guidance, scheduler),
        ),
        with_base=with_base,
    )
    studio = open_studio(
        [AdapterChoice.parse(text) for text in adapters],
        base=base,
        device=device,
        dtype=dtype,  # type: ignore[arg-type]
    )
    show_notices(studio.notices)
    if again is not None:
        request, notices = request_again(studio, read_record(again))
        requests = [request]
        show_notices(notices)
    n_runs = len(batches(requests, batch))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = generate(studio, requests, out=out, batch_size=batch, with_grid=grid, tick=tick)
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for picture in pictures:
        click.echo(picture.path)
    if grid:
        click.echo(out / "grid.png")
