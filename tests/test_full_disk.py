"""Every verb that writes, on a disk that takes no more: a sentence, no half file, the old kept."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene.adapters.folder import save_adapter
from lora_scene.cli.main import VERBS as CHAPTERS
from lora_scene.cli.main import root
from lora_scene.errors import FileError
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.runs import EVENTS, LOSSES
from tests import tiny
from tests.adapters import made
from tests.cli.test_benchmark import TOML
from tests.cli.test_evaluate import write_scene
from tests.judging import fakes
from tests.workshop import rows

resource = pytest.importorskip("resource", reason="no limit of a file's size on Windows")
DRAWN = ("--base", "sd1-0", "--steps", "1", "--device", "cpu")
VERBS = {
    "check": ("check", "set", "--out", "out/x.png"),
    "mask": ("mask", "photo.png", "--box", "bear=8,8,40,40", "--out", "out/x"),
    "recipes": ("recipes", "copy", "sd15", "out/x.toml"),
    "generate": ("generate", "a", "--prompt", "a <bear>", "--out", "out/x", *DRAWN),
    "edit": (*("edit", "a", "--photo", "photo.png", "--mask", "mask.png", "--prompt", "a <bear>"),
             *("--out", "out/x.png", *DRAWN)),
    "complete": (*("complete", "a", "--photo", "photo.png", "--grow", "right=16"),
                 *("--out", "out/x.png", *DRAWN)),
    "export": ("export", "a", "--out", "out/x"),
    "pipeline": ("export", "a", "--format", "pipeline", "--base", "sd1-0", "--out", "out/x"),
    "merge": ("merge", "a", "b", "--weights", "1,1", "--out", "out/x"),
    "card": ("card", "out/c"),
    "pull": ("pull", "a", "--out", "out/x"),
    "train": (*("train", "set", "--recipe", "paper", "--base", "sd1-0", "--device", "cpu"),
              *("--set", f"base.resolution={tiny.RESOLUTION}", "--set", "prior.weight=0"),
              *("--set", "phase1.steps=1", "--set", "phase2.steps=0", "--out", "out/x")),
    "interpolate": (*("interpolate", "a", "--from", "<bear>", "--to", "<bowl>", "--frames", "2"),
                    *("--out", "out/x", *DRAWN)),
    "decompose": ("decompose", "a", "--out", "out/x", *DRAWN),
    "variations": ("variations", "a", "--n", "1", "--out", "out/x", *DRAWN),
    "evaluate": (*("evaluate", "a", "--scene", "scene", "--prompt", "a photo of {} on grass"),
                 *("--seeds", "1", "--out", "out/x", *DRAWN)),
    "benchmark": ("benchmark", "protocol.toml", "--max-runs", "0", "--out", "out/rows"),
    "study": ("study", "make", "out/rows", "--out", "out/x"),
    "report": ("report", "out/run", "--to", "out/x.html"),
    "pick": ("pick", "out/run", "--take", "1:0.5"),
    "demo": ("demo", "--short", "--out", "out/x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two adapters, a base, a scene, a photo and a mask."""
    home = tmp_path_factory.mktemp("full")
    tiny.folder("sd1", str(home))
    pipe = tiny.pipeline("sd1")
    adapter = made.adapter(pipe, "sd1")
    save_adapter(adapter, home / "a")
    save_adapter(made.adapter(pipe, "sd1", handles=("<dog>",)), home / "b")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    pixels[14:36, 14:36] = (250, 20, 20)
    (home / "set").mkdir()
    for path in (home / "photo.png", home / "set" / "img.png"):
        Image.fromarray(pixels).save(path)
    mask = np.zeros((64, 80), np.uint8)
    mask[20:50, 20:50] = 255
    for path in (home / "mask.png", home / "set" / "mask0.png"):
        Image.fromarray(mask).save(path)
    save_adapter(adapter, home / "out" / "c")
    rows.write(home / "out" / "rows")
    for folder in ("out/run", "out/run/snapshots/phase2-00001"):
        save_adapter(adapter, home / folder)
    RunLines(home / "out" / "run" / LOSSES).append({"phase": 1, "step": 1, "diffusion": 0.5})
    write_scene(home / "scene")
    (home / "scenes").mkdir()
    write_scene(home / "scenes" / "a")
    (home / "protocol.toml").write_text(TOML)
    return home


@contextlib.contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size; Python then gets the system's own error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file but a run's log, which may tell of the try."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != EVENTS
    }


@pytest.mark.filterwarnings("ignore:what is drawn from here on is lost")  # and evaluate goes on
@pytest.mark.parametrize("n_bytes", [300, 700])
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, verb: str, n_bytes: int
) -> None:
    monkeypatch.chdir(home)
    for place in ("lora_scene.workshop.trials", "lora_scene.judging.judge"):
        monkeypatch.setattr(f"{place}.load_judge", lambda *a, **k: fakes.judge())
    before = contents(home)
    with disk_of(n_bytes):
        done = CliRunner().invoke(root, list(VERBS[verb]))
    assert isinstance(done.exception, FileError), f"{done.exception!r} {done.output}"
    assert "larger than a file may become here" in str(done.exception)
    assert ".lora_scene-" not in str(done.exception)
    assert contents(home) == before, "nothing half, nothing changed, no debris"


def test_every_verb_that_writes_is_tried() -> None:
    others = {"page", "ask", "push", "verify", "inspect", "estimate", "doctor"}
    every = {verb for chapter in CHAPTERS.values() for verb in chapter}
    assert every == others | {words[0] for words in VERBS.values()}


@pytest.mark.parametrize("out", ["photo.png/x", "/proc/x/y", "new/" + "n" * 300])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("card", "pick")])
def test_a_place_that_takes_no_files_is_told_before_any_work(
    home: Path, monkeypatch: pytest.MonkeyPatch, verb: str, out: str
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr("lora_scene.backbones.loading.load_pipeline", None)  # would be a TypeError
    before = contents(home)
    command = [*VERBS[verb]]
    at = {"recipes": 3, "report": 3}.get(verb) or command.index("--out") + 1
    command[at] = f"{out}.{ {'recipes': 'toml', 'report': 'html'}.get(verb, 'png') }"
    done = CliRunner().invoke(root, command)
    assert isinstance(done.exception, FileError), f"{done.exception!r} {done.output}"
    command[at] = ""
    assert CliRunner().invoke(root, command).exit_code == 2, "an empty path is no current folder"
    assert contents(home) == before
