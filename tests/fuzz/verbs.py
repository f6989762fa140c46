"""Every verb, called in process with options that are right, wrong or hostile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from lora_scene.adapters.folder import save_adapter
from lora_scene.cli.main import VERBS, main, root
from lora_scene.ownership import seal_json
from lora_scene.recipe import recipe_text
from tests import tiny
from tests.adapters import made
from tests.fuzz import readers
from tests.scenes.factory import write_toml_folder

INPUTS = ("photo.png", "mask.png", "scene", "adapter", "a.json", "key.json", "p.txt", "r.toml")
WORDS = [
    "", " ", "-1", "0", "1", "2", "7", "64", "64x64", "1e999", "nan", "inf", "-inf", "0.5",
    "9" * 400, "9" * 5000, str(2**70), "[/x]", "[bold]", "\x1b[31m", "\udc80", "a\0b", "<bear>",
    "a <bear> on sand", "bear=0.1,0.1,0.5,0.5", "bear=1,2,20,20", "bear=5,5", "bear=nan", "bear=",
    "lora.rank=4", "lora.rank=nan", "left=8", "nowhere", "/dev/zero", "/dev/null", "~nobody",
    "x" * 300, "run", "run", "1:0.5", "best",
    *(f"inputs/{name}" for name in INPUTS),
]  # fmt: skip
ABSENT = ["nowhere", "inputs/photo.png", "inputs/adapter", "", "[/x]", "\x1b[31m"]
ALLOWED = {0, 1, 2, 130}


@dataclass(frozen=True)
class Verb:
    """A verb, or a verb of a verb, and its parameters."""

    words: tuple[str, ...]
    params: tuple[click.Parameter, ...]


def verbs() -> dict[str, Verb]:
    """Return every verb by its words."""
    found = {}
    names = [verb for chapter in VERBS.values() for verb in chapter]
    for name in (verb for verb in names if verb != "page"):  # which serves until it is stopped
        command = root.get_command(click.Context(root), name)
        assert command is not None
        own = command.commands if isinstance(command, click.Group) else {None: command}
        for sub, one in own.items():
            words = (name,) if sub is None else (name, sub)
            found[" ".join(words)] = Verb(words, tuple(one.params))
    return found


@st.composite
def calls(draw: st.DrawFn, verb: Verb) -> list[str]:
    """Draw a command line; its base is never there, so that it ends soon."""
    words = list(verb.words)
    for param in verb.params:
        is_named = param.opts[0].startswith("-")
        is_forced = param.required or not is_named or param.name in ("base", "device")
        if not is_forced and draw(st.integers(0, 3)):
            continue
        if isinstance(param, click.Option) and param.is_flag:
            words.append(param.opts[0])
            continue
        values = {"base": ABSENT, "device": ["cpu", *ABSENT], "out": ["out", "out/a", *WORDS]}
        if verb.words == ("estimate",):
            values["base"] = ["nowhere", "inputs/photo.png"]  # a real one takes a while
        if verb.words == ("demo",) and param.name == "device":
            values["device"] = ABSENT
        likely = [f"inputs/{name}" for name in INPUTS]
        if isinstance(param.type, click.Choice):
            likely = list(map(str, param.type.choices))
        pool = values.get(str(param.name)) or [*likely * 3, *WORDS]
        value = draw(st.sampled_from(pool))
        words += [param.opts[0], value] if isinstance(param, click.Option) else [value]
    return words


def prepare(folder: Path) -> None:
    """Write the inputs."""
    inputs = folder / "inputs"
    inputs.mkdir()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(inputs / "photo.png")
    Image.fromarray((pixels[..., 0] > 128).astype(np.uint8) * 255).save(inputs / "mask.png")
    write_toml_folder(inputs / "scene")
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1")
    for place in ("inputs/adapter", "run", "run/snapshots/phase2-00001"):
        save_adapter(adapter, folder / place)
    for name, record in readers.RUN.items():
        (folder / "run" / name).write_text(f"{json.dumps(seal_json(record))}\n")
    (inputs / "a.json").write_text(json.dumps(readers.ANSWERS))
    (inputs / "key.json").write_text(json.dumps(readers.KEY))
    (inputs / "p.txt").write_text(readers.PROMPTS)
    (inputs / "r.toml").write_text(recipe_text("sd15"))


def check(words: list[str], folder: Path) -> None:
    """Call a verb: an allowed exit code, a sentence, inputs as they were, nothing half done.

    Raises:
        AssertionError: Any of it is not so.
    """
    before = contents(folder / "inputs"), set(listed(folder))
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["lora-scene", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    told = err.getvalue()
    problems = []
    if code not in ALLOWED:
        problems.append(f"exit code {code}")
    if "a fault of this program" in told or "Traceback" in told:
        problems.append(told[:2000])
    after = contents(folder / "inputs")
    if words[0] == "card":  # what it is for
        after = {path: mark for path, mark in after.items() if not path.endswith("README.md")}
        before[0].pop(str(folder / "inputs" / "adapter" / "README.md"), None)
    if code == 0:  # what was asked to go into an input's folder
        after = {path: mark for path, mark in after.items() if path in before[0]}
    if after != before[0]:
        problems.append("inputs were changed")
    if code != 0 and set(listed(folder)) - before[1]:
        problems.append(f"left {sorted(set(listed(folder)) - before[1])}")
    if problems:
        raise AssertionError("\n".join(problems))


def listed(folder: Path) -> list[str]:
    """Return every file below a folder."""
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


def contents(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its hash."""
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in listed(folder)}
