"""The commands on the pages about making pictures name verbs and options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from benchmarks.run_page import shell_blocks
from lora_scene.cli.main import root

DOCS = Path(__file__).parents[2] / "docs"


def commands(page):
    """Return each `lora-scene` command of a page as its words."""
    text = (DOCS / page).read_text("utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if re.match(r"lora-scene [a-z]", line)]


@pytest.mark.parametrize("page", ["creating.md", "gallery.md"])
def test_every_verb_and_option_on_the_page_exists(page):
    found = commands(page)
    assert len(found) > 5
    for words in found:
        verb = root.get_command(click.Context(root), words[1])
        assert verb is not None, words
        known = {name for option in verb.params for name in option.opts}
        used = {word for word in words[2:] if word.startswith("--")}
        assert used <= known, (words[1], used - known)


def test_the_gallerys_blocks_are_found_in_order():
    blocks = shell_blocks("a\n```sh\none\ntwo\n```\nb\n```python\nx\n```\n```sh\nthree\n```\n")
    assert blocks == ["one\ntwo\n", "three\n"]
