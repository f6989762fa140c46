"""`lora-scene study`: ask people, and read their answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from lora_scene.cli.options import json_option, out_option
from lora_scene.cli.paths import EXISTING_FOLDER, GIVEN
from lora_scene.cli.terminal import shell
from lora_scene.cli.values import COUNT, SEED


@click.group(short_help="Ask people which pictures are better.")
def command() -> None:
    """Build a blind study page from a benchmark's pictures, and analyse its answers."""


@command.command(short_help="Make a page of a benchmark's pictures.")
@click.argument("results", type=EXISTING_FOLDER)
@out_option
@click.option("--method", "methods", multiple=True, help="Compared; repeatable.  [default: all]")
@click.option("--items", default=24, show_default=True, type=COUNT,
              help="Prompts in the page.")  # fmt: skip
@click.option("--per-person", default=6, show_default=True, type=COUNT,
              help="Prompts that one participant sees, each by every method.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the choice of prompts.")
def make(
    results: Path, out: Path, methods: tuple[str, ...], items: int, per_person: int, seed: int
) -> None:
    """Make a page from RESULTS, a folder that `lora-scene benchmark` wrote.

    The page is one file that works anywhere; participants download their answers as JSON.
    """
    from lora_scene.workshop.study_page import make_study

    study = make_study(
        results, out, methods=methods, n_items=items, per_person=per_person, seed=seed
    )
    for lack in study.lacks:
        click.echo(lack, err=True)
    click.echo(f"page: {study.page}  {study.n_trials} pictures a participant; give this out")
    click.echo(f"key:  {study.key}  keep this to yourself")
    analyse = shell("lora-scene", "study", "analyse", "--key", study.key)
    click.echo(f"\nthen: {analyse} answers-*.json")


@command.command(short_help="Print what people's answers say.")
@click.argument("answers", nargs=-1, required=True, type=GIVEN)
@click.option("--key", type=GIVEN,
              help="The study's.  [default: key.json beside the answers or above]")  # fmt: skip
@json_option
def analyse(answers: tuple[Path, ...], key: Path | None, as_json: bool) -> None:
    """Print what the ANSWERS say: means, tests, agreement; no conclusion from too few."""
    from lora_scene.cli.study_view import show_study
    from lora_scene.workshop.study_analysis import analyse_study

    here = answers[0].parent
    beside = next((p / "key.json" for p in (here, here.parent) if (p / "key.json").is_file()), None)
    found = key or beside
    if found is None:
        raise click.UsageError("there is no key.json beside the answers; pass --key")
    result = analyse_study(found, answers)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    else:
        show_study(result)
