"""What the verbs share that draw a list of requests into a folder, or one picture to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import (
    BaseOptions,
    ControlOptions,
    SamplingOptions,
    base_options,
    control_options,
    json_option,
    look_at,
    out_option,
    sampling_options,
    seed_option,
    size_option,
)
from lora_scene.cli.values import COUNT, packed
from lora_scene.size import Size

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture
    from lora_scene.creating.requests import Request
    from lora_scene.creating.studio import Cast, Studio
    from lora_scene.scenes.pictures import Pixels

Sheet = tuple[str, "Callable[[list[Picture]], Image]"]  # a file's name and what makes it


@dataclass(frozen=True)
class DrawingOptions:
    """How one picture, or one row of frames, is drawn."""

    seed: int
    sampling: SamplingOptions
    base: BaseOptions
    as_json: bool


@dataclass(frozen=True)
class PictureOptions:
    """How a list of pictures is drawn, and where to."""

    out: Path
    size: Size | None
    sampling: SamplingOptions
    controls: ControlOptions
    batch: int
    base: BaseOptions
    as_json: bool

    def request(self, *, seed: int = 0) -> Request:
        """Return the request that is asked for, without a prompt."""
        return self.sampling.request(seed=seed, size=self.size, control=self.controls.read())


drawing_options = packed(
    "how", DrawingOptions, (seed_option, sampling_options, base_options, json_option)
)
picture_options = packed(
    "pictures",
    PictureOptions,
    (
        out_option,
        size_option,
        sampling_options,
        control_options,
        click.option("--batch", default=1, show_default=True, type=COUNT),
        base_options,
        json_option,
    ),
)


def open_for(
    cast: Cast, requests: Sequence[Request], how: PictureOptions
) -> tuple[Studio, list[Request]]:
    """Look at requests, then load the base for them."""
    requests = look_at(cast, requests)
    return how.base.open(cast), requests


def draw_list(
    studio: Studio,
    requests: Sequence[Request],
    *,
    how: PictureOptions,
    sheet: Sheet | None = None,
) -> None:
    """Draw requests into a folder, a sheet of them beside, and print where they lie."""
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.generation import batches, generate
    from lora_scene.creating.picture_files import save_image

    n_runs = len(batches(requests, how.batch))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=how.as_json) as tick:
        pictures = generate(studio, requests, out=how.out, batch_size=how.batch, tick=tick)
    sheets = [save_image(how.out / sheet[0], sheet[1](pictures))] if sheet else []
    if how.as_json:
        beside = {"sheet": str(sheets[0])} if sheets else {}
        answer = [{"path": str(one.path), **one.record, **beside} for one in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), *sheets]:
        click.echo(path)


def check_picture(out: Path, inputs: Sequence[Path], *, verb: str) -> None:
    """Look at where one picture will be written, before the base is loaded."""
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.picture_files import refuse_other_verb
    from lora_scene.files import check_file
    from lora_scene.picture_writing import LOSSY, check_format

    check_format(check_file(out, inputs=inputs))
    refuse_other_verb(out, verb)
    if out.suffix.lower() in LOSSY:
        show_notices(["JPEG rounds what it keeps, outside the masks too; .png and .webp do not"])


def save_result(out: Path, pixels: Pixels, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Write one picture, and print where it lies, or its record as JSON."""
    from lora_scene.creating.picture_files import save_picture

    save_picture(out, pixels, record)
    click.echo(json.dumps({"path": str(out), **record}, indent=2) if as_json else out)
