"""`lora-scene train`: learn a scene's handles and adapters."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import click

from lora_scene.cli.options import base_config_option
from lora_scene.cli.paths import GIVEN, TARGET_FOLDER
from lora_scene.cli.terminal import note, shell
from lora_scene.cli.values import SEED


@click.command(short_help="Learn a scene's handles and adapters.")
@click.argument("scene", type=GIVEN)
@click.option(
    "--recipe", help="A recipe's name or TOML file.  [default: sd15; mini for --base mini]"
)
@click.option("--base", help="Hub id, folder, .safetensors file or mini; else the recipe's.")
@base_config_option
@click.option("--out", required=True, type=TARGET_FOLDER, help="Result folder.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE",
              help="Override a setting of the recipe; repeatable.")  # fmt: skip
@click.option(
    "--seed",
    type=SEED,
    help="Of all that is drawn; -1 draws one and prints it.  [default: the recipe's]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps, cpu.")
@click.option("--restart", is_flag=True, help="Discard what --out holds of an earlier run.")
@click.option("--quiet", is_flag=True, help="Show notes and errors alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line an event, on stdout.")
def command(
    scene: Path,
    recipe: str | None,
    base: str | None,
    base_config: str | None,
    out: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    restart: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Learn the handles of SCENE, a folder with a photo and a mask per thing.

    The same command again goes on where an interrupted run stopped.
    """
    from lora_scene.cli.evaluate import strange_nouns
    from lora_scene.cli.progress import show_notices
    from lora_scene.cli.training_view import TrainingView, echo_json
    from lora_scene.learning.interruption import Interruption
    from lora_scene.learning.training import train
    from lora_scene.recipe import load_recipe
    from lora_scene.scenes.handles import word_notes
    from lora_scene.scenes.scene import load_scene

    named = [f"base.model={json.dumps(base)}"] if base else []
    named += [f"base.config={json.dumps(base_config)}"] if base_config else []
    named += [f"run.seed={seed}"] if seed is not None else []
    recipe = recipe or ("mini" if base == "mini" else "sd15")
    settings = load_recipe(recipe, [*overrides, *named])
    learnt_from = load_scene(scene)
    if settings.base.model == "mini" and (strange := strange_nouns(learnt_from)):
        note(
            "the base mini knows drawings of 16 nouns at 64 px, not photos, and has never seen "
            f"{' or '.join(strange)}; --recipe sd15 learns from photos",
            warning=True,
        )
    view, interruption = TrainingView(is_quiet=quiet), Interruption()
    with interruption.heard(), nullcontext() if as_json else view.shown():
        result = train(
            learnt_from,
            settings,
            out=out,
            device=device,
            listener=echo_json if as_json else view,
            restart=restart,
            interruption=interruption,
        )
    if as_json or quiet:
        return
    handles = " and ".join(result.learnt or result.adapter.handles)
    told = f"learnt {handles}" if result.learnt else "learnt nothing"
    click.echo(f"\n{told}: {result.adapter.n_parameters:,} numbers in {result.folder}")
    show_notices(word_notes(result.adapter.handles))
    click.echo("\nnext:")
    prompt = f"a photo of {handles} on a beach"
    for words in (
        ("generate", out, "--prompt", prompt, "--out", "images"),
        ("export", out, "--out", "exported"),
        ("card", out, "--draw"),
    ):
        click.echo(f"  {shell('lora-scene', *words)}")
