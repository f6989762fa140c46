"""The demo: the whole journey on the embedded base, without a download or a GPU.

embedded scene -> train -> export -> verify in fresh pipelines -> draw and weigh, base beside
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.verification import Check, refuse_failures, verify_path
from lora_scene.backbones.loading import load_pipeline
from lora_scene.creating.picture_files import save_image
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.files import check_target, write_json
from lora_scene.judging.evaluation import attention_fit
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.metrics import mean
from lora_scene.judging.mini import with_article
from lora_scene.judging.plans import Cell, subsets_of
from lora_scene.judging.scores import find_things, measure, summarise
from lora_scene.judging.watched_drawing import Drawn, draw_watched
from lora_scene.learning.events import Event
from lora_scene.learning.training import train
from lora_scene.recipe import load_recipe
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.scenes.union import prompt_for
from lora_scene.sheets import contact_sheet, stacked

PLACES = ("a photo of {} on grass", "a photo of {} on sand", "a photo of {} in the snow")
SEEDS = (1, 2)  # of the pictures; the grid shows the first
SAMPLING = Sampling(n_steps=25, guidance=3.5)
WEIGHT = 0.7  # of the adapter; at 1 things repeat more often
SHORT = ("phase1.steps=4", "phase2.steps=4")  # enough to see that everything runs
BASE = "mini"  # and the names of its recipe and its judge
GRID, FIGURES = "grid.png", "demo.json"


@dataclass(frozen=True)
class Demo:
    """What came of the demo.

    Attributes:
        folder: Where everything lies: adapter/, exported/, grid.png, demo.json.
        figures: `base` and `adapter`, each metric to its mean over the same prompts and seeds.
        checks: One per exported file.
        seconds: Wall time of the training.
        handle: The first of the handles.
    """

    folder: Path
    figures: Mapping[str, Mapping[str, float | None]]
    checks: tuple[Check, ...]
    seconds: float
    handle: str


def demo_scene() -> Scene:
    """Return the embedded scene."""
    return load_scene(Path(str(resources.files("lora_scene.scenes"))) / "demo")


def run_demo(
    out: Path,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    restart: bool = False,
    listener: Callable[[Event], None] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Demo:
    """Train, export, verify, draw and weigh; an interrupted demo goes on where it stopped.

    Args:
        out: The folder of everything.
        overrides: Of the recipe `mini`; `SHORT` makes a demo of seconds that learns nothing.
        device: `auto`, `cuda`, `mps` or `cpu`.
        restart: Whether an earlier demo's training is discarded.
        listener: Told what happens while training.
        tell: Told what is done next.

    Raises:
        FileError: What lies in the folder is not ours to replace.
        VerificationError: An exported file does not do what it should.
    """
    check_target(out, [GRID, FIGURES])
    scene = demo_scene()
    tell(f"training {', '.join(scene.handles)} on the embedded base")
    recipe = load_recipe(BASE, list(overrides))
    adapter = out / "adapter"
    result = train(scene, recipe, out=adapter, device=device, restart=restart, listener=listener)
    tell("exporting, and loading each file into a fresh stock pipeline")
    export_adapter(result.adapter, out / "exported", title=Title("demo"))
    checks = verify_path(out / "exported", lambda: load_pipeline(BASE), reference=result.adapter)
    refuse_failures(checks)
    tell(f"drawing each thing alone, in pairs and together; adapter at weight {WEIGHT}")
    studio = open_studio([adapter], device=device)
    figures, pictures = _weigh(studio, scene, load_judge(BASE))
    _draw_grid(pictures, scene, out / GRID)
    demo = Demo(out, figures, checks, result.seconds, scene.handles[0])
    write_json(out / FIGURES, _as_json(demo))
    return demo


def _weigh(
    studio: Studio, scene: Scene, judge: Judge
) -> tuple[dict[str, dict[str, float | None]], dict[str, list[Pixels]]]:
    """Draw the same prompts with nouns on the base and with handles; measure both."""
    framed = frame_scene(scene, studio.backbone.canvas())
    figures: dict[str, dict[str, float | None]] = {}
    pictures: dict[str, list[Pixels]] = {}
    for side, weight in (("base", 0.0), ("adapter", WEIGHT)):
        cells = _cells(scene, weight)
        drawn = list(draw_watched(studio, [cell.asked for cell in cells], sampling=SAMPLING))
        pictures[side] = [one.pixels for one in drawn]
        figures[side] = _figures(cells, drawn, framed, judge)
    with studio.weighted(WEIGHT):
        figures["adapter"]["attention_iou"] = mean(attention_fit(studio, framed).values())
    return figures, pictures


def _cells(scene: Scene, weight: float) -> list[Cell]:
    """Return what is drawn: with handles, or at weight 0 with class nouns, which is the base."""
    nouns = [with_article(noun) for noun in scene.nouns]
    handles = [with_article(handle) for handle in scene.handles]
    cells = []
    for subset in subsets_of(scene.things, "powerset"):
        for template in PLACES:
            plain = prompt_for([nouns[k] for k in subset], None, template)
            prompt = prompt_for([handles[k] for k in subset], None, template) if weight else plain
            cells += [Cell(subset, Request(prompt, seed, weight=weight), plain) for seed in SEEDS]
    return cells


def _figures(
    cells: Sequence[Cell], drawn: Sequence[Drawn], framed: Scene, judge: Judge
) -> dict[str, float | None]:
    found = (find_things(one, framed, judge) for one in drawn)
    return summarise(measure(cells, drawn, found, scene=framed, judge=judge))


def _draw_grid(pictures: Mapping[str, Sequence[Pixels]], scene: Scene, path: Path) -> None:
    """Draw the scene, and a row per subset: base and adapter side by side in every place."""
    rows, labels = [], []
    per_subset = len(PLACES) * len(SEEDS)
    for n, subset in enumerate(subsets_of(scene.things, "powerset")):
        labels.append(" and ".join(scene.handles[k] for k in subset))
        row: list[Pixels] = []
        for place in range(len(PLACES)):
            index = n * per_subset + place * len(SEEDS)
            row += [drawn[index] for drawn in pictures.values()]
        rows.append(row)
    places = [template.replace("a photo of {} ", "") for template in PLACES]
    columns = [f"{side} {place}" for place in places for side in pictures]
    photo = contact_sheet([[scene.photos[0].pixels]], rows=["the scene"])
    save_image(path, stacked([photo, contact_sheet(rows, columns=columns, rows=labels)]))


def _as_json(demo: Demo) -> dict[str, Any]:
    return {
        "base": BASE,
        "weight": WEIGHT,
        "seconds": demo.seconds,
        "figures": demo.figures,
        "verified": [check.path.name for check in demo.checks],
    }
