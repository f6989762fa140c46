"""`lora-scene benchmark`: run a protocol, and report on it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import device_option, json_option, out_option
from lora_scene.cli.paths import EXISTING_FILE
from lora_scene.cli.values import COUNT, refuse_idle

if TYPE_CHECKING:
    from lora_scene.workshop.protocol import Protocol
    from lora_scene.workshop.statistics import Row

MOST_NAMED = 8  # rows in a sentence


def read_part(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """Read `2/4` as (2, 4)."""
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None:
        raise click.BadParameter("expected i/n, such as 2/4")
    return int(match[1]), int(match[2])


@click.command(short_help="Run a protocol of methods, scenes and seeds.")
@click.argument("protocol", type=EXISTING_FILE)
@out_option
@click.option("--method", "methods", multiple=True, metavar="NAME",
              help="Do the runs of this method only; may be repeated.")  # fmt: skip
@click.option("--part", callback=read_part, default="1/1", show_default=True, metavar="I/N",
              help="Do every n-th run from the i-th on; n processes share --out.")  # fmt: skip
@click.option("--max-runs", type=click.IntRange(0, COUNT.max), help="Stop after so many new runs.")
@click.option("--known", type=EXISTING_FILE,
              help="The results.jsonl of runs that need not be done again.")  # fmt: skip
@click.option("--list", "is_list", is_flag=True, help="Only say what would be run.")
@json_option
@device_option
def command(
    protocol: Path,
    out: Path,
    methods: tuple[str, ...],
    part: tuple[int, int],
    max_runs: int | None,
    known: Path | None,
    is_list: bool,
    as_json: bool,
    device: str,
) -> None:
    """Train, draw and measure what PROTOCOL says, and write a report.

    The same command again goes on where a killed one stopped; with nothing left to do it only
    writes the report anew.
    """
    from lora_scene.workshop.protocol import read_protocol
    from lora_scene.workshop.results import known_rows
    from lora_scene.workshop.trials import open_bench, run_benchmark

    read = read_protocol(protocol)
    wanted = _only(read, methods)
    if is_list:
        refuse_idle(("max_runs", "known", "as_json"), "--list does no run")
        _show_plan(wanted, part)
        return
    bench = replace(
        open_bench(wanted, out, device=device),
        tell=lambda sentence: click.echo(sentence, err=True),
    )
    carried = known_rows(known) if known else None
    rows = _own(read, run_benchmark(bench, part=part, max_runs=max_runs, known=carried))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    if rows:
        report = _report(read, out, rows)
        n_runs = len(list(read.runs()))
        click.echo(f"{len(rows)} of {n_runs} runs are done: {report}", err=as_json)
    else:
        click.echo("no run is done, so that there is nothing to report", err=True)
    _refuse_undone(wanted, part, rows, max_runs)


def _refuse_undone(
    protocol: Protocol, part: tuple[int, int], rows: Sequence[Row], max_runs: int | None
) -> None:
    """Fail where a run was left undone that nobody asked to leave."""
    from lora_scene.errors import JudgingError
    from lora_scene.workshop.protocol import chosen_runs

    asked = {run.key for run in chosen_runs(protocol, part)}
    left = sorted(asked - {str(row["key"]) for row in rows})
    if left and max_runs is None:
        raise JudgingError(
            f"{len(left)} of {len(asked)} runs ran out of memory and are left undone",
            where=left[0],
            hint="the same command again tries them once more",
        )


def _own(protocol: Protocol, there: Sequence[Row]) -> list[Row]:
    """Return the rows of OUT that are the protocol's, and name the others on the terminal."""
    from lora_scene.workshop.fingerprints import own_rows

    own = own_rows(protocol, there)
    keys = {row["key"] for row in own}
    left = [row["key"] for row in there if row["key"] not in keys]
    if left:
        rows = "1 row in OUT is" if len(left) == 1 else f"{len(left)} rows in OUT are"
        more = f" and {len(left) - MOST_NAMED} more" if left[MOST_NAMED:] else ""
        click.echo(
            f"{rows} of no run of this protocol as it is now, and not in the report: "
            f"{', '.join(left[:MOST_NAMED])}{more}",
            err=True,
        )
    return own


def _report(protocol: Protocol, out: Path, rows: Sequence[Row]) -> Path:
    from lora_scene.workshop.benchmark_page import write_report

    return write_report(
        out,
        title=protocol.name,
        methods=[method.name for method in protocol.methods],
        reference=protocol.reference,
        note=protocol.note,
        rows=rows,
    )


def _only(protocol: Protocol, names: Sequence[str]) -> Protocol:
    """Return the protocol with the named methods alone; no name leaves all."""
    known = [method.name for method in protocol.methods]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.BadParameter(
            f"no method {', '.join(unknown)}; there are {', '.join(known)}", param_hint="--method"
        )
    chosen = tuple(method for method in protocol.methods if not names or method.name in names)
    return replace(protocol, methods=chosen)


def _show_plan(protocol: Protocol, part: tuple[int, int]) -> None:
    """Print what would be run, and how much work that is."""
    from lora_scene.workshop.protocol import chosen_runs
    from lora_scene.workshop.trials import planned_work

    for run in chosen_runs(protocol, part):
        click.echo(run.key)
    work = planned_work(protocol, part)
    click.echo(
        f"{work['runs']} runs, {work['image_forwards']:,} image-forwards of training, "
        f"{work['pictures']:,} pictures",
        err=True,
    )
