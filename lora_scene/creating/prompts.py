"""Prompts from a file: one a line, each with options of its own.

    # blank lines and lines that begin with # are left out
    a photo of <bear> on a beach
    a photo of <bear> and <bowl> --seed 7 --steps 40 --negative blurry, dark --weight 0.7
    a drawing of <bowl> --size 512x768 --guidance 5 --scheduler euler

The short names of other prompt files are read too: --n, --w, --h, --d, --s, --l, --am.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_scene.creating.requests import Request
from lora_scene.documents import read_text
from lora_scene.errors import CreationError, did_you_mean
from lora_scene.size import FORM, Size


@dataclass(frozen=True)
class PromptLine:
    """A prompt and what its line sets.

    Attributes:
        prompt: The prompt, with handles.
        settings: By the names of `READERS`; see `Request.with_settings`.
    """

    prompt: str
    settings: Mapping[str, Any] = field(default_factory=dict)


READERS: dict[str, Callable[[str], Any]] = {
    "negative": str,
    "seed": int,
    "width": int,
    "height": int,
    "steps": int,
    "guidance": float,
    "weight": float,
    "scheduler": str,
}
TABLES = (".json", ".jsonl", ".toml", ".yaml", ".yml")  # a line of theirs is no prompt
SHORT = {
    "n": "negative",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "steps",
    "l": "guidance",
    "am": "weight",
}


def read_prompts(path: Path) -> list[PromptLine]:
    """Read a prompt file.

    Raises:
        CreationError: It cannot be read, is a table, holds no prompt, or has wrong options, all
            collected.
    """
    if path.suffix.lower() in TABLES:
        expected = "a text with one prompt a line, such as prompts.txt"
        raise CreationError("prompts are not read from tables", where=path, expected=expected)
    lines = read_text(path, CreationError).splitlines()
    prompts: list[PromptLine] = []
    problems: list[CreationError] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            prompts.append(parse_line(line))
        except CreationError as error:
            problems.append(
                CreationError(
                    error.what,
                    where=f"{path}:{number}" + (f": {error.where}" if error.where else ""),
                    expected=error.expected,
                    got=error.got,
                    hint=error.hint,
                )
            )
    if problems:
        raise CreationError.collect(problems, f"{path} cannot be drawn from")
    if not prompts:
        raise CreationError("no prompt in the file", where=path)
    return prompts


def parse_line(line: str) -> PromptLine:
    """Read one prompt with its options.

    Raises:
        CreationError: An option is unknown, is given twice, or its value is of the wrong kind.
    """
    prompt, *options = re.split(r"\s--(?=[a-z])", f" {line}")
    if not prompt.strip():
        raise CreationError("options without a prompt", got=line.strip())
    pairs = [pair for option in options for pair in _pairs(option)]
    names = [name for name, _ in pairs]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        got = " and ".join(str(value) for name, value in pairs if name == doubled)
        raise CreationError(f"--{doubled} has two values in one line", got=got)
    settings = dict(pairs)
    Request("").with_settings(settings)  # numbers out of range are told with their line
    return PromptLine(prompt.strip(), settings)


def _pairs(option: str) -> list[tuple[str, Any]]:
    """Read `seed 7` as [("seed", 7)], `size 64` as a width and a height."""
    name, *rest = re.split(r"\s*=\s*|\s+", option.strip(), maxsplit=1)
    name, text = SHORT.get(name, name), "".join(rest).strip().strip('"')
    if name == "size":
        try:
            return list(zip(("width", "height"), Size.parse(text), strict=True))
        except ValueError as error:
            raise CreationError("not a size", expected=FORM, got=text) from error
    if name not in READERS:
        known = [*READERS, "size"]
        raise CreationError(
            f"no such option: --{name}",
            expected=", ".join(f"--{one}" for one in known),
            hint=did_you_mean(name, known),
        )
    try:
        return [(name, READERS[name](text))]
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}[READERS[name]]  # type: ignore[index]
        raise CreationError(f"a wrong value for --{name}", expected=kind, got=text) from error
