"""What the verbs share that draw a list of requests into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import (
    Command,
    base_options,
    control_from,
    control_options,
    json_option,
    out_option,
    sampling_from,
    sampling_options,
    size_option,
)

if TYPE_CHECKING:
    from lora_scene.creating.generation import Picture
    from lora_scene.creating.requests import Request
    from lora_scene.creating.studio import Studio


def picture_options(command: Command) -> Command:
    """Add --out and everything from --size to --json that says how pictures are drawn."""
    for option in (
        json_option,
        base_options,
        click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1)),
        control_options,
        sampling_options,
        size_option,
        out_option,
    ):
        command = option(command)
    return command


def request_from(shared: Mapping[str, Any], studio: Studio, *, seed: int = 0) -> Request:
    """Return the request, without a prompt, that `picture_options` ask for."""
    from lora_scene.creating.prompt_lines import parse_size
    from lora_scene.creating.requests import Request

    return Request(
        "",
        seed=seed,
        negative=shared["negative"],
        size=parse_size(shared["size"]) if shared["size"] else None,
        sampling=sampling_from(shared, studio),
        control=control_from(shared),
    )


def print_pictures(
    pictures: Sequence[Picture], sheets: Sequence[Path] = (), *, as_json: bool
) -> None:
    """Print where the pictures and their sheets lie, or the pictures' records as JSON."""
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), *sheets]:
        click.echo(path)
