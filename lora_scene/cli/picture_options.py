"""What the verbs share that draw a list of requests into a folder, or one picture to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import (
    Command,
    base_options,
    control_options,
    json_option,
    look_at,
    open_from,
    out_option,
    sampling_options,
    size_option,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_scene.creating.generation import Picture
    from lora_scene.creating.records import PictureTold
    from lora_scene.creating.requests import Request
    from lora_scene.creating.sampling import Pixels
    from lora_scene.creating.studio import Cast

Sheet = tuple[str, "Callable[[list[Picture]], Image]"]  # a file's name and what makes it


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


def draw_list(
    cast: Cast,
    requests: Sequence[Request],
    told: PictureTold | None = None,
    *,
    out: Path,
    shared: Mapping[str, Any],
    as_json: bool,
    sheet: Sheet | None = None,
) -> None:
    """Draw requests into a folder, a sheet of them beside, and print where they lie.

    What is drawn again from a record is compared with it first.
    """
    from lora_scene.cli.progress import drawing_bar, show_notices
    from lora_scene.creating.generation import batches, generate
    from lora_scene.creating.picture_files import save_image
    from lora_scene.creating.records import compare
    from lora_scene.files import check_target

    check_target(out)
    requests = look_at(cast, requests)
    studio = open_from(cast, shared)
    if told is not None:
        show_notices(compare(studio, told))
    n_runs = len(batches(requests, shared["batch"]))
    with drawing_bar(f"drawing {len(requests)}", n_runs, is_quiet=as_json) as tick:
        pictures = generate(studio, requests, out=out, batch_size=shared["batch"], tick=tick)
    sheets = [save_image(out / sheet[0], sheet[1](pictures))] if sheet else []
    if as_json:
        answer = [{"path": str(picture.path), **picture.record} for picture in pictures]
        click.echo(json.dumps(answer, indent=2))
        return
    for path in [*(picture.path for picture in pictures), *sheets]:
        click.echo(path)


def check_picture(out: Path, inputs: Sequence[Path]) -> None:
    """Look at where one picture will be written, before the base is loaded."""
    from lora_scene.cli.progress import show_notices
    from lora_scene.files import check_file
    from lora_scene.picture_writing import LOSSY, check_format

    check_format(check_file(out, inputs=inputs))
    if out.suffix.lower() in LOSSY:
        show_notices(["JPEG rounds what it keeps, outside the masks too; .png and .webp do not"])


def save_result(out: Path, pixels: Pixels, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Write one picture, and print where it lies, or its record as JSON."""
    from lora_scene.creating.picture_files import save_picture

    save_picture(out, pixels, record)
    click.echo(json.dumps({"path": str(out), **record}, indent=2) if as_json else out)
