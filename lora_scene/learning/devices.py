"""What a device has, what a run took of it, and what would take less."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lora_scene.errors import OutOfMemoryError, RecipeError, TrainingError
from lora_scene.faults import is_out_of_memory
from lora_scene.recipe import Recipe, Run

CLEAR_REFS = Path("/proc/self/clear_refs")  # 5 resets the peak of the resident set (Linux, proc(5))
RANKS = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE"),
    *("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
)
NEARLY_FULL = 0.95  # of a device's memory: above, drivers begin to swap and slow down


def reset_peak(device: torch.device) -> None:
    """Begin to measure the peak anew, on CUDA and on Linux; elsewhere it is the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        with contextlib.suppress(OSError):  # a container may forbid it
            CLEAR_REFS.write_text("5")


def free_cached(device: torch.device) -> None:
    """Give freed memory back to the device, so that the next part finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device) -> int:
    """Return the peak since `reset_peak`: reserved on CUDA, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_bytes(device: torch.device) -> int:
    """Return a CUDA device's memory, 0 elsewhere."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory)


def memory_switches(recipe: Recipe) -> list[str]:
    """Return the switches that would save memory and are not on yet, the largest gain first."""
    base, run = recipe.base, recipe.run
    most: int = Run.__dataclass_fields__["accumulation"].metadata["range"][1]
    passes = min(run.batch_size * run.accumulation, most)
    is_full = recipe.is_full
    low_bit = "nf4" if base.resolution > 512 else "fp8"  # SD's small UNets are mostly convolutions
    candidates = [
        (run.batch_size > 1, f"run.batch_size=1 run.accumulation={passes}"),
        (not base.gradient_checkpointing, "base.gradient_checkpointing=true"),
        (base.dtype == "fp32", "base.dtype=bf16"),
        (is_full and recipe.full.unet == "all", "full.unet=cross_kv"),
        (recipe.prior.weight > 0, "prior.weight=0"),
        (base.resolution > 512, "base.resolution=512"),
        (base.quantization == "none" and not is_full, f"base.quantization={low_bit}"),
        (recipe.lora.rank > 8 and not is_full, "lora.rank=8"),
        (recipe.lora.text_encoder_rank > 0, "lora.text_encoder_rank=0"),
        (recipe.optimizer.name == "adamw", "optimizer.name=adamw8bit"),
        (recipe.optimizer.name == "adamw8bit" and is_full, "optimizer.name=pagedadamw8bit"),
    ]
    return [f"--set {switch.replace(' ', ' --set ')}" for is_open, switch in candidates if is_open]


@contextlib.contextmanager
def memory_advice(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory into a list of what would help.

    Raises:
        OutOfMemoryError: The device ran out of memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        switches = memory_switches(recipe)
        raise OutOfMemoryError(
            "the device ran out of memory",
            got=str(error).split(". ")[0],
            hint="try in this order: " + "; ".join(switches)
            if switches
            else "every switch that saves memory is on; a smaller base.resolution is left",
        ) from error


def refuse_ranks() -> None:
    """Refuse to train one run in several processes.

    Raises:
        TrainingError: A launcher started more than one.
    """
    n = os.environ.get("WORLD_SIZE", "").strip()
    if n not in ("", "1"):  # one process: a launcher's variables are left over, and mean nothing
        raise TrainingError(
            "one run is trained by one process",
            where="WORLD_SIZE",
            got=n,
            hint="start it without torchrun or accelerate launch; larger batches: run.batch_size, "
            "or run.accumulation where memory is short; other scenes in other runs",
        )


def forked_rng(device: str) -> Any:
    """Leave the caller's global generators as they were."""
    kind = torch.device(device)
    devices = [kind.index or 0] if kind.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)


@contextlib.contextmanager
def fast_float32(device: torch.device) -> Iterator[None]:
    """Let CUDA multiply float32 matrices in TF32, and restore the setting."""
    kept = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept)


def mixed_precision(dtype: torch.dtype, device: torch.device) -> Any:
    """Return accelerate's mixed precision for a base's dtype, on its device.

    On the meta device, where an estimate is made, nothing is cast or scaled; accelerate, whose
    state is the process's, is left alone: a training may go on in another thread.

    Raises:
        RecipeError: The device cannot train in that dtype.
    """
    if device.type == "meta":
        return SimpleNamespace(scaler=None, backward=torch.autograd.backward)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run's dtype or device
    names = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "no"}
    if device.type == "cpu" and dtype == torch.float16:
        raise RecipeError(
            "float16 cannot be trained on the CPU", where="base.dtype", expected="fp32 or bf16"
        )
    if device.type == "cuda" and device.index is not None:  # a card without a number is refused
        torch.cuda.set_device(device)
    kind = names[dtype]
    try:
        with _without_launcher():
            return Accelerator(mixed_precision=kind, cpu=device.type == "cpu")
    except ValueError as error:  # bf16 on a Mac before macOS 14
        raise RecipeError(
            f"{device.type} does not train in {kind} here",
            where="base.dtype",
            expected="fp32 or fp16",
            got=error,
        ) from error


@contextlib.contextmanager
def _without_launcher() -> Iterator[None]:
    """Hide what a launcher's shell left over: a rank would have accelerate wait for others."""
    kept = {k: v for k, v in os.environ.items() if k in RANKS or k.startswith("ACCELERATE_")}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)
