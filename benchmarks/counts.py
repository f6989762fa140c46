"""What a step asks of a device: kernels, bytes copied each way, waits, beside plain diffusers.

    python -m benchmarks.counts --out counts.jsonl

On the device that is not there, in float32, with AdamW in 32 bits. A training step is counted at
full depth and a tenth of the width: kernels come of layers, not of channels. Ours in both phases,
when the untouched base is asked about a draw and when its answer is kept; beside it a plain LoRA
step. A drawn step is that of the tiny pipelines: plain, placed and emphasised, led to its place;
beside it diffusers' own loop. Attention counts as plain mathematics, some kernels where a card has
one.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.records import circumstances, write
from tests.devices import absent

absent.register()  # before autograd is first used

from benchmarks.contenders import diffusers_lora, ours  # noqa: E402
from lora_scene.backbones.architectures import ARCHITECTURES, Architecture  # noqa: E402
from lora_scene.creating.choices import AdapterChoice  # noqa: E402
from lora_scene.creating.rendering import render  # noqa: E402
from lora_scene.creating.requests import Control, Place, Request, Sampling  # noqa: E402
from lora_scene.recipe import Recipe, load_recipe  # noqa: E402
from tests import tiny  # noqa: E402
from tests.adapters import made  # noqa: E402
from tests.creating import studios  # noqa: E402

RECIPES = {"sd15": "sd15", "sdxl": "sdxl-24gb"}
NARROWER = 10
WIDTH = 32  # of a text encoder, and of SDXL's pooled text
N_CONCEPTS = 3
PROMPT = "a photo of <bear> and <bowl>"
STEERED = Control(places=(Place("<bear>", (0, 0, 0.5, 1)),), emphases=(("<bowl>", 2.0),))
FIGURES = ("kernels", "uploads", "uploaded", "downloaded", "waits")


def narrow(architecture: Architecture) -> Architecture:
    """Return an architecture of the same layers with a tenth of the channels."""
    texts = tuple(
        {**text, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 4,
         "projection_dim": WIDTH, "vocab_size": 2000}
        for text in architecture.text_encoders
    )  # fmt: skip
    widths = tuple(n // NARROWER for n in architecture.unet["block_out_channels"])
    unet = {**architecture.unet, "block_out_channels": widths, "attention_head_dim": 8}
    unet["cross_attention_dim"] = WIDTH * len(texts)
    if len(texts) == 2:
        unet["projection_class_embeddings_input_dim"] = 6 * 256 + WIDTH
    vae = {**architecture.vae, "block_out_channels": (32,) * 4}
    return dataclasses.replace(architecture, unet=unet, vae=vae, text_encoders=texts)


def between(counts: absent.Counts, step: Callable[[], Any]) -> dict[str, int]:
    """Return what a step asks for."""
    before = [getattr(counts, name) for name in FIGURES]
    step()
    return {n: getattr(counts, n) - b for n, b in zip(FIGURES, before, strict=True)}


def training(counts: absent.Counts, name: str, phase: int) -> dict[str, dict[str, int]]:
    """Return a training step's counts: ours asking the base, ours with its answer kept, plain."""
    recipe: Recipe = load_recipe(
        RECIPES[name], ["base.dtype=fp32", "base.resolution=64", "prior.weight=0"]
    )
    same = {"phase": phase, "n_concepts": N_CONCEPTS, "device": absent.NAME}
    architecture = narrow(ARCHITECTURES[name])
    step = ours(architecture, recipe, draws=1, **same)
    plain = diffusers_lora(architecture, recipe, **same)
    asking = between(counts, step)
    plain()
    return {
        "ours, asking the base": asking,
        "ours, its answer kept": between(counts, step),
        "diffusers": between(counts, plain),
    }


def drawing(counts: absent.Counts, family: str) -> dict[str, dict[str, int]]:
    """Return a drawn step's counts, classifier-free guidance included."""
    pipeline = tiny.pipeline(family)
    adapter = made.adapter(pipeline, family, handles=studios.HANDLES)
    pipeline.to(absent.NAME)
    studio = studios.assemble_studio(pipeline, [AdapterChoice(adapter)], name="tiny")
    seen: list[list[int]] = []

    def tick(*_: Any) -> dict[str, Any]:
        seen.append([getattr(counts, name) for name in FIGURES])
        return {}

    def last() -> dict[str, int]:
        return dict(zip(FIGURES, (b - a for a, b in zip(*seen[-2:], strict=True)), strict=True))

    found = {}
    for name, control, n in (("ours", Control(), 2), ("ours, placed and emphasised", STEERED, 7)):
        render(studio, [Request(PROMPT, 3, sampling=Sampling(n, 3.0), control=control)], tick=tick)
        found[name] = last()
        if control is STEERED:
            guided = zip(FIGURES, (b - a for a, b in zip(*seen[-7:-5], strict=True)), strict=True)
            found["ours, led to its place"] = dict(guided)
    pipeline(PROMPT, num_inference_steps=2, output_type="latent", callback_on_step_end=tick)
    return {**found, "diffusers": last()}


def main() -> None:
    """Write a line a base, step and contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="*", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--drawn", nargs="*", default=["sd1", "sdxl"], choices=tiny.FAMILIES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about = circumstances(absent.NAME)
    with absent.absent_device() as counts:
        for name in given.bases:
            for phase in (1, 2):
                for who, figures in training(counts, name, phase).items():
                    write({"base": name, "step": f"phase {phase}", "of": who, **figures, **about},
                          given.out)  # fmt: skip
        for family in given.drawn:
            for who, figures in drawing(counts, family).items():
                write({"base": f"tiny {family}", "step": "drawn", "of": who, **figures, **about},
                      given.out)  # fmt: skip


if __name__ == "__main__":
    main()
