from __future__ import annotations

import json
import re
import shutil
import threading

import numpy as np
import pytest

from lora_scene.errors import JudgingError
from lora_scene.judging.comparison import Comparison, rates
from lora_scene.workshop import results
from lora_scene.workshop.results import known_rows, pack, read_rows, unpack, write_rows
from tests.workshop import rows as made

NOTHING = ["", "[]", "{}", "3", "null", '"x"', "{", "nan", "\x00", '{"key": "a"}']


def damaged(row: dict) -> list[dict]:
    """Return a row with each of its parts wrong in several ways."""
    values = (None, "x", -1.5, [], {}, [[]], {"a": "b"}, True, 10**400, "../../x")
    wrong = [{**row, key: value} for key in row for value in values]
    without = [{k: v for k, v in row.items() if k != key} for key in row if key != "pictures"]
    pictures = [
        {**row, "pictures": [{**row["pictures"][0], key: value}]}
        for key in ("plain", "seed", "subset", "missing", "mixed", "file")
        for value in (*values, "pictures/../../x.png", [99], "/etc/x.png")
    ]
    return [*wrong, *without, *pictures]


def test_damaged_rows_are_read_or_refused_in_a_sentence(tmp_path) -> None:
    row = made.write(tmp_path, n_scenes=1)[0]
    path = tmp_path / "rows.jsonl"
    texts = [*NOTHING, *(json.dumps(one) for one in damaged(row))]
    told = []
    for text in texts:
        path.write_text(f"{json.dumps(row)}\n{text}\n")
        try:
            known_rows(path)
        except JudgingError as error:
            told.append(str(error))
    assert all(re.search(r"rows\.jsonl(, line 2|: cannot be read)", one) for one in told), told
    assert len(told) > 0.8 * len(texts), f"{len(told)} of {len(texts)}"


@pytest.mark.parametrize("weight", [-0.5, 1e-5, 0.0, 1000.0, 0.123456789])
def test_a_row_of_any_weight_that_can_be_drawn_is_read(tmp_path, weight) -> None:
    [row, *_] = made.write(tmp_path, n_scenes=1)
    made.keep_row({**row, "curve": {f"{weight:g}": row["summary"]}}, tmp_path / "runs" / row["key"])
    [read] = [one for one in read_rows(tmp_path) if one["key"] == row["key"]]
    assert [float(kept) for kept in read["curve"]] == [pytest.approx(weight, rel=1e-5)]


@pytest.mark.parametrize("weight", ["", "x", "nan", "inf", "²", "1.", "--1", "1e999"])
def test_a_row_of_a_weight_that_is_none_is_refused(tmp_path, weight) -> None:
    [row, *_] = made.write(tmp_path, n_scenes=1)
    made.keep_row({**row, "curve": {weight: row["summary"]}}, tmp_path / "runs" / row["key"])
    with pytest.raises(JudgingError, match="curve"):
        read_rows(tmp_path)


@pytest.mark.parametrize("text", NOTHING)
def test_a_damaged_row_of_a_run_is_named(tmp_path, text) -> None:
    [row, *_] = made.write(tmp_path, n_scenes=1)
    path = tmp_path / "runs" / row["key"] / "row.json"
    path.write_text(text)
    with pytest.raises(JudgingError, match=r"row\.json"):
        read_rows(tmp_path)


@pytest.mark.filterwarnings("ignore:.*writes into this folder")  # a slow machine waits longer
def test_of_two_that_gather_rows_at_once_none_loses_a_line(tmp_path, monkeypatch) -> None:
    late, *_ = made.write(tmp_path, n_scenes=1)
    (tmp_path / "runs" / late["key"] / "row.json").unlink()
    has_read, others = threading.Event(), []

    def slow(out):
        rows = read_rows(out)
        if not others:  # the first one; meanwhile a run of another process ends
            others.append(threading.Thread(target=write_rows, args=(out,)))
            made.keep_row(late, out / "runs" / late["key"])
            others[0].start()
            has_read.wait(0.2)
        return rows

    monkeypatch.setattr(results, "read_rows", slow)
    write_rows(tmp_path)
    others[0].join()
    assert late["key"] in {key for key, _ in known_rows(tmp_path / "results.jsonl")}


def test_a_row_in_the_folder_of_another_run_is_refused(tmp_path) -> None:
    row, other, *_ = made.write(tmp_path, n_scenes=1)
    source = tmp_path / "runs" / row["key"] / "row.json"
    (tmp_path / "runs" / other["key"] / "row.json").write_bytes(source.read_bytes())
    with pytest.raises(JudgingError, match="a row of another run"):
        read_rows(tmp_path)


def test_a_row_whose_run_lies_elsewhere_is_not_lost(tmp_path) -> None:
    rows = made.write(tmp_path, n_scenes=1)
    write_rows(tmp_path)
    gone, *kept = sorted(row["key"] for row in rows)
    shutil.rmtree(tmp_path / "runs" / gone)
    assert [row["key"] for row in write_rows(tmp_path)] == kept
    assert {key for key, _ in known_rows(tmp_path / "results.jsonl")} == {gone, *kept}


def test_a_later_measure_can_be_taken_from_what_is_kept() -> None:
    rng = np.random.default_rng(0)
    comparisons = [
        Comparison(
            rng.uniform(-1, 1, (n, 2)).round(3).astype(np.float32),
            (0, 2),
            tuple(rng.choice([0, 2, None]) for _ in range(n)),
            (0, 2)[: 1 + n % 2],
            0.3,
        )
        for n in range(6)
    ]
    kept = json.loads(json.dumps(pack(comparisons, floor=0.3)))
    assert rates(unpack(kept)) == pytest.approx(rates(comparisons), abs=1e-3)
    assert rates(unpack(kept))["exact_set"] == rates(comparisons)["exact_set"]
    assert len(json.dumps(kept["pictures"])) < 60 * len(comparisons)
