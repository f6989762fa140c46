"""How a study's result is shown on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from lora_scene.cli.folded_table import FoldedTable
from lora_scene.cli.terminal import console

if TYPE_CHECKING:
    from lora_scene.workshop.study_analysis import QuestionResult, StudyResult


def show_study(result: StudyResult) -> None:
    """Print scores, tests and agreement, and what they cannot carry."""
    shown = console()
    shown.print(
        f"{result.n_participants} participants count, {len(result.excluded)} failed the checks"
    )
    if result.unchecked:
        shown.print(
            f"{len(result.unchecked)} of them answered no check, "
            "so that nothing tells whether they looked"
        )
    for question in result.questions:
        _show_question(shown, question)
    if result.shortcomings:
        shown.print("\nToo few answers to conclude anything:", style="yellow bold")
        for shortcoming in result.shortcomings:
            shown.print(f"  {shortcoming}")


def _show_question(shown: Console, question: QuestionResult) -> None:
    table = FoldedTable(title=f"{question.question}, 1 to 5")
    table.add_column("method")
    for heading in ("mean", "deviation", "ratings"):
        table.add_column(heading, justify="right")
    for score in question.scores:
        table.add_row(
            score.method, f"{score.mean:.2f}", f"{score.deviation:.2f}", str(score.n_ratings)
        )
    shown.print(table)
    if question.agreement is not None:
        shown.print(f"agreement (Krippendorff's alpha): {question.agreement:.2f}")
    if question.kruskal_p is None:
        return
    if question.friedman_p is not None:
        shown.print(f"Friedman, within participants: p = {question.friedman_p:.2g}")
    shown.print(f"Kruskal-Wallis, as in the paper: p = {question.kruskal_p:.2g}")
    shown.print("Tukey's HSD, participants as blocks:")
    for pair in question.pairs:
        verdict = "differ" if pair.is_significant else "cannot be told apart"
        shown.print(
            f"  {pair.first} - {pair.second}: {pair.difference:+.2f} "
            f"[{pair.low:+.2f}, {pair.high:+.2f}], p = {pair.p:.2g}: {verdict}"
        )
