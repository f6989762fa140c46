"""What watching costs of a step on the embedded base: CPU seconds, parts interleaved.

    python -m benchmarks.watching [--scene benchmarks/scenes/t01-2] [--repeats 5]

Seconds of the processor, not of the clock, so that other work on the machine counts little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.records import circumstances, write
from lora_scene.learning.asking import asked
from lora_scene.learning.attention_pictures import save_maps
from lora_scene.learning.held import look
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.phases import Trainer
from lora_scene.learning.preparation import Job, load_base, prepare_handles, prepare_materials
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.training import train
from lora_scene.learning.watching import PAGE_SHARE
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene

FORCED_PAGES = 3  # at the start of each phase and at the end, whatever they cost


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
        backbone = load_base(recipe, "cpu", lambda event: None)
        job = Job(scene, recipe, out, "cpu", "", "", lambda event: None, Interruption())
        materials = prepare_materials(backbone, job)
        table = prepare_handles(backbone, job, materials)
        trainer = Trainer(backbone, table, materials=materials, folder=out, listener=job.tell)

        def watch() -> None:
            with trainer.as_delivered():
                seen = look(backbone, table, materials.held, recipe)
            save_maps(seen.maps, scene, out, 1)

        found: dict[str, list[float]] = {}
        with table.spliced():
            stepper = trainer.stepper(2)
            with stepper.attached():
                stepper(0)
                watch()
                for n in range(options.repeats):
                    for name, act in (
                        ("step", lambda n=n: stepper(n + 1)),
                        ("look", watch),
                        ("page", lambda: write_run_page(out)),
                        ("glances", lambda: [asked(out) for _ in range(100)]),
                    ):
                        found.setdefault(name, []).append(seconds(act))
    each = {name: median(values) for name, values in found.items()}
    each["glance"] = each.pop("glances") / 100
    looks = n_looks * each["look"] / (n_steps * each["step"])
    forced = FORCED_PAGES * each["page"] / (n_steps * each["step"])
    shares = {
        "looks": looks,
        "glances": each["glance"] / each["step"],
        "pages, always": forced,
        "pages between, at most": PAGE_SHARE,
    }
    row = {"cpu_seconds": each, "share_of_a_run": shares, "all": sum(shares.values())}
    write({**row, "steps": n_steps, "looks": n_looks, **circumstances("cpu")}, options.out)


if __name__ == "__main__":
    main()
