"""`lora-scene interpolate`: the frames between two pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lora_scene.cli.options import (
    AdapterOptions,
    adapters_argument,
    look_at,
    out_option,
    size_option,
)
from lora_scene.cli.picture_options import DrawingOptions, drawing_options
from lora_scene.cli.values import COUNT, SEED, WEIGHT
from lora_scene.size import Size


@click.command(short_help="Draw the frames between two pictures.")
@adapters_argument
@click.option("--from", "first", required=True, help="A prompt, or what {} in --prompt becomes.")
@click.option("--to", "last", required=True, help="The same for the last frame.")
@click.option("--prompt", default="{}", help="Such as 'a photo of {} on grass'.")
@click.option("--from-weight", "first_weights", multiple=True, type=WEIGHT,
              help="Factor of each DIR's weight in the first frame, in their order.")  # fmt: skip
@click.option("--to-weight", "last_weights", multiple=True, type=WEIGHT,
              help="In the last frame.")  # fmt: skip
@click.option("--to-seed", type=SEED, help="Moves the noise too.  [default: as --seed]")
@click.option("--frames", default=9, show_default=True, type=click.IntRange(2, COUNT.max))
@click.option("--milliseconds", default=120, show_default=True, type=click.IntRange(20, 655_350))
@out_option
@size_option
@drawing_options
def command(
    chosen: AdapterOptions,
    first: str,
    last: str,
    prompt: str,
    first_weights: tuple[float, ...],
    last_weights: tuple[float, ...],
    to_seed: int | None,
    frames: int,
    milliseconds: int,
    out: Path,
    size: Size | None,
    how: DrawingOptions,
) -> None:
    """Draw the frames between two prompts, concepts, adapters or weights.

    The noise is the same in all frames. Writes each frame, strip.png and interpolation.gif.
    """
    from lora_scene.cli.progress import drawing_bar, show_notices
    from lora_scene.creating.interpolation import interpolate, make_ends, save_frames

    cast = chosen.read()
    ends = make_ends(
        cast,
        how.sampling.request(prompt, seed=how.seed, size=size),
        (first, last),
        weights=(first_weights, last_weights),
        seed=to_seed,
    )
    start, end = look_at(cast, ends)
    if start == end:
        show_notices(["both ends are the same, and so are all frames"])
    studio = how.base.open(cast)
    with drawing_bar(f"drawing {frames}", frames, is_quiet=how.as_json) as tick:
        drawn = interpolate(studio, start, end, n_frames=frames, tick=tick)
        paths = save_frames(
            studio, drawn, (start, end), n_frames=frames, out=out, milliseconds=milliseconds
        )
    names = [str(path) for path in paths]
    click.echo(json.dumps({"paths": names}, indent=2) if how.as_json else "\n".join(names))
