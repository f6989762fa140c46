"""`lora-scene mask`: make a scene folder from a photo, by boxes, points, strokes or words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import json_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.terminal import console, shell
from lora_scene.cli.values import fields_of, many, packed, refuse_idle
from lora_scene.scenes.mask_prompt_text import PromptText, parse_background, parse_prompts
from lora_scene.scenes.segmenters.catalog import CATALOG, open_lister, open_segmenter

if TYPE_CHECKING:
    from lora_scene.scenes.masking import ListedPhoto, MaskedPhoto


@dataclass(frozen=True)
class NetworkOptions:
    """Which segmenter, and where it runs."""

    segmenter: str
    model: str | None
    follower: str | None
    device: str


prompt_options = packed(
    "text",
    PromptText,
    (
        many("--box", "boxes", "NAME=LEFT,TOP,RIGHT,BOTTOM", "A box around a concept, in pixels."),
        many("--point", "points", "NAME=X,Y", "A place in a concept."),
        many("--outside", "outside", "NAME=X,Y", "A place that is not part of it."),
        many("--stroke", "strokes", "NAME=X,Y;X,Y[@WIDTH]", "A brush stroke over it."),
        many("--words", "words", "[NAME=]TEXT", "Words for it; needs a model."),
        many("--pick", "picks", "NAME=NUMBER", "Its number from --list; needs a model."),
        many("--noun", "nouns", "NAME=TEXT", "Its class noun.  [default: its name]"),
    ),
)
network_options = packed(
    "network",
    NetworkOptions,
    (
        click.option("--segmenter", default="grabcut", show_default=True,
                     help=", ".join(CATALOG) + "."),
        click.option("--model", help="Hub id or folder of its weights."),
        click.option("--follower", help="Hub id or folder of the SAM behind grounding-dino."),
        click.option("--device", default="cpu", show_default=True, help="Where a network runs."),
    ),
)  # fmt: skip


@click.command()
@click.argument("photo", type=GIVEN)
@prompt_options
@click.option("--background", metavar="NAME[=NOUN]",
              help="A concept for everything the others leave.")  # fmt: skip
@click.option("--out", type=GIVEN, help="The scene folder; with --list a PNG.")
@network_options
@click.option("--list", "as_list", is_flag=True, help="Draw what could be picked, with numbers.")
@click.option("--replace", is_flag=True, help="Replace the files of an existing scene.")
@json_option
def command(
    photo: Path,
    text: PromptText,
    background: str | None,
    out: Path | None,
    network: NetworkOptions,
    as_list: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Make masks for the concepts of PHOTO.

    Places are pixels of the upright photo, counted from its upper left corner. Everything about
    one concept goes by its NAME, which becomes its handle, <NAME>.

    \b
        lora-scene mask photo.jpg --box bear=40,60,300,420 --out scene
        lora-scene mask photo.jpg --words shell --segmenter clipseg --out scene
        lora-scene mask photo.jpg --list --segmenter maskformer
    """  # noqa: D301
    from lora_scene.scenes.masking import make_masks
    from lora_scene.scenes.pictures import read_photo
    from lora_scene.scenes.scene_folder import check_scene_place, write_scene

    if as_list:
        idle = (*fields_of(PromptText), "background", "follower", "replace")
        refuse_idle(idle, "--list draws all that could be picked")
        _list(photo, out, network, as_json)
        return
    if out is None:
        raise click.UsageError("--out FOLDER is needed: where the scene is to be written")
    if network.segmenter == "grabcut":
        refuse_idle(["device"], "--segmenter grabcut is no network")
    prompts = parse_prompts(text)
    check_scene_place(out, len(prompts), photo=photo, may_replace=replace)
    pixels = read_photo(photo).pixels
    segmenter = open_segmenter(
        network.segmenter, model=network.model, follower=network.follower, device=network.device
    )
    masked = make_masks(
        pixels,
        prompts,
        segmenter=segmenter,
        background=None if background is None else parse_background(background),
        source=str(photo),
    )
    files = write_scene(out, masked, photo=photo, may_replace=replace)
    _show_masks(masked, out, files, as_json)


def _list(photo: Path, out: Path | None, network: NetworkOptions, as_json: bool) -> None:
    from lora_scene.creating.picture_files import refuse_other_verb
    from lora_scene.files import check_file
    from lora_scene.picture_writing import check_format, write_picture
    from lora_scene.scenes.folder_names import REGIONS
    from lora_scene.scenes.masking import list_regions
    from lora_scene.scenes.pictures import read_photo

    picture = check_file(out or Path(f"{photo.stem}{REGIONS}"), inputs=[photo])
    check_format(picture)
    refuse_other_verb(picture, None)
    lister = open_lister(network.segmenter, model=network.model, device=network.device)
    listed = list_regions(read_photo(photo).pixels, lister, source=str(photo))
    _show_regions(listed, picture, as_json)
    write_picture(picture, listed.preview)  # last: what was found is told, whatever the disk does


def _show_masks(masked: MaskedPhoto, folder: Path, files: tuple[Path, ...], as_json: bool) -> None:
    from lora_scene.cli.folded_table import FoldedTable
    from lora_scene.scenes.coverage import covered

    (photo,) = masked.scene.photos
    shares = [covered(photo, k) for k in range(len(masked.scene.concepts))]
    if as_json:
        rows = [
            {"handle": concept.handle, "noun": concept.noun, "of_photo": share}
            for concept, share in zip(masked.scene.concepts, shares, strict=True)
        ]
        click.echo(json.dumps({"concepts": rows, "files": [str(file) for file in files]}, indent=2))
        return
    table = FoldedTable("handle", "noun", "of photo")
    for concept, share in zip(masked.scene.concepts, shares, strict=True):
        table.add_row(concept.handle, concept.noun, f"{100 * share:.1f} %")
    console().print(table)
    click.echo(f"written: {', '.join(file.name for file in files)} in {folder}")
    following = shell("lora-scene", "check", folder)
    click.echo(f"next:    look at {folder / 'overlay.png'}, then {following}")


def _show_regions(listed: ListedPhoto, picture: Path, as_json: bool) -> None:
    from lora_scene.cli.folded_table import FoldedTable

    rows = [
        {"number": n, "name": region.name, "score": region.score}
        for n, region in enumerate(listed.regions, start=1)
    ]
    if as_json:
        click.echo(json.dumps({"regions": rows, "picture": str(picture)}, indent=2))
        return
    table = FoldedTable("number", "name", "score")
    for row in rows:
        table.add_row(str(row["number"]), str(row["name"]), f"{row['score']:.2f}")
    console().print(table)
    click.echo(f"picture: {picture}")
    click.echo("next:    lora-scene mask PHOTO --pick NAME=NUMBER --out SCENE, same --segmenter")
