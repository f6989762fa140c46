"""`lora-scene generate`: pictures from prompts with handles."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.options import (
    AdapterOptions,
    ControlOptions,
    SamplingOptions,
    adapters_argument,
)
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import PictureOptions, draw_list, open_for, picture_options
from lora_scene.cli.values import COUNT, SEED, WEIGHT, fields_of, refuse_idle

IN_THE_PICTURE = (  # what --again takes from it
    *("seeds", "count", "weights", "with_base", "size"),
    *fields_of(SamplingOptions, ControlOptions),
)


@click.command(short_help="Draw pictures from prompts with handles.")
@adapters_argument
@click.option("--prompt", "prompts", multiple=True, help="With handles; repeatable.")
@click.option("--prompts", "file", type=GIVEN, help="A file with a prompt a line, each with "
              "options such as --seed 7 --weight 0.7.")  # fmt: skip
@click.option("--again", type=GIVEN, help="Make this PNG anew, from what it says itself.")
@click.option("--seed", "seeds", multiple=True, type=SEED,
              help="One picture each, -1 draws one; repeatable.  [default: 0]")  # fmt: skip
@click.option("--count", type=COUNT, default=1, show_default=True,
              help="Pictures from each --seed on, counting up.")  # fmt: skip
@click.option("--weight", "weights", multiple=True, type=WEIGHT, help="Of the LoRA; repeatable.")
@click.option("--grid", is_flag=True, help="A labelled sheet too, at weights 0, 0.7 and 1.")
@click.option("--with-base", is_flag=True, help="The base's picture beside each.")
@picture_options
def command(
    chosen: AdapterOptions,
    prompts: tuple[str, ...],
    file: Path | None,
    again: Path | None,
    seeds: tuple[int, ...],
    count: int,
    weights: tuple[float, ...],
    grid: bool,
    with_base: bool,
    pictures: PictureOptions,
) -> None:
    """Draw pictures with the adapters in DIR, each at its own WEIGHT.

    Several DIRs work together. Every picture says in its file how it was made.
    """
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.generation import GRID, GRID_WEIGHTS, grid_sheet, plan
    from lora_scene.creating.picture_files import read_record
    from lora_scene.creating.prompts import PromptLine, read_prompts
    from lora_scene.creating.records import differences, parse_record

    lines = [PromptLine(prompt) for prompt in prompts] + (read_prompts(file) if file else [])
    if bool(lines) == bool(again):
        raise click.UsageError("give --prompt or --prompts, or --again alone")
    if again:
        refuse_idle(IN_THE_PICTURE, "--again takes all this from the picture")
        told = parse_record(read_record(again))
        told.refuse_others(len(chosen.adapters))
        cast = chosen.read(told.renames)
        requests = [told.request]
    else:
        told, cast = None, chosen.read()
        requests = plan(
            cast,
            lines,
            seeds=list(dict.fromkeys(first + k for first in seeds or (0,) for k in range(count))),
            weights=weights or (GRID_WEIGHTS if grid else (1.0,)),
            default=pictures.request(),
            with_base=with_base,
        )
    sheet = (GRID, grid_sheet) if grid else None
    studio, requests = open_for(cast, requests, pictures)
    if told is not None:
        show_notices(differences(studio, told))
    draw_list(studio, requests, how=pictures, sheet=sheet)
