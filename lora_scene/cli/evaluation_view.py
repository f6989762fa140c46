"""How an evaluation is shown on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_scene.cli.folded_table import FoldedTable
from lora_scene.cli.terminal import console, note

if TYPE_CHECKING:
    from lora_scene.judging.distribution import SetReport
    from lora_scene.judging.evaluation import Evaluation
    from lora_scene.scenes.scene import Scene

MEANINGS = {
    "exact_set": "share of pictures with each named thing once, recognisable, unmixed",
    "identity": "likeness of each named thing to its photo, higher is better",
    "prompt_similarity": "picture against the prompt with nouns, higher is better",
    "missing_rate": "share of named things that are not there",
    "mixing_rate": "share of named things in whose place another one stands",
    "repeat_rate": "surplus copies of a thing, a picture",
    "identity_each": "identity, but the mean of a thing's copies in place of the best",
    "unlike_rate": "share of a thing's copies that do not resemble it",
    "off_diagonal": "likeness of things to other concepts, lower is better",
    "layout_copy": "overlap with the place in the photo, lower is freer",
    "background": "likeness of the surroundings to the photo's, lower is freer",
    "diversity": "difference between seeds",
    "drift": "change of prompts without handles, lower is better",
    "attention_iou": "agreement of attention and masks",
}


def show_evaluation(result: Evaluation) -> None:
    """Print the means, and those of each handle."""
    out = console()
    table = FoldedTable(title=f"{len(result.scores)} pictures, judged by {result.judge}")
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("meaning")
    for name, value in result.summary.items():
        table.add_row(name.replace("_", " "), shown(value), MEANINGS[name])
    out.print(table)
    own = FoldedTable("handle")
    names = list(next(iter(result.concepts.values())))
    for name in names:
        own.add_column(name.replace("_", " "), justify="right")
    for handle, values in result.concepts.items():
        own.add_row(handle, *(shown(values[name]) for name in names))
    out.print(own)


def show_sets(report: SetReport) -> None:
    """Print the metrics of whole sets, and what they cannot carry."""
    out = console()
    table = FoldedTable(title=f"{report.n_generated} pictures against {report.n_reference}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_row("FID", shown(report.fid))
    table.add_row("KID", f"{report.kid:.3g} ± {report.kid_deviation:.2g}")
    for name in ("inception_score", "precision", "recall"):
        table.add_row(name.replace("_", " "), shown(getattr(report, name)))
    out.print(table)
    for warning in report.warnings:
        out.print(f"note: {warning}", style="yellow")


def shown(value: float | None) -> str:
    """Write a number with three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def warn_of_strange_nouns(scene: Scene, sentence: str) -> None:
    """Warn, with them for `{}`, of things whose nouns the embedded base and judge do not know."""
    from lora_scene.judging.mini import NOUNS

    nouns = dict.fromkeys(scene.nouns[k] for k in scene.things)
    strange = [noun for noun in nouns if noun.casefold() not in NOUNS]
    if strange:
        note(sentence.format(" or ".join(strange)), warning=True)
