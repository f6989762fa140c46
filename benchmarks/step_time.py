"""Time a step of this package, the published algorithm and a plain diffusers LoRA, interleaved.

On a GPU, under ten minutes:
    python -m benchmarks.step_time --device cuda --bases sd15 sd21 --out step_time.jsonl
    python -m benchmarks.step_time --device cuda --bases sdxl --concepts 3 --out step_time.jsonl
Of this package `ours` is a step that remembers the base's prediction, as three of four do by the
recipe, and `ours, asking` one that asks for it. Contenders that do not fit into memory together
are measured one after the other, as with --apart; one that does not fit alone leaves a line that
says so.
On a CPU only ratios make sense, of small architectures or of small pictures:
    OMP_NUM_THREADS=1 python -m benchmarks.step_time --device cpu --small --bases sd15

Each line holds a step's arithmetic, as torch counts it (low-bit products are unknown to it), and
the share of what the device reaches in one large matrix product of the same dtype.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import CONTENDERS, base_dtype, small
from benchmarks.records import circumstances, write
from lora_scene.backbones.architectures import ARCHITECTURES, Architecture
from lora_scene.faults import is_out_of_memory
from lora_scene.recipe import Recipe, load_recipe

RECIPES = {"sd15": "sd15", "sd21": "sd21", "sdxl": "sdxl-12gb"}
WARM_UP = 2
PUBLISHED = "adamw"  # in 32 bits
PRODUCT_SIDE = {"cuda": 8192}
SMALL_SIDE = 2048  # of any other device

T = TypeVar("T")
Variant = tuple[str, int, str]
"""Contender, number of concepts and optimizer."""


def seconds(step: Callable[[], None], device: str) -> float:
    """Return the wall time of one step, all kernels done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def arithmetic(step: Callable[[], None]) -> int:
    """Return the floating-point operations of one step, forward and backward.

    Counting comes after timing: a module that was counted first is never compiled.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def peak_rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations per second of the fastest of five large matrix products."""
    side = PRODUCT_SIDE.get(torch.device(device).type, SMALL_SIDE)
    factor = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / min(seconds(lambda: factor @ factor, device) for _ in range(5))


def measure(
    makers: Mapping[Variant, Callable[[], Callable[[], None]]], *, repeats: int, device: str
) -> dict[Variant, tuple[int, list[float]]]:
    """Return each variant's operations and seconds per step, interleaved, after a warm-up."""
    steps = {key: make() for key, make in makers.items()}
    times: dict[Variant, list[float]] = {key: [] for key in steps}
    for repeat in range(WARM_UP + repeats):
        for key, step in steps.items():
            taken = seconds(step, device)
            if repeat >= WARM_UP:
                times[key].append(taken)
    return {key: (arithmetic(step), times[key]) for key, step in steps.items()}


def measure_what_fits(
    makers: Mapping[Variant, Callable[[], Callable[[], None]]],
    *,
    repeats: int,
    device: str,
    apart: bool,
) -> Iterator[tuple[Variant, tuple[int, list[float]] | None, bool]]:
    """Measure together, or, where memory is too small for that, one after the other.

    Yields:
        A variant; its operations and seconds, None if it does not fit alone; whether apart.
    """
    if not apart and len(makers) > 1:
        measured = or_none(lambda: measure(makers, repeats=repeats, device=device))
        if measured is not None:
            for key, figures in measured.items():
                yield key, figures, False
            return
    for key, make in makers.items():
        alone = {key: make}
        measured = or_none(lambda alone=alone: measure(alone, repeats=repeats, device=device))
        yield key, measured and measured[key], True


def or_none(work: Callable[[], T]) -> T | None:
    """Return what work returns, or None if memory runs out; what it held is freed."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # here, where the error no longer holds the frames
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def with_optimizer(recipe: Recipe, name: Any) -> Recipe:
    """Return a recipe with another optimizer."""
    chosen = dataclasses.replace(recipe.optimizer, name=name)
    return dataclasses.replace(recipe, optimizer=chosen)


def measure_phase(
    architecture: Architecture, recipe: Recipe, phase: int, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measure all that was asked for in one phase; give one line per variant."""
    own: str = recipe.optimizer.name
    variants = [
        (name, k, PUBLISHED if name == "reference" else own)
        for name in given.contenders
        for k in (given.concepts if name.startswith("ours") else given.concepts[:1])
    ]
    if phase == 2:
        others = (name for name in given.optimizers if name != own)
        variants += [("ours", given.concepts[0], name) for name in others]
    same: dict[str, Any] = {
        "architecture": architecture,
        "phase": phase,
        "device": given.device,
    }
    recipes = {name: with_optimizer(recipe, name) for _, _, name in variants}
    makers = {
        (name, k, optimizer): partial(
            CONTENDERS[name], recipe=recipes[optimizer], n_concepts=k, **same
        )
        for name, k, optimizer in variants
    }
    dtype = base_dtype(recipe, given.device)
    peak = peak_rate(given.device, dtype)
    for (name, k, optimizer), figures, is_apart in measure_what_fits(
        makers, repeats=given.repeats, device=given.device, apart=given.apart
    ):
        gc.collect()
        line = {
            "base": architecture.name, "phase": phase, "contender": name, "concepts": k,
            "optimizer": optimizer,
            "resolution": recipe.base.resolution, "repeats": given.repeats,
            "peak_teraflop_per_s": peak / 1e12, "dtype": str(dtype).removeprefix("torch."),
            "overrides": given.overrides, "apart": is_apart, "fits": figures is not None,
        }  # fmt: skip
        if figures is not None:
            operations, times = figures
            median = statistics.median(times)
            line |= {
                "median_s": median, "quartiles_s": statistics.quantiles(times, n=4),
                "teraflop": operations / 1e12, "share_of_peak": operations / median / peak,
            }  # fmt: skip
        yield line


def main() -> None:
    """Measure and write one line per variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bases", nargs="+", default=["sd15"], choices=RECIPES)
    parser.add_argument("--small", action="store_true", help="fewer channels: for a CPU")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--concepts", nargs="+", type=int, default=[3, 1, 10], help="of ours")
    parser.add_argument("--optimizers", nargs="+", default=[], help="of ours too, in phase 2")
    parser.add_argument(
        "--apart", action="store_true", help="one after the other, though they fit together"
    )
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
            for line in measure_phase(architecture, recipe, phase, given):
                write({**line, **about}, given.out)


if __name__ == "__main__":
    main()
