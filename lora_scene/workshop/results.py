"""A benchmark's folder: what lies where, and which runs are finished.

RESULTS/
├── results.jsonl                       one line a finished run, without each picture's scores
├── scenes/<group>-<scene>/             photo0.png..., concept0.png...: what was learnt from
└── runs/<method>/<group>-<scene>-s<seed>/
    ├── adapter0/                       what was learnt
    ├── pictures/                       at weight 1
    ├── pictures-w0.5/                  at other weights
    └── row.json                        written last: the run is finished

Lines of `results.jsonl` can be carried to another folder, where they stand for finished runs
without pictures. Each holds `compared`: what was found in every picture and what it resembles, so
that a measure that is thought of later can be taken from runs that were done before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_scene.creating.picture_files import save_picture
from lora_scene.documents import parse_json, read_text
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.files import write_json
from lora_scene.folder_lock import WAIT, locked
from lora_scene.forms import build
from lora_scene.judging.comparison import Comparison
from lora_scene.judging.evaluation import Evaluation, save_pictures
from lora_scene.judging.finding import cut_out
from lora_scene.judging.judge import Judge
from lora_scene.scenes.scene import INSIDE, Scene
from lora_scene.workshop.protocol import Attempt
from lora_scene.workshop.statistics import Row

Summary = Mapping[str, float | None]
ROW, ROWS = "row.json", "results.jsonl"
ROWS_LOCK = ".lora_scene.rows.lock"  # of who gathers them
MAX_ROWS_BYTES = 1 << 28
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?", re.ASCII)  # as `keep_results` writes weights


@dataclass(frozen=True)
class PictureForm:
    """What must be in a row about a picture."""

    plain: str
    seed: int
    subset: tuple[int, ...]
    missing: tuple[str, ...]
    mixed: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class RowForm:
    """What must be in a row: all that a report or a study reads."""

    key: str
    method: str
    group: str
    scene: str
    seed: int
    fingerprint: str
    judge: str
    course_of: str
    nouns: tuple[str, ...]
    n_concepts: int
    seconds: float
    judging_seconds: float
    n_parameters: int
    n_bytes: int
    peak_bytes: int
    image_forwards: int
    summary: Summary
    curve: Mapping[str, Summary]
    pictures: tuple[PictureForm, ...] = field(default=())
    terms: Mapping[str, Any] = field(default_factory=dict)  # of none in rows of earlier versions


def finished_row(out: Path, run: Attempt, *, fingerprint: str) -> Row | None:
    """Return a finished run's row.

    Raises:
        JudgingError: The row is damaged, or of other recipes, scenes or drawings.
    """
    path = folder_of(out, run) / ROW
    if not path.is_file():
        return None
    row = _read_row(path, out)
    if row["fingerprint"] != fingerprint:
        raise JudgingError(
            "this run was made with other recipes, scenes or drawings",
            where=path,
            hint="take another --out, or delete the run's folder",
        )
    return row


def known_rows(path: Path) -> dict[tuple[str, str], Row]:
    """Return rows of runs that were done elsewhere, by key and fingerprint.

    Args:
        path: The `results.jsonl` of another folder.

    Raises:
        JudgingError: It is no such file, or a line of it is damaged.
    """
    text = read_text(path, JudgingError, limit=MAX_ROWS_BYTES)
    rows = [_checked(line, f"{path}, line {n}") for n, line in enumerate(text.splitlines(), 1)]
    return {(row["key"], row["fingerprint"]): row for row in rows}


def keep_row(row: Row, folder: Path) -> None:
    """Write a run's row, which makes the run finished; a carried one has no pictures."""
    write_json(folder / ROW, {"pictures": [], **row})


def folder_of(out: Path, run: Attempt) -> Path:
    """Return a run's folder."""
    return out / "runs" / run.key


def scene_folder(out: Path, row: Row) -> Path:
    """Return where the photos and cut-out concepts of a row's scene lie."""
    return out / "scenes" / f"{row['group']}-{row['scene']}"


def read_rows(out: Path) -> list[Row]:
    """Return the rows of all finished runs, in the order of their names.

    Raises:
        JudgingError: One is damaged.
    """
    return [_read_row(path, out) for path in sorted((out / "runs").glob(f"*/*/{ROW}"))]


