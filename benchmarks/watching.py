"""What watching costs of a run on the embedded base, and what it costs when it is off.

    python -m benchmarks.watching [--scene benchmarks/scenes/t01-2] [--repeats 5]

Parts interleaved, in seconds of the processor, not of the clock, so that other work on the machine
counts little. The page is that of a whole run: as many steps and looks as the recipe asks for.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.records import circumstances, write
from lora_scene.learning.attention_pictures import save_maps
from lora_scene.learning.drawn_before import draw_before
from lora_scene.learning.held import look
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.job import Job
from lora_scene.learning.phases import Trainer
from lora_scene.learning.preparation import load_base, prepare_handles, prepare_materials
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.runs import HELD, LOSSES
from lora_scene.learning.training import train
from lora_scene.learning.watching import PAGE_SHARE, Watcher
from lora_scene.recipe import Recipe, load_recipe
from lora_scene.scenes.scene import load_scene


def seconds(act: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    act()
    return time.process_time() - begun


def main() -> None:
    """Measure a step of phase 2, a look with its maps, a page, a glance at wishes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=Path, default=Path("benchmarks/scenes/t01-2"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe, scene = load_recipe("mini"), load_scene(options.scene)
    short = load_recipe("mini", ["phase1.steps=1", "phase2.steps=2"])
    n_steps, n_looks = sum(p.steps for p in recipe.phases), 2 * (recipe.run.watch + 1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(scene, short, out=out, device="cpu")
        backbone = load_base(scene, recipe, "cpu", lambda event: None)
        job = Job(scene, recipe, out, "cpu", "", "", lambda event: None, Interruption())
        materials = prepare_materials(backbone, job)
        table = prepare_handles(backbone, job, materials)
        materials = draw_before(backbone, job, table, materials)
        trainer = Trainer(backbone, table, materials=materials, folder=out, listener=job.tell)

        off = Watcher(replace(job, recipe=load_recipe("mini", ["run.watch=0"])), lambda _: None)
        lengthen(out, recipe, n_looks)

        def watch(place: int) -> None:
            with trainer.as_delivered():
                seen = look(backbone, table, materials.held, recipe)
            save_maps(seen.maps, scene, out, place)

        found: dict[str, list[float]] = {}
        with table.spliced():
            stepper = trainer.stepper(2)
            with stepper.attached():
                stepper(0)
                for n in range(n_looks):
                    found.setdefault("look", []).append(seconds(lambda n=n: watch(n)))
                for n in range(options.repeats):
                    for name, act in (
                        ("step", lambda n=n: stepper(n + 1)),
                        ("look", lambda: watch(0)),
                        ("page", lambda: write_run_page(out)),
                        ("off", lambda: [off.after(trainer, 2, 1) for _ in range(100)]),
                    ):
                        found.setdefault(name, []).append(seconds(act))
    each = {name: median(values) for name, values in found.items()}
    each["off"] /= 100
    whole = n_steps * each["step"]
    shares = {
        "looks": n_looks * each["look"] / whole,
        "pages on the way, at most": PAGE_SHARE,
        "the last page": max(found["page"]) / whole,
        "when off": each["off"] / each["step"],
    }
    row = {"cpu_seconds": each, "share_of_a_run": shares, "all": sum(shares.values())}
    write({**row, "steps": n_steps, "looks": n_looks, **circumstances("cpu")}, options.out)


def lengthen(out: Path, recipe: Recipe, n_looks: int) -> None:
    """Give a short run the lines of a whole one."""
    for name, n in ((LOSSES, recipe.phase2.steps), (HELD, n_looks)):
        log = RunLines(out / name)
        last = log.lines()[-1]
        for step in range(last["step"] + 1, n):
            log.append({**last, "step": step})


if __name__ == "__main__":
    main()
