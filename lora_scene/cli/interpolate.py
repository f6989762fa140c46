"""`lora-scene interpolate`: the frames between two pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lora_scene.cli.options import (
    adapters_argument,
    base_options,
    cast_from,
    json_option,
    look_at,
    open_from,
    out_option,
    request_from,
    sampling_options,
    seed_option,
    size_option,
)
from lora_scene.cli.values import SEED, Number


@click.command(short_help="Draw the frames between two pictures.")
@adapters_argument
@click.option("--from", "first", required=True, help="A prompt, or what {} in --prompt becomes.")
@click.option("--to", "last", required=True, help="The same for the last frame.")
@click.option("--prompt", default="{}", help="Such as 'a photo of {} on grass'.")
@click.option(
    "--from-weight",
    "first_weights",
    multiple=True,
    type=Number(),
    help="Factor of each DIR's weight in the first frame, in their order.",
)
@click.option(
    "--to-weight", "last_weights", multiple=True, type=Number(), help="In the last frame."
)
@click.option("--to-seed", type=SEED, help="Moves the noise too.  [default: as --seed]")
@click.option("--frames", default=9, show_default=True, type=click.IntRange(min=2))
@click.option("--milliseconds", default=120, show_default=True, type=click.IntRange(min=20))
@out_option
@seed_option
@size_option
@sampling_options
@base_options
@json_option
def command(adapters: tuple[str, ...], out: Path, as_json: bool, **shared: Any) -> None:
    """Draw the frames between two prompts, concepts, adapters or weights.

    The noise is the same in all frames. Writes each frame, strip.png and interpolation.gif.
    """
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.interpolation import interpolate, make_ends, save_frames
    from lora_scene.files import check_target

    check_target(out)
    cast = cast_from(adapters, shared)
    ends = make_ends(
        cast,
        request_from(shared, shared["prompt"], seed=shared["seed"]),
        (shared["first"], shared["last"]),
        weights=(shared["first_weights"], shared["last_weights"]),
        seed=shared["to_seed"],
    )
    first, last = look_at(cast, ends)
    studio = open_from(cast, shared)
    n_frames = shared["frames"]
    with drawing_bar(f"drawing {n_frames}", n_frames, is_quiet=as_json) as tick:
        frames = list(interpolate(studio, first, last, n_frames=n_frames, tick=tick))
    paths = save_frames(studio, frames, (first, last), out=out, milliseconds=shared["milliseconds"])
    names = [str(path) for path in paths]
    click.echo(json.dumps({"paths": names}, indent=2) if as_json else "\n".join(names))
