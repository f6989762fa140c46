"""All that waits for a GPU, in one command of about ten minutes; a part that fails stops no other.

    python -m benchmarks.gpu_day --out gpu.jsonl
    python -m benchmarks.gpu_day --device cpu --short --out rehearsal.jsonl
    python -m tests.devices benchmarks.gpu_day --device absent --short --out rehearsal.jsonl

`benchmarks.gpu_tables` makes the pages' tables of its lines.
First, side by side: the demo scene learnt and judged in each dtype; how far gradients in 16 bits
turn from those in 32; peaks under imitated cards, beside the estimate; the tests marked gpu. Then,
each alone, what is timed: seconds a step beside the published algorithm, a plain LoRA and other
optimizers; a whole day with Stable Diffusion 1.5 in full size. `--parts step` does those alone
whose names begin so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.records import circumstances, write

ROOT = Path(__file__).parents[1]
SCENE = ROOT / "lora_scene" / "scenes" / "demo"
CARDS = {4: ["sd15-4gb"], 6: ["sd15-6gb", "sd21-6gb", "sdxl-6gb"], 12: ["sdxl-12gb"]}
DTYPES = ("fp32", "bf16", "fp16")
OPTIMIZERS = ("adamw8bit", "adamw", "pagedadamw8bit")
SMALL = ["--small", "--set=base.resolution=64"]
SIDE_BY_SIDE = 8  # programs at once; none of them is timed
TOLD = 40  # last lines of a program that failed
LONG = 3600  # seconds that a part of a rehearsal may take


@dataclass(frozen=True)
class Part:
    """A program of the day.

    Attributes:
        name: In the lines and tables.
        seconds: It may take.
        programs: Arguments of Python, one after the other, while the one before ended well.
        kept: Files of JSON to keep in the line, by key.
    """

    name: str
    seconds: int
    programs: Sequence[Sequence[str]]
    kept: Mapping[str, Path]


def part(name: str, seconds: int, *arguments: str) -> Part:
    """Return a part of one program, which writes its own lines."""
    return Part(name, seconds, [arguments], {})


def timed(device: str, lines: Path, folder: Path, *, is_short: bool) -> Iterator[Part]:
    """Yield the parts that need the device for themselves."""
    step_time = ["-m", "benchmarks.step_time", "--device", device, "--out", str(lines)]
    if is_short:
        few = ["--bases", "sd15", "--repeats", "2", "--concepts", "3"]
        few += ["--set=base.dtype=fp32"] if device == "absent" else []  # it knows no autocast
        yield part("step time", LONG, *step_time, *SMALL, *few)
        return
    few = ["--concepts", "3", "--repeats", "9"]
    others = ["--optimizers", *OPTIMIZERS]
    yield part("step time", 100, *step_time, *few, *others, "--bases", "sd15")
    large = ["--bases", "sdxl", "--contenders", "ours", "diffusers"]  # in full: 70 GB
    yield part("step time of SDXL", 170, *step_time, *few, *others, *large)
    day = ["-m", "benchmarks.rehearse", "--whole", "--device", device, "--log", str(lines)]
    yield part("a whole day with SD 1.5", 220, *day, "--folder", str(folder / "day"))


def untimed(device: str, lines: Path, folder: Path, *, is_short: bool) -> Iterator[Part]:
    """Yield the parts that may share the device, the longest first."""
    yield from trainings(device, folder, is_short=is_short)
    gradients = ["-m", "benchmarks.gradients", "--device", device, "--out", str(lines)]
    yield part("gradients", LONG if is_short else 150, *gradients, *["--steps=2"] * is_short)
    memory = ["-m", "benchmarks.memory", "--device", device, "--out", str(lines)]
    memory += ["--contenders", "ours"]
    if is_short:
        yield part("memory", LONG, *memory, *SMALL, "--recipes", "sd15")
    else:
        for size, recipes in CARDS.items():
            card = ["--recipes", *recipes, "--imitate-gb", str(size)]
            yield part(f"memory of {size} GB", 120, *memory, *card)
    tests = ["pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/devices"]
    yield part("tests", 150, "-m", *tests)


def trainings(device: str, folder: Path, *, is_short: bool) -> Iterator[Part]:
    """Yield the demo scene, learnt in each dtype and judged by the embedded judge."""
    brief = ("phase1.steps=2", "phase2.steps=2", "augment.n_variants=1", "run.watch=1")
    steps = [f"--set={setting}" for setting in brief] if is_short else []
    one = ["--seeds", "1", "--steps", "1", "--subsets", "singles", "--prompt", "a photo of {}"]
    few = one if is_short else []
    for dtype in ("fp32",) if device == "cpu" else DTYPES:
        out, judged = folder / dtype, folder / f"{dtype}-judged"
        chosen = [f"--set=base.dtype={dtype}", "--device", device, "--json", *steps]
        train = ["train", str(SCENE), "--base", "mini", *chosen, "--out", str(out)]
        drawing = ["--device", device, "--dtype", dtype, *few, "--out", str(judged)]
        judge = ["evaluate", str(out), "--scene", str(SCENE), "--json", *drawing]
        programs = [["-m", "lora_scene", *verb] for verb in (train, judge)]
        kept = {"summary": out / "training.json", "judged": judged / "evaluation.json"}
        yield Part(f"training in {dtype}", LONG if is_short else 240, programs, kept)


def run(part: Part, device: str, deadline: float) -> dict[str, Any]:
    """Run a part; return how it ended, the last of what it said and the files it leaves."""
    begun, said = time.perf_counter(), ""
    code: int | None = 0
    for arguments in part.programs:
        if device == "absent" and arguments[1] != "pytest":
            arguments = ["-m", "tests.devices", *arguments[1:]]
        allowed = min(begun + part.seconds, deadline) - time.perf_counter()
        if allowed < 1:
            said, code = f"{said}\nnot begun for want of time: {' '.join(arguments)}", None
            break
        said, code = run_program(arguments, allowed)
        if code != 0:
            break
    taken = round(time.perf_counter() - begun, 1)
    end = said.strip().splitlines()[-TOLD if code != 0 else -5 :]
    kept = {name: read(path) for name, path in part.kept.items() if path.is_file()}
    missing = [path.name for name, path in part.kept.items() if name not in kept]
    if missing and code == 0:
        code, end = 1, [*end, f"did not leave {missing[0]}"]
    return {"exit": code, "seconds": taken, "end": end, **kept}


def run_program(arguments: Sequence[str], seconds: float) -> tuple[str, int | None]:
    """Return what a program of Python's says and its exit code; None where it was stopped."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            own = psutil.Process(process.pid).children(recursive=True)
            for each in (process, *own):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            said, _ = process.communicate()
            return f"{said}\nstopped: out of its time", None
    return said, process.returncode


