"""`lora-scene demo`: the whole journey, offline."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import click

from lora_scene.cli.options import device_option, json_option
from lora_scene.cli.paths import TARGET_FOLDER
from lora_scene.cli.terminal import shell

SHOWN = {
    "identity": "identity: the things look like those of the photo (1 is equal)",
    "prompt_similarity": "prompt: pictures show what the words say",
    "missing_rate": "missing: a named thing is not there",
    "mixing_rate": "mixing: another thing stands in its place",
    "attention_iou": "attention: handles look at their masks (IoU)",
}


@click.command()
@click.option("--out", default="demo", show_default=True, type=TARGET_FOLDER)
@click.option("--short", is_flag=True, help="A few steps: everything runs, nothing is learnt.")
@click.option("--restart", is_flag=True, help="Discard what --out holds of an earlier demo.")
@device_option
@json_option
def command(out: Path, short: bool, restart: bool, device: str, as_json: bool) -> None:
    """Learn the embedded scene, export, verify and draw: offline, in minutes, on a CPU."""
    from lora_scene.cli.training_view import TrainingView
    from lora_scene.journey import SHORT, WEIGHT, run_demo

    view = TrainingView()
    with contextlib.nullcontext() if as_json else view.shown():
        demo = run_demo(
            out,
            overrides=SHORT if short else (),
            device=device,
            restart=restart,
            listener=None if as_json else view,
            tell=(lambda sentence: None) if as_json else (lambda s: click.echo(s, err=True)),
        )
    if as_json:
        click.echo((out / "demo.json").read_text("utf-8"), nl=False)
        return
    click.echo(f"\nverified {len(demo.checks)} exported files; trained in {demo.seconds:.0f} s")
    _show_figures(demo.figures)
    click.echo(f"\nlook at {out / 'grid.png'}; then:")
    prompt = f"a photo of a {demo.handle} on water"
    source = f"{out / 'adapter'}:{WEIGHT}"
    click.echo(f"  {shell('lora-scene', 'generate', source, '--out', 'more', '--prompt', prompt)}")
    click.echo(f"  {shell('lora-scene', 'inspect', out / 'exported')}")
    click.echo("  lora-scene mask PHOTO --box thing=40,60,300,420 --out SCENE   # your own photo")


def _show_figures(figures: Mapping[str, Mapping[str, float | None]]) -> None:
    click.echo(f"\n{'base':>8} {'learnt':>8}")
    for name, meaning in SHOWN.items():
        values = [figures[side].get(name) for side in ("base", "adapter")]
        shown = ["-" if value is None else f"{value:.2f}" for value in values]
        click.echo(f"{shown[0]:>8} {shown[1]:>8}  {meaning}")