def write_rows(out: Path) -> list[Row]:
    """Gather all rows into `results.jsonl`, and return them.

    A line there whose run has no folder any more stays, until that run is done again.
    """
    with locked(out, wait=WAIT, name=ROWS_LOCK):  # or of two processes one would lose a line
        rows = read_rows(out)
        present = {row["key"] for row in rows}
        earlier = known_rows(out / ROWS).values() if (out / ROWS).is_file() else ()
        lines = [{key: row[key] for key in row if key != "pictures"} for row in rows]
        lines += [dict(row) for row in earlier if row["key"] not in present]
        if lines:  # an empty file could not be told to be ours
            write_json(out / ROWS, lines)
    return rows


def keep_results(
    main: Evaluation, curve: Mapping[float, Evaluation], *, folder: Path, judge: Judge
) -> dict[str, Any]:
    """Write the pictures; return the means, the curve's means and each picture's scores."""
    for weight, one in curve.items():
        save_pictures(one, folder / f"pictures-w{weight:g}")
    files = save_pictures(main, folder / "pictures")
    return {
        "summary": dict(main.summary),
        "concepts": {handle: dict(own) for handle, own in main.concepts.items()},
        "curve": {f"{weight:g}": dict(one.summary) for weight, one in curve.items()},
        "compared": pack([one.comparison for one in main.scores], floor=judge.same_floor),
        "pictures": [
            {**one.as_dict(), "file": file.relative_to(folder).as_posix()}
            for one, file in zip(main.scores, files, strict=True)
        ],
    }


def pack(comparisons: Sequence[Comparison], *, floor: float) -> dict[str, Any]:
    """Return comparisons in few characters: cosines in thousandths, -1 for nobody."""
    return {
        "floor": floor,
        "things": comparisons[0].things if comparisons else (),
        "pictures": [
            [
                one.named,
                [-1 if owner is None else owner for owner in one.owners],
                np.rint(1000 * one.likeness).astype(int).tolist(),
            ]
            for one in comparisons
        ],
    }


def unpack(packed: Mapping[str, Any]) -> list[Comparison]:
    """Return what `pack` packed, cosines rounded to thousandths."""
    things, floor = tuple(packed["things"]), packed["floor"]
    return [
        Comparison(
            np.reshape(np.array(likeness, np.float32) / 1000, (len(owners), len(things))),
            things,
            tuple(None if owner < 0 else owner for owner in owners),
            tuple(named),
            floor,
        )
        for named, owners, likeness in packed["pictures"]
    ]


def keep_scene(framed: Scene, folder: Path) -> None:
    """Write a framed scene's photos, and each thing cut out."""
    for n, photo in enumerate(framed.photos):
        save_picture(folder / f"photo{n}.png", photo.pixels, {"source": photo.source})
    for k in framed.things:
        photo = next(one for one in framed.photos if k in one.present)
        look = cut_out(photo.pixels, photo.masks[k] >= INSIDE)
        save_picture(folder / f"concept{k}.png", look, {"handle": framed.handles[k]})


def _read_row(path: Path, out: Path) -> Row:
    row = _checked(read_text(path, JudgingError), path)
    if row["key"] != path.parent.relative_to(out / "runs").as_posix():
        raise JudgingError("a row of another run", where=path, got=ascii(row["key"][:80]))
    return row


def _checked(text: str, where: object) -> Row:
    """Return a row whose parts are what they should be.

    Raises:
        JudgingError: Everything that is wrong with it.
    """
    held = parse_json(text, where, JudgingError)
    problems: list[LoraSceneError] = []
    form = build(
        RowForm, held, problems, error=JudgingError, where=f"{where}: ", ignores_unknown=True
    )
    if form is not None:
        problems += _contradictions(form, where)
    if problems:
        raise JudgingError.collect(problems, f"{where}: not a benchmark's row")
    row: Row = held
    return row


def _contradictions(form: RowForm, where: object) -> Iterator[JudgingError]:
    def wrong(key: str, got: object) -> JudgingError:
        return JudgingError("wrong value", where=f"{where}: {key}", got=ascii(got)[:80])

    for key, text in (("group", form.group), ("scene", form.scene)):
        if not text or "/" in text or "\\" in text:
            yield wrong(key, text)
    for weight in form.curve:
        if not _NUMBER.fullmatch(weight) or not math.isfinite(float(weight)):
            yield wrong("curve", weight)
    for picture in form.pictures:
        if picture.file.split("/")[:-1] != ["pictures"] or "\\" in picture.file:
            yield wrong("pictures.file", picture.file)
        if not all(0 <= k < len(form.nouns) for k in picture.subset):
            yield wrong("pictures.subset", picture.subset)
