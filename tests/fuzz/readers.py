"""Every reader of what people and strangers write, with a good file to damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.metadata import PREFIX, read_note, write_note
from lora_scene.adapters.inspection import inspect_path
from lora_scene.creating.picture_files import read_record
from lora_scene.creating.prompts import read_prompts
from lora_scene.errors import LoraSceneError
from lora_scene.learning import run_charts
from lora_scene.learning.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.runs import finished
from lora_scene.ownership import seal_json
from lora_scene.recipe import Recipe, load_recipe, recipe_text
from lora_scene.scenes.mask_prompt_text import PromptText, parse_prompts
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.protocol import read_protocol
from lora_scene.workshop.results import known_rows, read_rows
from lora_scene.workshop.study_analysis import analyse_study
from tests import tiny
from tests.adapters import made
from tests.fuzz.damage import damaged, damaged_json
from tests.scenes.factory import TOML, write_toml_folder

Case = Callable[[Any, Path], object]


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        cases: Draws what is read.
        read: Reads it; may write it into the folder first.
        prepare: Puts what is read beside it into the folder, once.
    """

    cases: st.SearchStrategy[Any]
    read: Case
    prepare: Callable[[Path], object] = lambda folder: None


def of_file(name: str, good: bytes, read: Callable[[Path], object], **more: Any) -> Reader:
    """Return a reader of a damaged file."""

    def written(data: bytes, folder: Path) -> object:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return read(folder / name)

    return Reader(damaged(good), written, **more)


def of_json(name: str, good: object, read: Callable[[Path], object], **more: Any) -> Reader:
    """Return a reader of a file whose JSON is damaged in its parts, or in its bytes."""
    by_part = damaged_json(good).map(lambda value: json.dumps(value).encode())
    raw = of_file(name, json.dumps(good).encode(), read, **more)
    return Reader(st.one_of(by_part, raw.cases), raw.read, raw.prepare)


def readers() -> dict[str, Reader]:
    """Return every reader by name."""
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1")
    note = write_note(adapter)
    tensors = save({"a": torch.ones(2, 3)}, metadata=note)
    return {
        "recipe": of_file("r.toml", recipe_text("sd15").encode(), load_recipe),
        "override": Reader(
            damaged(b"lora.rank=4").map(lambda raw: raw.decode("utf-8", "replace")),
            lambda text, _: load_recipe("sd15", [text]),
        ),
        "scene.toml": of_file(
            "scene/scene.toml", TOML.encode(), lambda path: load_scene(path.parent),
            prepare=lambda folder: write_toml_folder(folder / "scene"),
        ),
        "prompt file": of_file("p.txt", PROMPTS.encode(), read_prompts),
        "mask prompts": Reader(
            st.tuples(*[damaged(good.encode()) for good in MARKS]),
            lambda raws, _: parse_prompts(
                PromptText(*[[raw.decode("utf-8", "replace")] for raw in raws])
            ),
        ),
        "protocol": of_file(
            "protocol.toml", PROTOCOL.encode(), read_protocol,
            prepare=lambda folder: (folder / "scenes" / "a").mkdir(parents=True),
        ),
        "picture's record": Reader(damaged_json(RECORD), _record),
        "picture": of_file("p.png", _png(json.dumps(RECORD)), read_record),
        "answers": of_json(
            "a.json", ANSWERS, lambda path: analyse_study(path.parent / "key.json", [path]),
            prepare=lambda folder: (folder / "key.json").write_text(json.dumps(KEY)),
        ),
        "study's key": of_json(
            "key.json", KEY, lambda path: analyse_study(path, [path.parent / "a.json"]),
            prepare=lambda folder: (folder / "a.json").write_text(json.dumps(ANSWERS)),
        ),
        "carried rows": of_json("results.jsonl", ROW, known_rows),
        "rows": of_json("runs/m/s/row.json", ROW, lambda path: read_rows(path.parents[3])),
        "training.json": of_json(
            "out/training.json", seal_json(SUMMARY),
            lambda path: finished(path.parent, "f", Recipe()),
            prepare=lambda folder: save_adapter(adapter, folder / "out"),
        ),
        "run": Reader(
            st.sampled_from(sorted(RUN)).flatmap(
                lambda name: st.tuples(st.just(name), damaged_json(RUN[name]))
            ),
            _run,
        ),
        "checkpoint": of_file("c.safetensors", _checkpoint(), load_checkpoint),
        "header": of_file("a.safetensors", tensors, inspect_path),
        "adapter": _adapter(adapter),
        "note": Reader(
            st.one_of(
                st.sampled_from(sorted(note)).flatmap(
                    lambda key: damaged(note[key].encode()).map(
                        lambda raw: {**note, key: raw.decode("utf-8", "replace")}
                    )
                ),
                damaged_json(json.loads(note[f"{PREFIX}concepts"])).map(
                    lambda concepts: {**note, f"{PREFIX}concepts": json.dumps(concepts)}
                ),
            ),
            lambda fields, _: read_note(fields, "a file"),
        ),
    }  # fmt: skip


def check(reader: Reader, case: Any, folder: Path) -> None:
    """Read a case: it is read, or refused by an error of ours of bounded length."""
    try:
        reader.read(case, folder)
    except LoraSceneError as error:
        if len(str(error)) > 100_000:
            raise AssertionError("an endless message") from error


