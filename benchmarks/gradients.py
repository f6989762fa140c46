"""How far the gradients of a training step in 16 bits turn from those in 32, on the mini base.

python -m benchmarks.gradients --device cpu
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.records import circumstances
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import load_pipeline
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import encode_variants
from lora_scene.learning.phases import Trainer
from lora_scene.learning.step import Materials
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene

SCENE = Path(__file__).parents[1] / "lora_scene" / "scenes" / "demo"
STEPS = 8
DTYPES = ("bf16", "fp16")
CPU_DTYPES = ("bf16",)  # it has no float16 training


def gradients(dtype: str, device: str) -> dict[str, torch.Tensor]:
    """Return the summed gradients of some steps of each phase: of the rows, and of the factors."""
    recipe = load_recipe("mini", [f"base.dtype={dtype}"])
    scene = load_scene(SCENE)
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
    found = {}
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
            with stepper.attached():
                for step in range(STEPS):
                    stepper.gradients(step)
            trained = trainer.weights if number == 2 else list(table.tables)
            parts = [weight.grad.flatten().cpu() for weight in trained if weight.grad is not None]
            found[name] = torch.cat(parts).double()
            for weight in trainer.parameters():
                weight.grad = None
    return found


def cosines(device: str) -> Mapping[str, Mapping[str, Any]]:
    """Return, by dtype, the cosine of its gradients with those in float32."""
    exact = gradients("fp32", device)
    found = {}
    for dtype in CPU_DTYPES if device == "cpu" else DTYPES:
        rough = gradients(dtype, device)
        found[dtype] = {
            name: float(torch.cosine_similarity(rough[name], exact[name], dim=0)) for name in exact
        }
    return found


def main() -> None:
    """Print the cosines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    print(json.dumps({**cosines(given.device), **circumstances(given.device)}))


if __name__ == "__main__":
    main()
