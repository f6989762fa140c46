"""`lora-scene train`: learn a scene's handles and adapters."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import (
    base_config_option,
    device_option,
    out_option,
    overrides_option,
)
from lora_scene.cli.paths import GIVEN, complete_place
from lora_scene.cli.terminal import note, shell
from lora_scene.cli.values import SEED, once
from lora_scene.learning.tracking import TRACKERS

if TYPE_CHECKING:
    from lora_scene.learning.beginning import Beginning
    from lora_scene.learning.events import Event, Listener
    from lora_scene.learning.interruption import Interruption
    from lora_scene.learning.runs import TrainingResult
    from lora_scene.recipe import Recipe
    from lora_scene.scenes.scene import Scene

AUTO_SNAPSHOTS = 8
BROKEN_PIPE = 13  # SIGPIPE, where there is one
STRANGE = (
    "the base mini knows drawings of 16 nouns at 64 px, not photos, and has never seen {}; "
    "--recipe sd15 learns from photos"
)


@click.command(short_help="Learn a scene's handles and adapters.")
@click.argument("scene", type=GIVEN)
@click.option(
    "--recipe",
    shell_complete=complete_place,
    help="A recipe's name or TOML file.  [default: sd15; mini for --base mini]",
)
@click.option("--base", shell_complete=complete_place,
              help="Hub id, folder, .safetensors file or mini; else the recipe's.")  # fmt: skip
@base_config_option
@out_option
@overrides_option
@click.option("--seed", type=SEED, help="Of all that is drawn; -1 draws one and prints it.  "
              "[default: the recipe's]")  # fmt: skip
@device_option
@click.option("--restart", is_flag=True, help="Discard what --out holds of an earlier run.")
@click.option("--from", "start", metavar="DIR|FILE[:WEIGHT]", shell_complete=complete_place,
              help="An earlier adapter or a LoRA, merged into the base.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Measure a few steps, print the plan, write nothing.")
@click.option("--auto", is_flag=True,
              help="Keep snapshots, and make the best of them the adapter.")  # fmt: skip
@click.option("--log-with", "trackers", multiple=True, type=click.Choice(TRACKERS),
              metavar="TRACKER", help="Tell one too, whose library is installed: "
              f"{', '.join(TRACKERS)}. Repeatable.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show notes and errors alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line an event, on stdout.")
def command(
    scene: Path,
    recipe: str | None,
    base: str | None,
    config: str | None,
    out: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    restart: bool,
    start: str | None,
    dry_run: bool,
    auto: bool,
    trackers: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Learn the handles of SCENE, a folder with a photo and a mask per thing.

    The same command again goes on where an interrupted run stopped.
    """
    from lora_scene.cli.evaluation_view import warn_of_strange_nouns
    from lora_scene.recipe import quoted
    from lora_scene.scenes.scene import load_scene

    given = {"base.model": base, "base.config": config, "run.seed": seed}
    named = [f"{key}={quoted(value)}" for key, value in given.items() if value is not None]
    recipe = recipe or ("mini" if base == "mini" else "sd15")
    settings = _settings(recipe, once([*overrides, *named]), auto=auto)
    learnt_from = load_scene(scene)
    if settings.base.model == "mini":
        warn_of_strange_nouns(learnt_from, STRANGE)
    begin = _read(start) if start else None
    asked: dict[str, Any] = {"device": device, "restart": restart, "begin": begin}
    if dry_run:
        _show_plan(learnt_from, settings, out, auto=auto, as_json=as_json, **asked)
        return
    result = _learn(learnt_from, settings, out, trackers, quiet=quiet, as_json=as_json, **asked)
    if auto and not result.adapter.info.taken:
        is_silent = quiet or as_json
        _pick_and_take(out, learnt_from, settings, device=device, is_quiet=is_silent)
    if not (as_json or quiet):
        _tell(result, out)


def _settings(recipe: str, overrides: list[str], *, auto: bool) -> Recipe:
    """Read the recipe, and tell what changes nothing; `--auto` needs snapshots to choose from."""
    from lora_scene.recipe import idle_settings, load_recipe

    settings = load_recipe(recipe, overrides)
    for said in idle_settings(settings, overrides):
        note(said)
    if auto and not settings.phase2.steps:
        raise click.BadParameter("phase 2 has no steps to choose from", param_hint="--auto")
    if auto and not settings.run.snapshots:
        return load_recipe(recipe, [*overrides, f"run.snapshots={AUTO_SNAPSHOTS}"])
    return settings


def _show_plan(
    scene: Scene, settings: Recipe, out: Path, *, auto: bool, as_json: bool, **options: Any
) -> None:
    """Measure a run that is not made, and print its plan."""
    from lora_scene.cli.training_view import TrainingView
    from lora_scene.judging.run_picking import n_pictures
    from lora_scene.learning.dry_run import plan_run

    options["n_picked"] = n_pictures(scene, settings) if auto else 0
    found = plan_run(scene, settings, out=out, listener=TrainingView(is_quiet=True), **options)
    if as_json:
        click.echo(json.dumps({**asdict(found), "seconds": found.seconds}, indent=2))
    else:
        click.echo("\n".join(found.lines()))


def _learn(
    scene: Scene,
    settings: Recipe,
    out: Path,
    trackers: tuple[str, ...],
    *,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> TrainingResult:
    """Train, shown as it is asked for; signals end the run after its step."""
    from lora_scene.cli.training_view import TrainingView, echo_json
    from lora_scene.learning.interruption import Interruption
    from lora_scene.learning.tracking import tracked
    from lora_scene.learning.training import train

    view, interruption = TrainingView(is_quiet=quiet), Interruption()
    listener = _unbroken(echo_json if as_json else view, interruption)
    with (
        interruption.heard(),
        nullcontext() if as_json else view.shown(),
        tracked(trackers, listener, out=out, recipe=settings) as heard,
    ):
        return train(scene, settings, out=out, listener=heard, interruption=interruption, **options)


def _unbroken(show: Listener, interruption: Interruption) -> Listener:
    """Let a run whose output can no longer be written end after its step, with a checkpoint."""

    def tell(event: Event) -> None:
        try:
            show(event)
        except (OSError, SystemExit):  # rich exits where nobody reads what it writes
            interruption.number = BROKEN_PIPE

    return tell


def _read(text: str) -> Beginning:
    """Read what a run begins from, `PATH` or `PATH:WEIGHT`."""
    from lora_scene.creating.choices import AdapterChoice
    from lora_scene.learning.beginning import read_beginning

    choice = AdapterChoice.parse(text)
    return read_beginning(str(choice.source), choice.weight)


def _tell(result: TrainingResult, out: Path) -> None:
    """Say what was learnt, and what may follow."""
    from lora_scene.cli.progress import show_notices
    from lora_scene.scenes.handles import word_notes

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


def _pick_and_take(
    out: Path, scene: Scene, settings: Recipe, *, device: str, is_quiet: bool
) -> None:
    """Pick between the snapshots of a run that is finished, and make the pick its adapter."""
    from lora_scene.cli.progress import counting_bar
    from lora_scene.judging.run_picking import pick_run
    from lora_scene.judging.taking import take

    with counting_bar("picking", is_quiet=is_quiet) as progress:
        found = pick_run(
            out,
            scene=scene,
            base=settings.base.model,
            config=settings.base.config or None,
            device=device,
            dtype=settings.base.dtype,
            quantization=settings.base.quantization,
            tell=note,
            progress=progress,
        )
    chosen = found.chosen
    take(out, chosen.step, chosen.weight)
    note(f"took step {chosen.step} at weight {chosen.weight:g}: {found.why}")