def _record(record: object, folder: Path) -> object:
    (folder / "p.png").write_bytes(_png(json.dumps(record)))
    return read_record(folder / "p.png")


def _run(change: tuple[str, object], folder: Path) -> object:
    """Write the page of a run one of whose records is damaged, and sealed all the same."""
    out = folder / "run"
    out.mkdir(exist_ok=True)
    for name, value in {**RUN, change[0]: change[1]}.items():
        sealed = seal_json(value) if isinstance(value, dict) else value
        (out / name).write_text(f"{json.dumps(sealed)}\n")
    with mock.patch.object(run_charts, "_draw", return_value="<svg></svg>"):
        return write_run_page(out, out)


def _png(text: str) -> bytes:
    import io

    info = PngImagePlugin.PngInfo()
    info.add_itxt("lora_scene", text)
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _checkpoint() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        state = {"rows": [torch.ones(2, 3)], "step": 3, "rng": (1, "x")}
        save_checkpoint(Checkpoint("f", 1, 3, state), path)
        return path.read_bytes()


def _adapter(adapter: Any) -> Reader:
    def prepare(folder: Path) -> None:
        save_adapter(adapter, folder / "good")

    def read(change: tuple[int, bytes, int], folder: Path) -> object:
        which, piece, at = change
        shutil.rmtree(folder / "bad", ignore_errors=True)
        shutil.copytree(folder / "good", folder / "bad")
        files = sorted(path for path in (folder / "bad").rglob("*") if path.is_file())
        file = files[which % len(files)]
        raw = file.read_bytes()
        place = at % (len(raw) + 1)
        file.write_bytes(raw[:place] + piece + raw[place + len(piece) :])
        return read_adapter(folder / "bad")

    return Reader(
        st.tuples(st.integers(0, 9), st.binary(max_size=9), st.integers(0, 9999)), read, prepare
    )


PROMPTS = "# a comment\na <bear> --seed 7 --weight 0.7 --size 64x64\n<bowl> --d 1 --l 3 --s 4\n"
MARKS = (
    "bear=1,2,9,9",
    "bear=3,3",
    "bear=1,1",
    "bear=1,1;5,5@3",
    "bear=a bear",
    "bear=1",
    "bear=x",
)
PROTOCOL = """
name = "tiny"
base = "nowhere"
image_forwards = 24
[scenes]
headline = ["scenes/*"]
[drawing]
prompts = ["a photo of {} on grass"]
seeds = [0, 1]
[[methods]]
name = "ours"
recipe = "sd15"
scenes = ["headline"]
"""
RECORD = {
    "verb": "generate", "prompt": "a <bear>", "negative": "", "seed": 3, "width": 64, "height": 64,
    "steps": 2, "guidance": 7.5, "scheduler": "base", "weight": 1.0, "device": "cpu",
    "dtype": "float32", "quantization": "none", "versions": {"torch": "2"},
    "base": {"name": "x", "hash": "0" * 64},
    "adapters": [{"name": "a", "weight": 1.0, "fingerprint": "f" * 64}],
    "places": {"<bear>": [0, 0, 0.5, 1]}, "strengths": {"<bear>": 0.5},
}  # fmt: skip
KEY = {
    "study": "x",
    "methods": ["ours", "full"],
    "trials": {
        "t0": {"method": "ours", "scene": "s", "prompt": "p", "seed": 0},
        "t1": {"method": "full", "scene": "s", "prompt": "p", "seed": 0},
        "c0": {"check": "own", "scene": "s"},
    },
}
ANSWERS = {
    "study": "x",
    "participant": "me",
    "answers": [
        {"trial": "t0", "identity": 5, "prompt": 3},
        {"trial": "t1", "identity": 2, "prompt": 3},
        {"trial": "c0", "identity": 5, "prompt": 3},
    ],
}
ROW = {
    "key": "ours/g-a-s0", "method": "ours", "group": "g", "scene": "a", "seed": 0,
    "fingerprint": "f", "judge": "mini", "course_of": "", "nouns": ["bear"], "n_concepts": 1,
    "seconds": 1.0, "judging_seconds": 1.0, "n_parameters": 9, "n_bytes": 9, "peak_bytes": 9,
    "image_forwards": 9, "summary": {"identity": 0.5, "drift": None}, "curve": {"0.5": {}},
    "pictures": [{"plain": "a bear", "seed": 0, "subset": [0], "missing": [], "mixed": [],
                  "file": "pictures/000.png"}],
}  # fmt: skip
SUMMARY = {
    "fingerprint": "f", "seconds": 1.0, "peak_bytes": 5, "n_trained": 9, "handles": ["<a>"],
    "steps": [400, 400], "unlearnt": [], "n_skipped": 0,
}  # fmt: skip
RUN = {
    "training.json": SUMMARY,
    "losses.jsonl": {"phase": 1, "step": 1, "diffusion": 0.5, "norm": 1.0, "seconds": 0.1},
    "held.jsonl": {"phase": 1, "step": 0, "loss": 0.5, "ious": {"<bear>": 0.1}},
    "run.jsonl": {
        "time": "2026-11-26 07:57:58+00:00", "event": "Began", "scene": "s", "handles": ["<bear>"],
        "nouns": ["bear"], "base": "b", "resolution": 64, "dtype": "float32", "device": "cpu",
        "versions": {"torch": "2"}, "peak_bytes": 9, "text": "t",
    },
}  # fmt: skip
