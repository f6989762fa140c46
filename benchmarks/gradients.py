"""How far the gradients of a training step in 16 bits turn from those in 32, on the mini base.

    python -m benchmarks.gradients --device cpu
    python -m tests.devices benchmarks.gradients --device absent    # float16 too

    python -m benchmarks.gradients --led ADAPTER    # of what is led to places, in place of training

Each step is compared with its own: a sum over steps would be that of the worst one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.placing import BOXES, SAMPLING
from benchmarks.records import circumstances, write
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import load_pipeline
from lora_scene.creating.rendering import encode
from lora_scene.creating.requests import Control, Place, Request
from lora_scene.creating.sampling import Start, Step, check_size, denoise, start_noise
from lora_scene.creating.steering import PlaceGuide, steered
from lora_scene.creating.studio import open_studio
from lora_scene.journey import demo_scene
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import encode_variants
from lora_scene.learning.phases import Trainer
from lora_scene.learning.step import Materials
from lora_scene.recipe import load_recipe
from lora_scene.size import Size

STEPS = 8
LED_SEEDS = (0, 1, 2, 3)
DTYPES = ("bf16", "fp16")
CPU_DTYPES = ("bf16",)  # it has no float16 training


def gradients(dtype: str, device: str, n_steps: int) -> dict[str, list[torch.Tensor]]:
    """Return the gradients of each phase's first steps: of the rows, and of the factors."""
    recipe = load_recipe("mini", [f"base.dtype={dtype}"])
    scene = demo_scene()
    pipeline = load_pipeline("mini", dtype=dtype)  # type: ignore[arg-type]
    backbone = Backbone(pipeline, name="mini", resolution=recipe.base.resolution)
    backbone.place(device)
    variants = encode_variants(
        backbone,
        scene,
        recipe.augment,
        canvas=backbone.canvas(),
        generator=np.random.default_rng(0),
    )
    table = HandleTable(
        backbone,
        scene.concepts,
        n_vectors=recipe.handles.n_vectors,
        init=recipe.handles.init,
        generator=torch.Generator().manual_seed(0),
    )
    found: dict[str, list[torch.Tensor]] = {}
    with TemporaryDirectory() as folder, table.spliced():
        trainer = Trainer(
            backbone,
            table,
            materials=Materials(variants, None, recipe, ""),
            folder=Path(folder),
            listener=lambda event: None,
        )
        for number, name in ((1, "rows"), (2, "factors")):
            stepper = trainer.stepper(number)
            noise = torch.Generator().manual_seed(1)
            for weight in trainer.weights:  # LoRA begins at zero, where half the gradients are zero
                weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
            trained = trainer.weights if number == 2 else list(table.tables)
            found[name] = []
            with stepper.attached():
                for step in range(n_steps):
                    stepper.gradients(step)
                    parts = [w.grad.flatten().cpu() for w in trained if w.grad is not None]
                    found[name].append(torch.cat(parts).double())
                    for weight in trainer.parameters():
                        weight.grad = None
    return found


def cosines(device: str, n_steps: int = STEPS) -> Mapping[str, Mapping[str, Any]]:
    """Return, by dtype, the cosines of its gradients with float32's: median and least of steps."""
    exact = gradients("fp32", device, n_steps)
    found: dict[str, dict[str, Any]] = {}
    for dtype in CPU_DTYPES if device == "cpu" else DTYPES:
        found[dtype] = {"steps": n_steps}
        for name, rough in gradients(dtype, device, n_steps).items():
            pairs = zip(rough, exact[name], strict=True)
            angles = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs]
            found[dtype] |= {name: statistics.median(angles), f"{name}_least": min(angles)}
    return found


@dataclass
class Remembering(PlaceGuide):
    """A guide that keeps where it was, and each gradient there."""

    visited: list[tuple[torch.Tensor, Step, torch.Tensor]] = field(default_factory=list)

    def gradient(self, z_t: torch.Tensor, step: Step) -> torch.Tensor:
        """Return what any guide does."""
        found = super().gradient(z_t, step)
        self.visited.append((z_t, step, found))
        return found


@contextmanager
def led(adapter: Path, dtype: str, device: str) -> Iterator[tuple[PlaceGuide, Start]]:
    """Lead an adapter's first two handles to the halves of a picture a seed."""
    studio = open_studio([adapter], base="mini", device=device, dtype=dtype)  # type: ignore[arg-type]
    handles = studio.adapters[0].handles[:2]
    boxes = zip(handles, BOXES, strict=True)
    control = Control(places=tuple(Place(handle, box) for handle, box in boxes))
    prompt = f"a photo of {' and '.join(handles)}"
    asked = [Request(prompt, seed, control=control) for seed in LED_SEEDS]
    text = encode(studio, asked)
    start = start_noise(studio, LED_SEEDS, check_size(studio, None))
    cells = Size.of(start.eps.shape)
    with steered(studio, [prompt] * len(asked), control, text=text, latents=cells) as guides:
        yield guides[0], start


def led_cosines(adapter: Path, device: str) -> Mapping[str, Mapping[str, Any]]:
    """Return, by dtype, the cosines of the gradients that lead things to their places.

    Each is taken where a drawing in float32 was before a move of its guided steps.
    """
    with led(adapter, "fp32", device) as (guide, start):
        exact = Remembering(guide.studio, guide.text, guide.places, guide.reader)
        denoise(guide.studio, guide.text, start, sampling=SAMPLING, guides=[exact])
    found = {}
    for dtype in CPU_DTYPES if device == "cpu" else DTYPES:
        with led(adapter, dtype, device) as (guide, _):
            angles = []
            for z_t, step, gradient in exact.visited:
                rough = guide.gradient(z_t.to(guide.studio.backbone.dtype), step)
                pair = (rough.float().flatten(1), gradient.flatten(1))
                angles += torch.cosine_similarity(*pair, dim=1).tolist()
        n, least = len(angles), min(angles)
        found[dtype] = {"gradients": n, "led": statistics.median(angles), "led_least": least}
    return found


def main() -> None:
    """Write one line a dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each phase")
    parser.add_argument("--led", type=Path, metavar="ADAPTER", help="of the embedded base")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(given.device)
    all_found = (
        led_cosines(given.led, given.device) if given.led else cosines(given.device, given.steps)
    )
    for dtype, found in all_found.items():
        write({"part": f"gradients in {dtype}", **found, **about}, given.out)


if __name__ == "__main__":
    main()
