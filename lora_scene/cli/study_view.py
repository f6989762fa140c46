"""How a study's result is shown on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from lora_scene.workshop.study_analysis import QuestionResult, StudyResult


def show_study(result: StudyResult) -> None:
    """Print scores, tests and agreement, and what they cannot carry."""
    console = Console()
    console.print(
        f"{result.n_participants} participants count, {len(result.excluded)} failed the checks",
        highlight=False,
    )
    for question in result.questions:
        _show_question(console, question)
    if result.shortcomings:
        console.print("\nToo few answers to conclude anything:", style="yellow bold")
        for shortcoming in result.shortcomings:
            console.print(f"  {shortcoming}", highlight=False, markup=False)


def _show_question(console: Console, question: QuestionResult) -> None:
    table = Table(title=f"{question.question}, 1 to 5")
    table.add_column("method")
    for heading in ("mean", "deviation", "ratings"):
        table.add_column(heading, justify="right")
    for score in question.scores:
        table.add_row(
            score.method, f"{score.mean:.2f}", f"{score.deviation:.2f}", str(score.n_ratings)
        )
    console.print(table)
    if question.agreement is not None:
        console.print(f"agreement (Krippendorff's alpha): {question.agreement:.2f}")
    if question.kruskal_p is None:
        return
    if question.friedman_p is not None:
        console.print(f"Friedman, within participants: p = {question.friedman_p:.2g}")
    console.print(f"Kruskal-Wallis, as in the paper: p = {question.kruskal_p:.2g}")
    console.print("Tukey's HSD, participants as blocks:")
    for pair in question.pairs:
        verdict = "differ" if pair.is_significant else "cannot be told apart"
        console.print(
            f"  {pair.first} - {pair.second}: {pair.difference:+.2f} "
            f"[{pair.low:+.2f}, {pair.high:+.2f}], p = {pair.p:.2g}: {verdict}",
            highlight=False,
            markup=False,
        )
