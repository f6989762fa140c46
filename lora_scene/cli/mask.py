"""`lora-scene mask`: make a scene folder from a photo, by boxes, points, strokes or words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lora_scene.cli.paths import GIVEN
from lora_scene.files import check_file
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.mask_prompt_text import PromptText, parse_background, parse_prompts
from lora_scene.scenes.masking import ListedPhoto, MaskedPhoto, list_regions, make_masks
from lora_scene.scenes.masks import covered
from lora_scene.scenes.pictures import read_photo
from lora_scene.scenes.scene_folder import check_scene_place, write_scene
from lora_scene.scenes.segmenters.catalog import CATALOG, open_lister, open_segmenter


def _prompts(command: Any) -> Any:
    """Add the options that hold prompts."""
    options = {
        "boxes": ("--box", "NAME=LEFT,TOP,RIGHT,BOTTOM", "A box around a concept, in pixels."),
        "points": ("--point", "NAME=X,Y", "A place in a concept."),
        "outside": ("--outside", "NAME=X,Y", "A place that is not part of it."),
        "strokes": ("--stroke", "NAME=X,Y;X,Y[@WIDTH]", "A brush stroke over it."),
        "words": ("--words", "[NAME=]TEXT", "Words for it; needs a model."),
        "picks": ("--pick", "NAME=NUMBER", "Its number from --list; needs a model."),
        "nouns": ("--noun", "NAME=TEXT", "Its class noun.  [default: its name]"),
    }
    for field, (flag, form, explanation) in reversed(options.items()):
        option = click.option(flag, field, multiple=True, metavar=form, help=explanation)
        command = option(command)
    return command


@click.command()
@click.argument("photo", type=GIVEN)
@_prompts
@click.option(
    "--background", metavar="NAME[=NOUN]", help="A concept for everything the others leave."
)
@click.option("--out", type=GIVEN, help="The scene folder; with --list a PNG.")
@click.option("--segmenter", default="grabcut", show_default=True, help=", ".join(CATALOG) + ".")
@click.option("--model", help="Hub id or folder of its weights.")
@click.option("--follower", help="Hub id or folder of the SAM behind grounding-dino.")
@click.option("--device", default="cpu", show_default=True, help="Where a network runs.")
@click.option("--list", "as_list", is_flag=True, help="Draw what could be picked, with numbers.")
@click.option("--replace", is_flag=True, help="Replace the files of an existing scene.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(photo: Path, as_list: bool, **options: Any) -> None:
    """Make masks for the concepts of PHOTO.

    Places are pixels of the upright photo, counted from its upper left corner. Everything about
    one concept goes by its NAME, which becomes its handle, <NAME>.

    \b
        lora-scene mask photo.jpg --box bear=40,60,300,420 --point bear=170,200 --out scene
        lora-scene mask photo.jpg --words "panda plush" --segmenter clipseg --out scene
        lora-scene mask photo.jpg --list --segmenter maskformer
    """  # noqa: D301
    if as_list:
        _list(photo, options)
    else:
        _mask(photo, options)


def _list(photo: Path, options: dict[str, Any]) -> None:
    picture = check_file(options["out"] or Path(f"{photo.stem}_regions.png"), inputs=[photo])
    lister = open_lister(options["segmenter"], model=options["model"], device=options["device"])
    listed = list_regions(read_photo(photo).pixels, lister, source=str(photo))
    write_picture(picture, listed.preview)
    _show_regions(listed, picture, options["as_json"])


def _mask(photo: Path, options: dict[str, Any]) -> None:
    if options["out"] is None:
        raise click.UsageError("--out FOLDER is needed: where the scene is to be written")
    fields = PromptText.__dataclass_fields__
    prompts = parse_prompts(PromptText(**{field: options[field] for field in fields}))
    replace = options["replace"]
    check_scene_place(options["out"], len(prompts), photo=photo, may_replace=replace)
    pixels = read_photo(photo).pixels
    background = parse_background(options["background"]) if options["background"] else None
    segmenter = open_segmenter(
        options["segmenter"],
        model=options["model"],
        follower=options["follower"],
        device=options["device"],
    )
    masked = make_masks(
        pixels, prompts, segmenter=segmenter, background=background, source=str(photo)
    )
    files = write_scene(options["out"], masked, photo=photo, may_replace=replace)
    _show_masks(masked, options["out"], files, options["as_json"])


def _show_masks(masked: MaskedPhoto, folder: Path, files: tuple[Path, ...], as_json: bool) -> None:
    (photo,) = masked.scene.photos
    shares = [covered(photo, k) for k in range(len(masked.scene.concepts))]
    if as_json:
        rows = [
            {"handle": concept.handle, "noun": concept.noun, "of_photo": share}
            for concept, share in zip(masked.scene.concepts, shares, strict=True)
        ]
        click.echo(json.dumps({"concepts": rows, "files": [str(file) for file in files]}, indent=2))
        return
    table = Table("handle", "noun", "of photo")
    for concept, share in zip(masked.scene.concepts, shares, strict=True):
        table.add_row(concept.handle, concept.noun, f"{100 * share:.1f} %")
    Console(markup=False).print(table)
    click.echo(f"written: {', '.join(file.name for file in files)} in {folder}")
    click.echo(f"next:    look at {folder / 'overlay.png'}, then lora-scene check {folder}")


def _show_regions(listed: ListedPhoto, picture: Path, as_json: bool) -> None:
    rows = [
        {"number": n, "name": region.name, "score": region.score}
        for n, region in enumerate(listed.regions, start=1)
    ]
    if as_json:
        click.echo(json.dumps({"regions": rows, "picture": str(picture)}, indent=2))
        return
    table = Table("number", "name", "score")
    for row in rows:
        table.add_row(str(row["number"]), str(row["name"]), f"{row['score']:.2f}")
    Console(markup=False).print(table)
    click.echo(f"picture: {picture}")
    click.echo("next:    lora-scene mask PHOTO --pick NAME=NUMBER --out SCENE, same --segmenter")
