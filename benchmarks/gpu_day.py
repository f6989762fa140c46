"""All that waits for a GPU, in one command of about ten minutes; a part that fails stops no other.

    python -m benchmarks.gpu_day --out gpu.jsonl
    python -m benchmarks.gpu_day --device cpu --short --out rehearsal.jsonl
    python -m tests.devices benchmarks.gpu_day --device absent --short --out rehearsal.jsonl

`benchmarks.gpu_tables` makes the pages' tables of its lines.
Parts: the device; the tests marked gpu; seconds a step beside the published algorithm and a plain
LoRA; peaks under imitated cards, beside the estimate; what CUDA itself takes; how far gradients in
16 bits turn from those in 32; the demo scene learnt in each dtype.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gradients import STEPS, cosines
from benchmarks.records import circumstances, write

ROOT = Path(__file__).parents[1]
SCENE = ROOT / "lora_scene" / "scenes" / "demo"
CARDS = {4: ["sd15-4gb"], 6: ["sd15-6gb", "sd21-6gb", "sdxl-6gb"], 12: ["sdxl-12gb"]}
DTYPES = ("fp32", "bf16", "fp16")
SMALL = ["--small", "--set=base.resolution=64"]


def commands(device: str, lines: Path, *, is_short: bool) -> Iterator[tuple[str, int, list[str]]]:
    """Yield name, most seconds and arguments of the parts that are programs of their own."""
    out = ["--device", device, "--out", str(lines)]
    yield (
        "tests",
        120,
        ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/devices"],
    )
    step_time = ["-m", "benchmarks.step_time", *out]
    memory = ["-m", "benchmarks.memory", *out, "--contenders", "ours"]
    if is_short:
        few = ["--bases", "sd15", "--repeats", "2", "--concepts", "3"]
        few += ["--set=base.dtype=fp32"] if device == "absent" else []  # it knows no autocast
        yield "step time", 1200, [*step_time, *SMALL, *few]
        yield "memory", 1200, [*memory, *SMALL, "--recipes", "sd15"]
        return
    yield "step time", 150, [*step_time, "--bases", "sd15", "sd21", "--repeats", "7"]
    yield "step time of SDXL", 120, [*step_time, "--bases", "sdxl", "--repeats", "5"]
    for size, recipes in CARDS.items():
        card = ["--recipes", *recipes, "--imitate-gb", str(size)]
        yield f"memory of {size} GB", 60, [*memory, *card]


def trainings(device: str, *, is_short: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield dtype and arguments of a training of the demo scene."""
    steps = ["--set=phase1.steps=2", "--set=phase2.steps=2"] if is_short else []
    for dtype in ("fp32",) if device == "cpu" else DTYPES:
        chosen = [f"--set=base.dtype={dtype}", "--device", device, "--json", *steps]
        yield dtype, ["-m", "lora_scene", "train", str(SCENE), "--base", "mini", *chosen]


def run(arguments: Sequence[str], seconds: int, device: str) -> dict[str, Any]:
    """Run a program of Python's; return how it ended and the last of what it said."""
    begun = time.perf_counter()
    if device == "absent" and arguments[1] != "pytest":
        arguments = ["-m", "tests.devices", *arguments[1:]]
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=ROOT,
        )
        said, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        said, code = f"stopped after {seconds} s", None
    taken = round(time.perf_counter() - begun, 1)
    return {"exit": code, "seconds": taken, "end": said.strip().splitlines()[-5:]}


def own_share(device: str) -> Mapping[str, Any]:
    """Return what CUDA takes of the card beside torch's allocator, once a product has run."""
    if not device.startswith("cuda"):
        return {"skipped": "no CUDA device"}
    side = torch.randn(1024, 1024, device=device)
    torch.cuda.synchronize()
    assert bool((side @ side).isfinite().all())
    free, total = torch.cuda.mem_get_info(device)
    return {"context_bytes": total - free - torch.cuda.memory_reserved(device)}


def main() -> None:
    """Measure everything; end with 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--short", action="store_true", help="a rehearsal: small, few repeats")
    parser.add_argument("--out", type=Path, required=True, help="a line a figure, added to it")
    given = parser.parse_args()
    given.out = given.out.resolve()
    about = circumstances(given.device)
    good = True

    def keep(part: str, found: Mapping[str, Any]) -> None:
        nonlocal good
        good = good and found.get("exit", 0) == 0
        write({"part": part, **found, **about}, given.out)

    keep("own share", own_share(given.device))
    for name, seconds, arguments in commands(given.device, given.out, is_short=given.short):
        keep(name, run(arguments, seconds, given.device))
    with tempfile.TemporaryDirectory() as folder:
        numbers = itertools.count()
        for dtype, arguments in trainings(given.device, is_short=given.short):
            out = Path(folder) / str(next(numbers))
            found = run([*arguments, "--out", str(out)], 1200 if given.short else 240, given.device)
            if found["exit"] == 0:
                found |= {"summary": json.loads((out / "training.json").read_text("utf-8"))}
            keep(f"training in {dtype}", found)
    for dtype, cosine in cosines(given.device, 2 if given.short else STEPS).items():
        keep(f"gradients in {dtype}", cosine)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
