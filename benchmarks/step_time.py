"""Time a step of this package, the published algorithm and a plain diffusers LoRA, interleaved.

On a GPU, under ten minutes:
    python -m benchmarks.step_time --device cuda --bases sd15 sd21 sdxl --out step_time.jsonl
On a CPU only small architectures make sense, and ratios:
    OMP_NUM_THREADS=1 python -m benchmarks.step_time --device cpu --small --bases sd15
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.contenders import CONTENDERS, small
from benchmarks.records import circumstances, write
from lora_scene.backbones.architectures import ARCHITECTURES
from lora_scene.recipe import load_recipe

RECIPES = {"sd15": "sd15", "sd21": "sd21", "sdxl": "sdxl-12gb"}
WARM_UP = 2


def seconds(step: Callable[[], None], device: str) -> float:
    """Return the wall time of one step, all kernels done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and write one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bases", nargs="+", default=["sd15"], choices=RECIPES)
    parser.add_argument("--small", action="store_true", help="fewer channels: for a CPU")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--resolution", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(given.device)
    for base in given.bases:
        sizes = [f"base.resolution={given.resolution}"] if given.resolution else []
        dtypes = ["base.dtype=fp32"] if given.device == "cpu" else []
        recipe = load_recipe(RECIPES[base], [*sizes, *dtypes, *given.overrides])
        architecture = small(ARCHITECTURES[base]) if given.small else ARCHITECTURES[base]
        for phase in (1, 2):
            variants = [(name, 3) for name in CONTENDERS] + [("ours", 1), ("ours", 10)]
            steps = {
                (name, k): CONTENDERS[name](
                    architecture, recipe, phase=phase, n_concepts=k, device=given.device
                )
                for name, k in variants
            }
            times: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
            for repeat in range(WARM_UP + given.repeats):
                for key, step in steps.items():
                    taken = seconds(step, given.device)
                    if repeat >= WARM_UP:
                        times[key].append(taken)
            for (name, k), measured in times.items():
                quartiles = statistics.quantiles(measured, n=4)
                setting = {"base": architecture.name, "phase": phase, "contender": name}
                setting |= {"concepts": k, "resolution": recipe.base.resolution}
                result = {"median_s": statistics.median(measured), "quartiles_s": quartiles}
                fixed = {"repeats": given.repeats, "overrides": given.overrides}
                write({**setting, **result, **fixed, **about}, given.out)
            del steps
            gc.collect()


if __name__ == "__main__":
    main()
