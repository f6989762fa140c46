"""What one step of phase 2's optimizer takes and keeps, in each of the ways that it could be made.

    OMP_NUM_THREADS=1 python -m benchmarks.optimizers --device cpu --bases sd15 sdxl

The factors of a recipe's LoRA, filled at random, each with a gradient; the ways step in turn.
On a CPU it is the process's own time, with one thread.
torchao's, where it is installed, is compiled by torch, once for each size of tensor: over flat
tensors alone, for a LoRA has dozens of sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.records import circumstances, write
from benchmarks.step_time import seconds
from lora_scene.backbones.architectures import ARCHITECTURES, meta_backbone
from lora_scene.learning.flat_weights import flat_optimizer
from lora_scene.learning.lora import add_lora
from lora_scene.recipe import load_recipe

RECIPES = {"sd15": "sd15", "sdxl": "sdxl-12gb"}
WARM_UP = 3
RATE = {"lr": 1e-4, "weight_decay": 0.01}
Shapes = Sequence[tuple[int, ...]]


def factor_shapes(base: str) -> Shapes:
    """Return the shapes of the factors that a base's recipe trains."""
    recipe = load_recipe(RECIPES[base])
    resolution = recipe.base.resolution
    backbone = meta_backbone(ARCHITECTURES[base], dtype=torch.bfloat16, resolution=resolution)
    return [tuple(weight.shape) for weight in add_lora(backbone, recipe.lora)]


def factors(shapes: Shapes, device: str) -> list[nn.Parameter]:
    """Make weights of these shapes, in 32 bits, each with a gradient."""
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for weight in made:
        weight.grad = torch.randn_like(weight)
    return made


def ways(device: str) -> Mapping[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    """Return what makes an optimizer over weights, by name."""
    import bitsandbytes as bnb

    eight = bnb.optim.AdamW8bit
    found: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "AdamW, 32 bits, fused": lambda w: torch.optim.AdamW(w, fused=True, **RATE),
        "bitsandbytes, a tensor at a time": lambda w: eight(w, **RATE),
        "bitsandbytes, flat (ours)": lambda w: flat_optimizer(eight, w, min_8bit_size=0, **RATE),
    }
    if importlib.util.find_spec("torchao"):
        from torchao.optim import AdamW8bit

        found["torchao, flat"] = lambda w: flat_optimizer(AdamW8bit, w, **RATE)
    return found


def taken_by(step: Callable[[], Any], device: str) -> float:
    """Return the seconds of a step, on a CPU its own: other work does not count."""
    if device != "cpu":
        return seconds(step, device)
    begun = time.process_time()
    step()
    return time.process_time() - begun


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return what an optimizer keeps of its weights, tables that tensors share counted once."""
    kept = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        for tensor in _parts(value)
    }
    return sum(kept.values())


def _parts(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state; torchao's is several behind one."""
    names = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
    if names:
        yield from (getattr(value, name) for name in names)
    elif isinstance(value, Tensor):
        yield value


def measure(shapes: Shapes, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a line a way: milliseconds of a step, interleaved, and bytes of state."""
    made = {name: make(factors(shapes, device)) for name, make in ways(device).items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for repeat in range(WARM_UP + repeats):
        for name, optimizer in made.items():
            taken = taken_by(optimizer.step, device)
            if repeat >= WARM_UP:
                times[name].append(1000 * taken)
    for name, optimizer in made.items():
        quartiles = statistics.quantiles(times[name], n=4)
        figures = {"median_ms": statistics.median(times[name]), "quartiles_ms": quartiles}
        yield {"optimizer": name, **figures, "state_bytes": state_bytes(optimizer)}


def main() -> None:
    """Measure and write one line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bases", nargs="+", default=["sd15"], choices=RECIPES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(given.device)
    for base in given.bases:
        shapes = factor_shapes(base)
        n_numbers = sum(torch.Size(shape).numel() for shape in shapes)
        size = {"base": base, "n_tensors": len(shapes), "n_numbers": n_numbers}
        for line in measure(shapes, given.device, given.repeats):
            write({**size, **line, **about}, given.out)


if __name__ == "__main__":
    main()
