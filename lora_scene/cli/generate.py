"""`lora-scene generate`: pictures from prompts with handles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import adapters_argument, cast_from, request_from
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.picture_options import draw_list, picture_options
from lora_scene.cli.values import SEED, Number

if TYPE_CHECKING:
    from lora_scene.creating.prompts import PromptLine
    from lora_scene.creating.requests import Request
    from lora_scene.creating.studio import Cast


@click.command(short_help="Draw pictures from prompts with handles.")
@adapters_argument
@click.option("--prompt", "prompts", multiple=True, help="With handles; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=GIVEN,
    help="A file with a prompt a line, each with options such as --seed 7 --weight 0.7.",
)
@click.option("--again", type=GIVEN, help="Make this PNG anew, from what it says itself.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=SEED,
    help="One picture each, -1 draws one; repeatable.  [default: 0]",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    help="Pictures from each --seed on, counting up.  [default: 1]",
)
@click.option("--weight", "weights", multiple=True, type=Number(), help="Of the LoRA; repeatable.")
@click.option("--grid", is_flag=True, help="A labelled sheet too, at weights 0, 0.7 and 1.")
@click.option("--with-base", is_flag=True, help="The base's picture beside each.")
@picture_options
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw pictures with the adapters in DIR, each at its own WEIGHT.

    Several DIRs work together. Every picture says in its file how it was made.
    """
    from lora_scene.creating.generation import GRID, grid_sheet
    from lora_scene.creating.picture_files import read_record
    from lora_scene.creating.records import parse_record

    lines, again = _lines(shared), shared["again"]
    if bool(lines) == bool(again):
        raise click.UsageError("give --prompt or --prompts, or --again alone")
    if again:
        told = parse_record(read_record(again))
        cast = cast_from(adapters, shared, told.renames)
        requests = [told.request]
    else:
        told, cast = None, cast_from(adapters, shared)
        requests = _planned(lines, cast, shared)
    sheet = (GRID, grid_sheet) if shared["grid"] else None
    draw_list(cast, requests, told, out=out, shared=shared, as_json=as_json, sheet=sheet)


def _lines(shared: dict[str, Any]) -> list[PromptLine]:
    from lora_scene.creating.prompts import PromptLine, read_prompts

    lines = [PromptLine(prompt) for prompt in shared["prompts"]]
    return lines + (read_prompts(shared["file"]) if shared["file"] else [])


def _planned(lines: list[PromptLine], cast: Cast, shared: dict[str, Any]) -> list[Request]:
    from lora_scene.creating.generation import GRID_WEIGHTS, plan

    return plan(
        cast,
        lines,
        seeds=_seeds(shared["seeds"] or (0,), shared["count"]),
        weights=shared["weights"] or (GRID_WEIGHTS if shared["grid"] else (1.0,)),
        default=request_from(shared),
        with_base=shared["with_base"],
    )


def _seeds(first: tuple[int, ...], count: int) -> list[int]:
    """Count up from each seed; none comes twice."""
    return list(dict.fromkeys(seed + k for seed in first for k in range(count)))
