"""A benchmark's folder: what lies where, and which runs are finished.

RESULTS/
├── results.jsonl                       one line a finished run, without each picture's marks
├── scenes/<scene>/                     photo0.png..., concept0.png...: what was learnt from
└── runs/<method>/<scene>-s<seed>/
    ├── adapter0/                       what was learnt
    ├── pictures/                       at weight 1
    ├── pictures-w0.5/                  at other weights
    └── row.json                        written last: the run is finished

Lines of `results.jsonl` can be carried to another folder, where they stand for finished runs
without pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_scene.creating.picture_files import save_picture
from lora_scene.errors import JudgingError
from lora_scene.judging.evaluation import Evaluation
from lora_scene.judging.finding import cut_out
from lora_scene.learning.runs import write_text
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import INSIDE, Scene
from lora_scene.workshop.protocol import Run

Row = Mapping[str, Any]
ROW, ROWS = "row.json", "results.jsonl"


def finished_row(out: Path, run: Run, *, mark: str) -> Row | None:
    """Return a finished run's row.

    Raises:
        JudgingError: The row is of other recipes, scenes or drawings.
    """
    path = folder_of(out, run) / ROW
    if not path.is_file():
        return None
    row: Row = json.loads(path.read_text("utf-8"))
    if row["mark"] != mark:
        raise JudgingError(
            "this run was made with other recipes, scenes or drawings",
            where=path,
            hint="take another --out, or delete the run's folder",
        )
    return row


def known_rows(path: Path) -> dict[tuple[str, str], Row]:
    """Return rows of runs that were done elsewhere, by key and mark.

    Args:
        path: The `results.jsonl` of another folder.

    Raises:
        JudgingError: It is no such file.
    """
    known: dict[tuple[str, str], Row] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            known[row["key"], row["mark"]] = row
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise JudgingError(
                "not a benchmark's row",
                where=f"{path}, line {number}",
                expected=f"lines of a {ROWS}",
                got=line[:60],
            ) from error
    return known


def keep_row(row: Row, folder: Path) -> None:
    """Write a run's row, which makes the run finished; a carried one has no pictures."""
    write_text(folder / ROW, json.dumps({"pictures": [], **row}, indent=1) + "\n")


def folder_of(out: Path, run: Run) -> Path:
    """Return a run's folder."""
    return out / "runs" / run.key


def scene_folder(out: Path, row: Row) -> Path:
    """Return where the photos and cut-out concepts of a row's scene lie."""
    return out / "scenes" / f"{row['group']}-{row['scene']}"


def read_rows(out: Path) -> list[Row]:
    """Return the rows of all finished runs, in the order of their names."""
    paths = sorted((out / "runs").glob(f"*/*/{ROW}"))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def write_rows(out: Path) -> list[Row]:
    """Gather all rows into `results.jsonl`, and return them."""
    rows = read_rows(out)
    lines = [{key: row[key] for key in row if key != "pictures"} for row in rows]
    write_text(out / ROWS, "".join(json.dumps(line) + "\n" for line in lines))
    return rows


def keep_results(
    main: Evaluation, curve: Mapping[float, Evaluation], *, folder: Path
) -> dict[str, Any]:
    """Write the pictures; return the means, the curve's means and each picture's marks."""
    for weight, one in curve.items():
        _keep(one, folder / f"pictures-w{weight:g}")
    files = _keep(main, folder / "pictures")
    return {
        "summary": dict(main.summary),
        "concepts": {handle: dict(own) for handle, own in main.concepts.items()},
        "curve": {f"{weight:g}": dict(one.summary) for weight, one in curve.items()},
        "pictures": [
            {**asdict(mark), "file": str(file.relative_to(folder))}
            for mark, file in zip(main.marks, files, strict=True)
        ],
    }


def keep_scene(scene: Scene, folder: Path, *, size: int) -> None:
    """Write a scene's photos, framed to `size` pixels, and each thing cut out."""
    framed = frame_scene(scene, size)
    for n, photo in enumerate(framed.photos):
        save_picture(folder / f"photo{n}.png", photo.pixels, {"source": photo.source})
    for k in framed.things:
        photo = next(one for one in framed.photos if k in one.present)
        look = cut_out(photo.pixels, photo.masks[k] >= INSIDE)
        save_picture(folder / f"concept{k}.png", look, {"handle": framed.handles[k]})


def _keep(evaluation: Evaluation, folder: Path) -> list[Path]:
    pairs = zip(evaluation.marks, evaluation.pictures, strict=True)
    return [
        save_picture(folder / f"{index:03}.png", pixels, {"marks": asdict(mark)})
        for index, (mark, pixels) in enumerate(pairs)
    ]
