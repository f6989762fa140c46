"""`lora-scene evaluate`: how good an adapter is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import (
    AdapterOptions,
    BaseOptions,
    base_options,
    guidance_option,
    json_option,
    steps_option,
)
from lora_scene.cli.paths import EXISTING_FOLDER, GIVEN, TARGET_FOLDER, complete_place
from lora_scene.cli.terminal import note
from lora_scene.cli.values import COUNT, WEIGHT, many, packed, refuse_idle
from lora_scene.creating.requests import Sampling

if TYPE_CHECKING:
    from lora_scene.judging.distribution import SetReport
    from lora_scene.judging.evaluation import Evaluation
    from lora_scene.judging.judge import Judge
    from lora_scene.judging.kept_pictures import KeptPictures
    from lora_scene.judging.plans import Plan, Subsets
    from lora_scene.scenes.pictures import Pixels
    from lora_scene.scenes.scene import Scene

STRANGE = (
    "the embedded judge has never seen {}: its figures mean nothing here; "
    "--judge clip+dino knows the world outside"
)
STRANGE_PHOTOS = (
    "{}: not what the adapter was learnt from; "
    "the figures tell how near it comes to what that shows"
)


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

    def name_for(self, base_model: str) -> str:
        """Return the judge's name, by default the one that suits a base; see `refuse_idle`."""
        name = self.judge or ("mini" if base_model == "mini" else "clip+dino")
        self.refuse_idle(name)
        return name

    def refuse_idle(self, name: str | None) -> None:
        """Refuse the parts of a judge that is not asked."""
        from lora_scene.judging.judge import PAPER_JUDGE, PARTS

        if name != PAPER_JUDGE:
            refuse_idle(PARTS, f"they are parts of --judge {PAPER_JUDGE}")


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
        many("--prompt", "prompts", "TEMPLATE", "With {} for the handles; repeatable.  "
             "[default: six places, or the paper's ten]"),
        click.option("--seeds", default=2, show_default=True, type=COUNT,
                     help="Pictures a prompt and subset."),
        click.option("--subsets", default="powerset", show_default=True,
                     type=click.Choice(["singles", "powerset", "edges"]),
                     help="Which handles prompts name together."),
        steps_option,
        guidance_option,
        click.option("--weight", default=1.0, show_default=True, type=WEIGHT,
                     help="Of the LoRA."),
        click.option("--batch", default=8, show_default=True, type=COUNT,
                     help="Pictures drawn at once."),
    ),
)  # fmt: skip


@click.command(short_help="Measure an adapter on its scene.")
@click.argument("adapter", metavar="DIR", shell_complete=complete_place)
@click.option("--scene", required=True, type=GIVEN, help="Its scene's folder.")
@judge_options
@plan_options
@click.option("--against", type=EXISTING_FOLDER,
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

    With --out the same command again goes on where an interrupted one stopped.
    Identity, prompt, missing and mixed concepts, copied layout, diversity, drift: docs/metrics.md
    says what each number means.
    """
    from lora_scene.cli.evaluation_view import warn_of_strange_nouns
    from lora_scene.cli.progress import counting_bar
    from lora_scene.judging import evaluation
    from lora_scene.judging.distribution import read_pictures
    from lora_scene.scenes.scene import load_scene

    _check_target(out)
    learnt_from = load_scene(scene)
    reference = read_pictures(against) if against else []
    cast = AdapterOptions((adapter,)).read()
    evaluation.check_learnt(cast, learnt_from)
    _warn_of_strange_photos(evaluation.strange_photos(cast, learnt_from))
    name = judges.name_for(cast.infos[0].base_model)
    _refuse_early(drawn.plan(name, 0.0), learnt_from, reference if against else None)
    studio = base.open(cast)
    judge = judges.load(name, base.device)
    if name == "mini":
        warn_of_strange_nouns(learnt_from, STRANGE)
    plan = replace(drawn.plan(name, studio.backbone.usual_guidance), kept=_kept_in(out))
    untouched = evaluation.untouched_base(studio, device=base.device)
    with counting_bar("drawing", is_quiet=as_json) as progress:
        result = evaluation.evaluate(
            studio, learnt_from, judge=judge, plan=plan, base=untouched, progress=progress
        )
    sets = _compared(result, reference, learnt_from, judge) if reference else None
    _tell(result, sets, as_json=as_json)
    if out is not None:  # last: what was measured is told, whatever becomes of the disk
        _keep(result, sets, out)
    if plan.kept is not None:
        plan.kept.forget()


def _refuse_early(plan: Plan, scene: Scene, reference: list[Pixels] | None) -> None:
    """Refuse what no base could make of a plan, and sets too small to be compared."""
    from lora_scene.judging.distribution import refuse_few
    from lora_scene.judging.plans import cells_of

    n_drawn = len(cells_of(plan, scene))
    if reference is not None:
        refuse_few(len(reference), n_drawn)


def _check_target(out: Path | None) -> None:
    from lora_scene.files import check_target
    from lora_scene.judging.evaluation import EVALUATION

    if out is not None:
        check_target(out, [EVALUATION])


def _kept_in(out: Path | None) -> KeptPictures | None:
    from lora_scene.judging.kept_pictures import UNFINISHED, KeptPictures

    return KeptPictures(out / UNFINISHED) if out is not None else None


def _keep(result: Evaluation, sets: SetReport | None, out: Path) -> None:
    from lora_scene.judging import evaluation

    place = evaluation.save_evaluation(result, out, sets)
    if place.name != evaluation.EVALUATION:
        note(f"other files had these names: this evaluation is {place}, its pictures alike")


def _warn_of_strange_photos(strange: Sequence[str]) -> None:
    if strange:
        note(STRANGE_PHOTOS.format(", ".join(strange)), warning=True)


def _compared(result: Evaluation, reference: list[Pixels], scene: Scene, judge: Judge) -> SetReport:
    """Hold all that was drawn against reference pictures."""
    from lora_scene.judging.distribution import compare_sets

    classes = tuple(f"a photo of {noun}" for noun in scene.nouns)
    return compare_sets(
        reference, result.pictures, judge.identity, captions=judge.captions, classes=classes
    )


def _tell(result: Evaluation, sets: SetReport | None, *, as_json: bool) -> None:
    from lora_scene.cli.evaluation_view import show_evaluation, show_sets

    if as_json:
        report = {**result.as_dict(), "sets": asdict(sets) if sets else None}
        click.echo(json.dumps(report, indent=2))
        return
    show_evaluation(result)
    if sets is not None:
        show_sets(sets)
