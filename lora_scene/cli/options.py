"""Options that several verbs share, so that they are called and explained alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

DTYPES = ("auto", "fp32", "fp16", "bf16")

base_option = click.option(
    "--base",
    help="Hub id, folder, .safetensors file or mini.  [default: what the adapter was trained on]",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu."
)
dtype_option = click.option(
    "--dtype", default="auto", show_default=True, type=click.Choice(DTYPES), help="Of the base."
)
seed_option = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of all that is drawn."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and no progress."
)
out_option = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the pictures.",
)
adapters_argument = click.argument("adapters", nargs=-1, metavar="DIR[:WEIGHT]...")


def sampling_options(command: Command) -> Command:
    """Add --steps, --guidance, --scheduler and --negative."""
    for option in (
        click.option("--negative", default="", help="What the picture should not show."),
        click.option(
            "--scheduler",
            default="base",
            show_default=True,
            help="base (its own), ddim, ddpm, dpm++, dpm++-karras, dpm++-sde, euler, euler-a, "
            "heun, lms, pndm or unipc.",
        ),
        click.option("--guidance", default=7.5, show_default=True, type=float, help="CFG scale."),
        click.option(
            "--steps", default=30, show_default=True, type=click.IntRange(min=1), help="Of solver."
        ),
    ):
        command = option(command)
    return command


def base_options(command: Command) -> Command:
    """Add --base, --device and --dtype."""
    return base_option(device_option(dtype_option(command)))