def read(path: Path) -> dict[str, Any]:
    """Return a file of JSON without the hundreds of lines that an evaluation has of pictures."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return {key: value for key, value in found.items() if key != "pictures"}


def own_share(device: str) -> Mapping[str, Any]:
    """Return what CUDA takes of the card beside torch's allocator, once a product has run."""
    if not device.startswith("cuda"):
        return {"skipped": "no CUDA device"}
    side = torch.randn(1024, 1024, device=device)
    torch.cuda.synchronize()
    assert bool((side @ side).isfinite().all())
    free, total = torch.cuda.mem_get_info(device)
    return {"context_bytes": total - free - torch.cuda.memory_reserved(device)}


def result_of(done: Future[dict[str, Any]]) -> dict[str, Any]:
    """Return what a part found; an error of our own ends that part alone."""
    error = done.exception()
    return done.result() if error is None else {"exit": 1, "seconds": 0, "end": [repr(error)]}


def refuse_unknown(
    begun: Sequence[str], parser: argparse.ArgumentParser, *, is_short: bool
) -> None:
    """Refuse beginnings of names with which no part begins."""
    nowhere = Path("nowhere")
    parts = [*untimed("cpu", nowhere, nowhere, is_short=is_short)]
    parts += timed("cpu", nowhere, nowhere, is_short=is_short)
    unknown = [one for one in begun if not any(each.name.startswith(one) for each in parts)]
    if unknown:
        names = ", ".join(each.name for each in parts)
        parser.error(f"no part begins with {unknown[0]!r}; there are {names}")


def main() -> None:
    """Measure everything; end with 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--short", action="store_true", help="a rehearsal: small, few repeats")
    parser.add_argument("--within", type=float, default=600, help="seconds in all, if not --short")
    parser.add_argument("--parts", nargs="+", default=[""], help="beginnings of their names")
    parser.add_argument("--out", type=Path, required=True, help="a line a figure, added to it")
    given = parser.parse_args()
    lines, device = given.out.resolve(), given.device
    refuse_unknown(given.parts, parser, is_short=given.short)
    deadline = time.perf_counter() + (24 * 3600 if given.short else given.within)
    about = circumstances(device)
    good = True

    def keep(name: str, found: Mapping[str, Any]) -> None:
        nonlocal good
        good = good and found.get("exit", 0) == 0
        write({"part": name, **found, **about}, lines)

    keep("own share", own_share(device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_workers = SIDE_BY_SIDE if device.startswith("cuda") else 1
        for chosen, n in ((untimed, n_workers), (timed, 1)):
            parts = chosen(device, lines, folder, is_short=given.short)
            with ThreadPoolExecutor(n) as pool:
                begun = {
                    pool.submit(run, each, device, deadline): each.name
                    for each in parts
                    if each.name.startswith(tuple(given.parts))
                }
                for done in as_completed(begun):
                    keep(begun[done], result_of(done))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
