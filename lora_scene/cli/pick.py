"""`lora-scene pick`: which snapshot of a training, at which weight."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.evaluate import JudgeOptions, judge_options
from lora_scene.cli.options import BaseOptions, base_options, json_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.terminal import note, shell
from lora_scene.cli.values import COUNT, Number, Numbers, fields_of, refuse_idle
from lora_scene.creating.limits import MAX_STEPS

if TYPE_CHECKING:
    from lora_scene.judging.picking import Pick


class StepWeight(click.ParamType):  # type: ignore[type-arg]
    """`400:0.8` as (400, 0.8); `best` takes what is recommended."""

    name = "step:weight"

    def convert(self, value: object, param: object, ctx: object) -> tuple[int, float] | str:
        """Read a step and a weight, which is 1 if it is left out."""
        text = str(value)
        match = re.fullmatch(r"(\d{1,7})(?::(\d*\.?\d+))?", text)
        if text == "best":
            return text
        if match is None or not 0 < float(match[2] or 1) <= 4:
            self.fail(f"{text!r:.40} is neither STEP:WEIGHT, such as 400:0.8, nor best")
        return int(match[1]), float(match[2] or 1)


@click.command(short_help="Choose between a training's snapshots and weights.")
@click.argument("out", metavar="OUT", type=GIVEN)
@click.option("--scene", type=GIVEN, help="Its scene.  [default: where the training found it]")
@click.option("--take", type=StepWeight(), metavar="STEP:WEIGHT|best",
              help="Make it OUT's adapter, the weight folded in.")  # fmt: skip
@click.option("--weights", default="0.5,0.7,0.85,1,1.1", show_default=True, help="Tried.",
              type=Numbers(Number(min=0.0)))  # fmt: skip
@click.option("--seeds", default=2, show_default=True, type=COUNT,
              help="Pictures a prompt and subset of handles.")  # fmt: skip
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1, MAX_STEPS),
              help="Of the solver.")  # fmt: skip
@judge_options
@base_options
@json_option
def command(
    out: Path,
    scene: Path | None,
    take: tuple[int, float] | str | None,
    weights: list[float],
    seeds: int,
    steps: int,
    judges: JudgeOptions,
    base: BaseOptions,
    as_json: bool,
) -> None:
    """Draw the same seeds with every snapshot in OUT at several weights, and recommend a pair.

    Nothing leaves the machine, and nothing is downloaded unless --judge clip+dino asks for it.
    OUT/pick.png shows all of them, OUT/pick.json holds the figures. With --take
    STEP:WEIGHT nothing is drawn. The same command again goes on where an
    interrupted one stopped.
    """
    if isinstance(take, tuple):
        _take(out, *take)
        return
    judges.refuse_idle(judges.judge)
    from lora_scene.cli.progress import counting_bar
    from lora_scene.judging.run_picking import pick_run
    from lora_scene.judging.taking import take as take_snapshot

    with counting_bar("picking", is_quiet=as_json) as progress:
        found = pick_run(
            out,
            scene=scene,
            weights=weights,
            n_seeds=seeds,
            n_steps=steps,
            judge=None if judges.judge is None else judges.load(judges.judge, base.device),
            tell=note,
            progress=progress,
            **vars(base),
        )
    chosen = found.chosen
    _tell(found, out, as_json=as_json)
    if take == "best":
        take_snapshot(out, chosen.step, chosen.weight)
        click.echo(f"{out} holds it now, the weight folded in", err=as_json)
    elif not as_json:
        words = shell("lora-scene", "pick", out, "--take", f"{chosen.step}:{chosen.weight:g}")
        click.echo(f"take it: {words}")


def _take(out: Path, step: int, weight: float) -> None:
    from lora_scene.judging.taking import take

    idle = ["scene", "weights", "seeds", "steps", "as_json", *fields_of(JudgeOptions, BaseOptions)]
    refuse_idle(idle, "--take STEP:WEIGHT draws nothing")
    take(out, step, weight)
    click.echo(f"{out} holds step {step}, weight {weight:g} folded in")


def _tell(found: Pick, out: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    click.echo(found.told)
    click.echo(f"all of them: {out / 'pick.png'}")
