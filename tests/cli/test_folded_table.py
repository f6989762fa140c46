"""Nothing in a table is cut off, however narrow the terminal."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

import lora_scene.cli
from lora_scene.cli.folded_table import FoldedTable


@pytest.mark.parametrize("width", [24, 40, 80])
def test_every_cell_is_whole(width):
    table = FoldedTable("handle", "what it is")
    table.add_column("kept", justify="right")
    table.add_row("<caterpillar_on_a_leaf>", "plush toy", "100.0 %")
    said = io.StringIO()
    Console(file=said, width=width, markup=False).print(table)
    rows = [line.split("\u2502")[1:-1] for line in said.getvalue().splitlines() if "\u2502" in line]
    cells = ["".join("".join(column).split()) for column in zip(*rows, strict=True)]
    assert cells == ["<caterpillar_on_a_leaf>", "plushtoy", "100.0%"]


def test_no_verb_prints_another_kind_of_table():
    folder = Path(lora_scene.cli.__file__).parent
    for path in folder.glob("*.py"):
        imported = {
            node.module
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
        assert "rich.table" not in imported, path.name
