"""A rehearsal in full size: a user's first day by the command line, on a random base.

    make rehearse                         # Stable Diffusion 1.5 at 512 px, 25 minutes of two cores
    python -m benchmarks.rehearse --base sdxl --size 512 --dtype bf16 --folder DIR --log FILE
    python -m benchmarks.rehearse --whole --device cuda --folder DIR --log FILE    # 100 + 100 steps

The base is saved as a folder and as a single file; what is drawn from it is noise. What is shown is
that nothing fails and what it takes: each command's exit code, seconds and peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.full_size import build_full_size
from benchmarks.records import circumstances, write
from tests.backbones import ldm

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "lora_scene" / "scenes" / "demo"
HALF = torch.float16
PROMPT = ["--prompt", "a photo of <car> on grass"]


def make_base(name: str, folder: Path, *, is_single: bool) -> tuple[Path, Path | None]:
    """Save a random base as a folder, and one of SD 1 as a single file if asked to; once."""
    saved, single = folder / name, folder / f"{name}.safetensors"
    wants_single = is_single and name == "sd15"
    if not (saved / "model_index.json").is_file() or (wants_single and not single.is_file()):
        pipeline = build_full_size(name, dtype=HALF)
        pipeline.save_pretrained(saved)
        if wants_single:
            ldm.write(pipeline, single)
    return saved, single if wants_single else None


def run(arguments: list[str], log: Path, about: Mapping[str, Any]) -> bool:
    """Run a verb; write what it took and the end of what it said; tell whether it went well."""
    begun, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "lora_scene", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=log.parent
    ) as process:
        watched = psutil.Process(process.pid)
        while True:
            try:
                said, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                with contextlib.suppress(psutil.NoSuchProcess):
                    peak = max(peak, watched.memory_info().rss)
    line = {
        "verb": arguments[0],
        "exit": process.returncode,
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_gb": round(peak / 1e9, 2),
        "end": said.replace(f"{ROOT}/", "").strip().splitlines()[-3:],
    }
    if arguments[0] == "train" and process.returncode == 0:
        told = Path(arguments[arguments.index("--out") + 1]) / "training.json"
        line["summary"] = json.loads(told.read_text("utf-8"))
    write({**line, **about}, log)
    return process.returncode == 0


def first_day(
    base: str, recipe: str, *, out: str, size: int, dtype: str, device: str, config: str | None
) -> list[list[str]]:
    """Return the command lines: check, estimate, train, go on, generate, export, verify.

    The day of a single file, which takes `config` of a folder, is short: a step of each phase, a
    picture.
    What a step costs counts in passes of the UNet: 2 of its own, 1 of the base's answer; a look at
    held draws takes 4.
    """
    n = 1 if config else 2
    settings = {
        "base.dtype": dtype,
        "base.resolution": size,
        "phase1.steps": n,
        "phase2.steps": n,
        "run.checkpoint_every": 1,
        "run.watch": 0 if config else 1,  # looks at both ends; 6 would be half the time
        "prior.weight": 0,
        "augment.n_variants": 1,  # 24 pictures encoded would be half the time, and show no more
    }
    chosen = [f"--set={key}={value}" for key, value in settings.items()]
    longer = [each.replace("phase2.steps=2", "phase2.steps=3") for each in chosen]
    train = ["train", str(SCENE), "--recipe", recipe, "--base", base, "--device", device]
    train += ["--out", out]
    drawing = [*PROMPT, "--device", device, "--dtype", dtype, "--size", f"{size}x{size}"]
    generate = ["generate", out, *drawing, "--steps", str(n), "--out", f"{out}-p"]
    if config:
        whole = ["--base-config", config]
        return [[*train, *whole, *chosen], [*generate, "--base", base, *whole]]
    return [
        ["check", str(SCENE), "--size", str(size)],
        ["estimate", "--recipe", recipe, *chosen],
        [*train, *chosen],
        [*train, *longer],
        generate,
        ["export", out, "--format", "all", "--out", f"{out}-x"],
        ["verify", f"{out}-x", "--base", base, "--adapter", out],
        ["inspect", f"{out}-x"],
    ]


def whole_day(base: str, recipe: str, *, out: str, device: str) -> list[list[str]]:
    """Return the command lines of a GPU's day: the recipe, a quarter of its steps.

    `verify`, which needs no GPU, is left to the short days.
    """
    at = ["--device", device]
    train = ["train", str(SCENE), "--recipe", recipe, "--base", base, "--out", out]
    train += ["--set=phase1.steps=100", "--set=phase1.draws=25"]
    train += ["--set=phase2.steps=100", "--set=phase2.draws=12"]
    generate = ["generate", out, *PROMPT, *at]
    return [
        [*train, *at],
        [*generate, "--count", "4", "--out", f"{out}-p"],
        [*generate, "--at", "car=0,0,0.5,1", "--out", f"{out}-placed"],
        ["export", out, "--format", "all", "--out", f"{out}-x"],
    ]


def main() -> None:
    """Rehearse, and end with 1 if any command failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", default="fp32", help="in which frozen weights compute")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--whole", action="store_true", help="by the recipe, fewer steps")
    parser.add_argument("--folder", type=Path, required=True, help="of bases and results")
    parser.add_argument("--log", type=Path, required=True, help="a line a command")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    log = given.log.resolve()
    folder, single = make_base(given.base, given.folder.resolve(), is_single=not given.whole)
    about = circumstances(given.device)
    common = {"recipe": given.base, "device": given.device}
    if given.whole:
        out = str(given.folder.resolve() / "learnt")
        days = [whole_day(str(folder), out=out, **common)]
    else:
        chosen = {**common, "size": given.size, "dtype": given.dtype}
        days = [
            first_day(str(base), out=f"{base}-learnt", config=config, **chosen)
            for base, config in ((folder, None), (single, str(folder)))
            if base is not None
        ]
    ended = [run(line, log, about) for day in days for line in day]
    sys.exit(0 if all(ended) else 1)


if __name__ == "__main__":
    main()
