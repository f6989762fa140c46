"""Three ways to make a training step, on random weights in real shapes: cost does not ask values.

- `ours`: this package's trainer, on a scene without pictures.
- `reference`: the published algorithm restated: whole UNet and text encoders trained, the whole
  vocabulary matrix with them, explicit softmax in every attention layer, a prior picture beside
  every picture, AdamW in 32 bits, mixed precision.
- `diffusers`: a plain LoRA step as diffusers' examples make it: one picture, no masks, no maps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_scene.backbones.architectures import Architecture, meta_backbone
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import resolve_dtype
from lora_scene.backbones.storage import store
from lora_scene.backbones.switches import switch_on
from lora_scene.learning.losses import weighted_error
from lora_scene.learning.optimizers import build_optimizers
from lora_scene.learning.simulation import trainer_of
from lora_scene.recipe import Recipe
from lora_scene.size import Size

SMALLER = 5  # `small` divides channels by it


def small(architecture: Architecture) -> Architecture:
    """Return the same architecture with fewer channels, layers of text and words."""
    unet = dict(architecture.unet)
    unet["block_out_channels"] = tuple(c // SMALLER for c in unet["block_out_channels"])
    layers = unet.get("transformer_layers_per_block")
    if layers:
        unet["transformer_layers_per_block"] = tuple(min(n, 2) for n in layers)
    if not isinstance(unet["attention_head_dim"], int):
        unet["attention_head_dim"] = 8
    texts = tuple(
        {**text, "num_hidden_layers": 4, "vocab_size": 49408 // 16}
        for text in architecture.text_encoders
    )
    vae = {**architecture.vae, "block_out_channels": (32, 32, 32, 32)}
    return Architecture(f"small {architecture.name}", unet, vae, texts)


def base_dtype(recipe: Recipe, device: str) -> torch.dtype:
    """Return what a recipe's base is stored in: what training takes on a card, else bf16."""
    is_assumed = recipe.base.dtype == "auto" and not device.startswith("cuda")
    return resolve_dtype("bf16" if is_assumed else recipe.base.dtype, device)


def random_backbone(
    architecture: Architecture, recipe: Recipe, device: str, *, drawn_on: str = ""
) -> Backbone:
    """Fill an architecture with random numbers; layers keep the size of what they are given."""
    backbone = meta_backbone(
        architecture,
        dtype=base_dtype(recipe, drawn_on or device),
        resolution=recipe.base.resolution,
    )
    torch.manual_seed(0)
    for part in (backbone.unet, *backbone.text_encoders):
        part.to_empty(device=device)
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                kind = {"device": drawn_on or device, "dtype": parameter.dtype}
                drawn = torch.randn(parameter.shape, **kind)  # a GPU draws billions in a moment
                parameter.data.copy_(drawn.mul_(parameter[0].numel() ** -0.5))
            else:
                parameter.data.fill_(float("norm" in name and name.endswith("weight")))
        for name, buffer in part.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1], device=device))
    switch_on(backbone.unet, recipe.base, device=device)
    return backbone


def ours(
    architecture: Architecture,
    recipe: Recipe,
    *,
    phase: int,
    n_concepts: int,
    device: str,
    draws: int = 0,
) -> Callable[[], None]:
    """Prepare this package's step of a phase: the trainer's own.

    The base is asked for its prediction in the first `draws` steps, of 0 in all.
    """
    phases = {
        f"phase{n}": dataclasses.replace(p, draws=draws) for n, p in enumerate(recipe.phases, 1)
    }
    recipe = dataclasses.replace(recipe, **phases)
    kind = recipe.base.quantization
    place = device if kind == "none" else "cpu"
    backbone = random_backbone(architecture, recipe, place, drawn_on=device)
    store(backbone.unet, kind, device=device)  # a layer at a time is on the device in full
    backbone.place(device)
    trainer = trainer_of(backbone, recipe, n_concepts)
    kept = contextlib.ExitStack()  # for as long as the step is
    kept.enter_context(trainer.table.spliced())
    stepper = trainer.stepper(phase)
    kept.enter_context(stepper.attached())
    numbers = itertools.count()

    def step() -> None:
        assert not stepper(next(numbers)).fault, kept

    return step


