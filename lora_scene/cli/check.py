"""`lora-scene check`: look at a scene before it is learnt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import json_option
from lora_scene.cli.paths import GIVEN, TARGET_FILE
from lora_scene.cli.terminal import console, shell

if TYPE_CHECKING:
    from lora_scene.errors import LoraSceneError
    from lora_scene.recipe import Recipe
    from lora_scene.scenes.manifest import Manifest
    from lora_scene.scenes.masks import ScenesReport
    from lora_scene.scenes.scene import Scene

RECIPES: Mapping[int | None, str] = {64: "mini", 1024: "sdxl"}  # that train at a size


@click.command()
@click.argument("scene", type=GIVEN)
@click.option("--out", type=TARGET_FILE, help="The overlay picture.  [default: "
              "<scene>_overlay.png in the current folder]")  # fmt: skip
@click.option("--recipe", help="That shall learn it.  [default: sd15; sdxl or mini by --size]")
@click.option("--size", type=click.IntRange(8, 2048), help="Pixels; else the recipe's.")
@json_option
def command(
    scene: Path, out: Path | None, recipe: str | None, size: int | None, as_json: bool
) -> None:
    """Print how SCENE is framed, what each mask covers and shares, and draw it.

    SCENE is a folder with img.jpg and mask0.png, mask1.png..., or with a scene.toml. Nothing in
    it is changed.
    """
    from lora_scene.backbones.prompt_room import report_on_prompts
    from lora_scene.backbones.training_size import usual_canvas, usual_doubts
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.picture_files import refuse_other_verb
    from lora_scene.files import check_file
    from lora_scene.picture_writing import write_picture
    from lora_scene.recipe import load_recipe
    from lora_scene.scenes.folder_names import OVERLAY
    from lora_scene.scenes.handles import word_notes
    from lora_scene.scenes.manifest import read_manifest
    from lora_scene.scenes.masks import report_on
    from lora_scene.scenes.overlay import draw_overlay
    from lora_scene.scenes.scene import read_scene

    place = scene.resolve()
    overlay = out or Path(f"{place.name if place.is_dir() else place.stem}{OVERLAY}")
    problems: list[LoraSceneError] = []
    manifest = read_manifest(scene, problems=problems)
    loaded = read_scene(manifest, problems)
    kept = (path for path in scene.rglob("*") if not path.name.endswith(OVERLAY))  # drawn before
    check_file(overlay, inputs=[*kept, *manifest.files])
    refuse_other_verb(overlay, None)
    settings = load_recipe(
        recipe or RECIPES.get(size, "sd15"), [f"base.resolution={size}"] if size else []
    )
    report = report_on(loaded, usual_canvas(settings), resize=settings.masked_loss.resize)
    read = report_on_prompts(loaded, settings)
    notes = [*word_notes(loaded.handles), *usual_doubts(settings), *read.doubts]
    refusals = [*filter(None, [report.refusal]), *read.refusals]
    write_picture(overlay, draw_overlay(loaded))
    if as_json:
        beside = {"notes": notes, "refusals": refusals, "overlay": str(overlay)}
        click.echo(json.dumps({**dataclasses.asdict(report), **beside}, indent=2))
        return
    _show(loaded, report, settings)
    show_notices(notes)
    click.echo(f"overlay: {overlay}")
    click.echo(f"next:    {_next_step(manifest, scene, refusals, _same_eyes(recipe, size))}")


def _show(scene: Scene, report: ScenesReport, recipe: Recipe) -> None:
    from lora_scene.cli.folded_table import FoldedTable

    out = console()
    photos = "1 photo" if len(scene.photos) == 1 else f"{len(scene.photos)} photos"
    table = FoldedTable(title=f"{scene.source}: {photos}, recipe {recipe.name}")
    for heading in ("handle", "noun", "photo"):
        table.add_column(heading)
    for heading in ("of photo", "of frame", "kept"):
        table.add_column(heading, justify="right")
    for row in report.coverages:
        percents = ["absent", "", ""]
        if row.box is not None:
            percents = [f"{100 * part:.1f} %" for part in (row.of_photo, row.of_frame, row.kept)]
        table.add_row(row.handle, row.noun, Path(row.photo).name, *percents)
    out.print(table)
    for framing in report.framings:
        parts = zip(framing.cut, ("left", "top", "right", "bottom"), strict=True)
        cut = [f"{n} px {side}" for n, side in parts if n]
        out.print(
            f"{Path(framing.photo).name}: {framing.size} px, learnt at {framing.trained} px; "
            f"cut off: {', '.join(cut) or 'nothing'}"
        )
    for overlap in report.overlaps:
        out.print(
            f"{overlap.handles[0]} and {overlap.handles[1]} share "
            f"{100 * overlap.of_smaller:.1f} % of the smaller mask"
        )
    for warning in report.warnings:
        out.print(f"warning: {warning}", style="yellow")


def _same_eyes(recipe: str | None, size: int | None) -> list[str]:
    """Return the options with which training sees what was looked at."""
    from lora_scene.recipe import load_recipe

    chosen = recipe or RECIPES.get(size)
    options = ["--recipe", chosen] if chosen else []
    if size and load_recipe(chosen or "sd15").base.resolution != size:
        options += ["--set", f"base.resolution={size}"]
    return options


def _next_step(
    manifest: Manifest, path: Path, refusals: Sequence[str], named: Sequence[str]
) -> str:
    from lora_scene.scenes.manifest import manifest_text

    if refusals:
        return "\n         ".join(refusals)
    following = shell("lora-scene", "train", path, *named, "--out", "adapter")
    if manifest.is_named:
        return following
    return (
        f"{following}\n"
        f"         better, name the concepts first: save this as {path / manifest.name}, "
        f"with your own handles and nouns\n\n{manifest_text(manifest)}"
    )
