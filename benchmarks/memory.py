"""Peak memory of a step of each contender, beside this package's estimate.

On a GPU, under ten minutes, with a smaller card imitated (the steps must pass under the limit):
    python -m benchmarks.memory --device cuda --recipes sd15-4gb --imitate-gb 4 --out memory.jsonl
    python -m benchmarks.memory --device cuda --recipes sdxl-6gb --imitate-gb 6 --out memory.jsonl
On a CPU the peak is that of torch's allocator, as its profiler reports it:
    OMP_NUM_THREADS=1 python -m benchmarks.memory --device cpu --small --recipes sd15
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, small
from benchmarks.records import circumstances, write
from lora_scene.backbones.architectures import find_architecture
from lora_scene.learning.estimates import estimate_memory
from lora_scene.learning.simulation import CONTEXT
from lora_scene.recipe import load_recipe

STEPS = 3
AT_MOST = {  # of ours, a step that asks the base
    "ours": CONTENDERS["ours, asking"],
    "reference": CONTENDERS["reference"],
    "diffusers": CONTENDERS["diffusers"],
}


def cuda_peak(prepare: Callable[[], Callable[[], None]], device: str) -> dict[str, Any]:
    """Return the peaks of a few steps in bytes, preparation included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step = prepare()
        for _ in range(STEPS):
            step()
    except torch.OutOfMemoryError as error:
        return {"passed": False, "error": str(error).splitlines()[0]}
    allocated = torch.cuda.max_memory_allocated(device)
    reserved = torch.cuda.max_memory_reserved(device)
    return {"passed": True, "allocated_bytes": allocated, "reserved_bytes": reserved}


def cpu_peak(prepare: Callable[[], Callable[[], None]]) -> dict[str, Any]:
    """Return how far torch's allocator rises in a step above what lies there before it."""
    step = prepare()
    step()  # optimizer states exist from here on
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as recorded:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
    sizes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    live = peak = 0
    for _, size in sizes:
        live += size
        peak = max(peak, live)
    return {"passed": True, "step_bytes": peak}


def imitate(gib: float, device: str) -> None:
    """Hold the process to a smaller card's memory, its context taken off.

    Raises:
        ValueError: The card here is smaller.
    """
    index = torch.device(device).index
    index = torch.cuda.current_device() if index is None else index  # the limit needs one
    total = torch.cuda.get_device_properties(index).total_memory
    share = (gib * 2**30 - CONTEXT) / total
    if not 0 < share <= 1:
        raise ValueError(f"a card of {gib} GiB cannot be imitated on one of {total / 2**30:.1f}")
    torch.cuda.set_per_process_memory_fraction(share, index)


def main() -> None:
    """Measure and write one line a contender and phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--recipes", nargs="+", default=["sd15"])
    parser.add_argument("--small", action="store_true", help="fewer channels: for a CPU")
    parser.add_argument("--contenders", nargs="+", default=list(AT_MOST), choices=AT_MOST)
    parser.add_argument("--imitate-gb", type=float, help="GiB of a card to hold the process to")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    is_cuda = given.device.startswith("cuda")
    if given.imitate_gb and is_cuda:
        imitate(given.imitate_gb, given.device)
    about = {**circumstances(given.device), "imitated_gib": given.imitate_gb}
    for name in given.recipes:
        dtypes = [] if is_cuda else ["base.dtype=fp32"]
        recipe = load_recipe(name, [*dtypes, *given.overrides])
        architecture = find_architecture(recipe.base.model)
        architecture = small(architecture) if given.small else architecture
        estimate = estimate_memory(architecture, recipe)
        for phase in (1, 2):
            expected = next(p for p in estimate.phases if p.name == f"phase {phase}")
            for contender in given.contenders:
                prepare = functools.partial(
                    AT_MOST[contender],
                    architecture,
                    recipe,
                    phase=phase,
                    n_concepts=3,
                    device=given.device,
                )
                measured = cuda_peak(prepare, given.device) if is_cuda else cpu_peak(prepare)
                setting = {"recipe": name, "base": architecture.name, "phase": phase}
                own = {"estimated_parts": dict(expected.parts)} if contender == "ours" else {}
                write({**setting, "contender": contender, **measured, **own, **about}, given.out)
                gc.collect()


if __name__ == "__main__":
    main()
