"""`lora-scene evaluate`: how good an adapter is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import AdapterOptions, BaseOptions, base_options, json_option
from lora_scene.cli.paths import GIVEN, TARGET_FOLDER
from lora_scene.cli.terminal import note
from lora_scene.cli.values import Number, packed
from lora_scene.creating.requests import MAX_STEPS, Sampling

if TYPE_CHECKING:
    from lora_scene.creating.studio import Studio
    from lora_scene.judging.judge import Judge
    from lora_scene.judging.plans import Plan, Subsets
    from lora_scene.scenes.scene import Scene


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges."""

    judge: str | None
    clip: str | None
    dino: str | None
    finder: str

    def load(self, name: str, device: str) -> Judge:
        """Load the judge of that name."""
        from lora_scene.backbones.loading import resolve_device
        from lora_scene.judging.judge import load_judge, open_finder

        place = resolve_device(device)
        finder = open_finder(self.finder, device=place)
        return load_judge(name, device=place, clip=self.clip, dino=self.dino, finder=finder)


@dataclass(frozen=True)
class PlanOptions:
    """What is drawn."""

    prompts: tuple[str, ...]
    seeds: int
    subsets: Subsets
    steps: int
    guidance: float | None
    weight: float
    batch: int

    def plan(self, judge: str, guidance: float) -> Plan:
        """Return the plan; a judge has its usual prompts, a base its usual guidance."""
        from lora_scene.judging.plans import Plan, usual_prompts

        chosen = guidance if self.guidance is None else self.guidance
        return Plan(
            prompts=self.prompts or usual_prompts(judge),
            subsets=self.subsets,
            seeds=tuple(range(self.seeds)),
            sampling=Sampling(self.steps, chosen),
            weight=self.weight,
            batch_size=self.batch,
        )


judge_options = packed(
    "judges",
    JudgeOptions,
    (
        click.option("--judge", help="mini (embedded, for the mini world) or clip+dino.  "
                     "[default: mini for adapters of the mini base, else clip+dino]"),
        click.option("--clip", help="CLIP for clip+dino: hub id or folder.  [default: ViT-L/14]"),
        click.option("--dino", help="DINO for clip+dino: hub id or folder.  [default: ViT-B/16]"),
        click.option("--finder", default="attention", show_default=True,
                     help="Finds things for clip+dino: the handles' attention, or clipseg, "
                     "grounding-dino or sam3."),
    ),
)  # fmt: skip
plan_options = packed(
    "drawn",
    PlanOptions,
    (
        click.option("--prompt", "prompts", multiple=True, metavar="TEMPLATE",
                     help="With {} for the handles; repeatable.  [default: six places, or the "
                     "paper's ten]"),
        click.option("--seeds", default=2, show_default=True, type=click.IntRange(min=1),
                     help="Pictures a prompt and subset."),
        click.option("--subsets", default="powerset", show_default=True,
                     type=click.Choice(["singles", "powerset", "edges"]),
                     help="Which handles prompts name together."),
        click.option("--steps", default=Sampling().n_steps, show_default=True,
                     type=click.IntRange(1, MAX_STEPS)),
        click.option("--guidance", type=Number(), help="CFG scale.  [default: as it suits the "
                     "base]"),
        click.option("--weight", default=1.0, show_default=True, type=Number(),
                     help="Of the LoRA."),
        click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1),
                     help="Pictures drawn at once."),
    ),
)  # fmt: skip


@click.command(short_help="Measure an adapter on its scene.")
@click.argument("adapter", metavar="DIR")
@click.option("--scene", required=True, type=GIVEN, help="Its scene's folder.")
@judge_options
@plan_options
@click.option("--against", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Reference pictures, for FID, KID, IS, precision and recall.")  # fmt: skip
@click.option("--out", type=TARGET_FOLDER,
              help="Folder for the pictures and evaluation.json; else none is kept.")  # fmt: skip
@base_options
@json_option
def command(
    adapter: str,
    scene: Path,
    judges: JudgeOptions,
    drawn: PlanOptions,
    against: Path | None,
    out: Path | None,
    base: BaseOptions,
    as_json: bool,
) -> None:
    """Draw pictures with the adapter in DIR and measure them against its scene.

    Identity, prompt, missing and mixed concepts, copied layout, diversity, drift: docs/metrics.md
    says what each number means.
    """
    from lora_scene.cli.evaluation_view import show_evaluation, show_sets
    from lora_scene.cli.progress import counting_bar
    from lora_scene.files import check_target
    from lora_scene.judging.distribution import compare_sets, read_pictures
    from lora_scene.judging.evaluation import (
        EVALUATION,
        evaluate,
        save_evaluation,
        untouched_base,
    )
    from lora_scene.scenes.scene import load_scene

    if out is not None:
        check_target(out, [EVALUATION])
    learnt_from = load_scene(scene)
    reference = read_pictures(against) if against else []
    studio = base.open(AdapterOptions((adapter,)).read())
    name = judges.judge or _usual_judge(studio)
    judge = judges.load(name, base.device)
    _warn_of_unknown_nouns(learnt_from, name)
    plan = drawn.plan(name, studio.backbone.usual_guidance)
    untouched = untouched_base(studio, device=base.device)
    with counting_bar("drawing", is_quiet=as_json) as progress:
        result = evaluate(
            studio, learnt_from, judge=judge, plan=plan, base=untouched, progress=progress
        )
    sets = None
    if reference:
        classes = tuple(f"a photo of {noun}" for noun in learnt_from.nouns)
        sets = compare_sets(
            reference, result.pictures, judge.identity, captions=judge.captions, classes=classes
        )
    if as_json:
        report = {**result.as_dict(), "sets": asdict(sets) if sets else None}
        click.echo(json.dumps(report, indent=2))
    else:
        show_evaluation(result)
        if sets is not None:
            show_sets(sets)
    if out is not None:  # last: what was measured is told, whatever becomes of the disk
        save_evaluation(result, out)


def _usual_judge(studio: Studio) -> str:
    return "mini" if studio.adapters[0].adapter.info.base_model == "mini" else "clip+dino"


def strange_nouns(scene: Scene) -> list[str]:
    """Return the things' nouns that the embedded base and its judge have never seen."""
    from lora_scene.judging.mini import NOUNS

    nouns = dict.fromkeys(scene.nouns[k] for k in scene.things)
    return [noun for noun in nouns if noun not in NOUNS]


def _warn_of_unknown_nouns(scene: Scene, judge: str) -> None:
    unknown = strange_nouns(scene)
    if judge == "mini" and unknown:
        note(
            f"the embedded judge has never seen {' or '.join(unknown)}: its figures mean nothing "
            "here; --judge clip+dino knows the world outside",
            warning=True,
        )