def reference(
    architecture: Architecture, recipe: Recipe, *, phase: int, n_concepts: int, device: str
) -> Callable[[], None]:
    """Prepare the published algorithm's step: in phase 1 its vocabulary matrix alone trains."""
    from diffusers.models.attention_processor import AttnProcessor

    backbone = random_backbone(architecture, recipe, device)
    dtype = backbone.dtype
    tables = [encoder.get_input_embeddings().weight for encoder in backbone.text_encoders]
    trained = list(tables)
    if phase == 2:
        trained += list(backbone.unet.parameters())
        trained += [p for e in backbone.text_encoders for p in e.parameters()]
    trained = list(dict.fromkeys(trained))
    for parameter in trained:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    kept: list[Tensor] = []

    class Explicit(AttnProcessor):
        """Softmax spelt out, as the published code does in every layer; cross maps are kept."""

        def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            attend = attn.get_attention_scores

            def watched(*given: Any) -> Tensor:
                probabilities: Tensor = attend(*given)
                if probabilities.shape[-1] == 77:
                    kept.append(probabilities)
                return probabilities

            attn.get_attention_scores = watched
            try:
                out: Tensor = super().__call__(attn, hidden_states, *args, **kwargs)
            finally:
                attn.get_attention_scores = attend
            return out

    backbone.unet.set_attn_processor(Explicit())
    optimizer = torch.optim.AdamW(trained, lr=2e-6, weight_decay=0.01)
    inputs = _inputs(backbone, device, n=2)
    for part in (backbone.unet, *backbone.text_encoders):
        part.train()

    def step() -> None:
        kept.clear()
        ids, z_t, t, target, weight = inputs()
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            prediction = backbone.denoise(z_t, t, backbone.encode_tokens(ids))
        loss = weighted_error(prediction, target, weight).sum()
        side = min(round(maps.shape[1] ** 0.5) for maps in kept)
        for maps in (m for m in kept if round(m.shape[1] ** 0.5) == 2 * side):
            loss = loss + 0.01 * maps[..., 1 : 1 + n_concepts].float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def diffusers_lora(
    architecture: Architecture, recipe: Recipe, *, phase: int, n_concepts: int, device: str
) -> Callable[[], None]:
    """Prepare a plain LoRA step under autocast: text frozen, no masks, no maps."""
    from peft import LoraConfig

    backbone = random_backbone(architecture, recipe, device)
    dtype, rank = backbone.dtype, recipe.lora.rank
    targets = list(recipe.lora.targets)
    backbone.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
    weights = [p for p in backbone.unet.parameters() if p.requires_grad]
    for weight in weights:
        weight.data = weight.data.float()
    settings = dataclasses.replace(recipe.phase2, rows_lr=0.0)
    (optimizer,) = build_optimizers([], weights, recipe.optimizer, phase=settings, notice=print)
    inputs = _inputs(backbone, device, n=1)
    backbone.unet.train()

    def step() -> None:
        ids, z_t, t, target, _ = inputs()
        with torch.no_grad():
            text = backbone.encode_tokens(ids)
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            prediction = backbone.denoise(z_t, t, text)
        F.mse_loss(prediction.float(), target).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


CONTENDERS = {
    "ours": partial(ours, draws=1),
    "ours, asking": ours,
    "reference": reference,
    "diffusers": diffusers_lora,
}


def _inputs(backbone: Backbone, device: str, *, n: int) -> Callable[[], Any]:
    """Return a function that draws a batch: ids, latents, timesteps, target, weights."""
    canvas = backbone.canvas()
    cells = canvas.latents(canvas.size_for(Size(1, 1))).rows_columns
    words = [e.get_input_embeddings().weight.shape[0] for e in backbone.text_encoders]

    def draw() -> Any:
        ids = tuple(torch.randint(0, count, (n, 77)) for count in words)
        z_t = torch.randn(n, backbone.latent_channels, *cells, device=device)
        t = torch.randint(0, 1000, (n,), device=device)
        weight = torch.ones(n, 1, *cells, device=device)
        return ids, z_t, t, torch.randn_like(z_t), weight

    return draw
