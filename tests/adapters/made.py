"""Random adapters for tiny pipelines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept, LoraModule, TrainingInfo
from lora_scene.backbones.families import FAMILIES

UNET_SUFFIXES = ("to_q", "to_k", "to_v", "to_out.0")
CONV_SUFFIXES = ("conv1", "conv2")
TEXT_SUFFIXES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

INFO = TrainingInfo(
    base_model="someone/tiny-base",
    base_hash="ab" * 32,
    prediction_type="epsilon",
    resolution=64,
    recipe_name="sd15",
    recipe_toml="[learning]\nrank = 4\n",
    seed=7,
    steps=(400, 300),
    versions={"torch": "2.13.0", "diffusers": "0.42.1"},
    image_hashes=("cd" * 32,),
)


def module_keys(pipe: Any, family: str, *, text: bool, conv: bool = False) -> list[str]:
    keys = [
        f"unet.{name}"
        for name, _ in pipe.unet.named_modules()
        if (".attn" in name and name.endswith(UNET_SUFFIXES))
        or (conv and ".resnets." in name and name.endswith(CONV_SUFFIXES))
    ]
    if text:
        for part in FAMILIES[family].text_encoders:
            for name, _ in getattr(pipe, part).named_modules():
                if name.endswith(TEXT_SUFFIXES):
                    path = name if name.startswith("text_model.") else f"text_model.{name}"
                    keys.append(f"{part}.{path}")
    return keys


def layer(pipe: Any, key: str) -> Any:
    part, _, path = key.partition(".")
    component = getattr(pipe, part)
    if not hasattr(component, "text_model"):
        path = path.removeprefix("text_model.")
    return component.get_submodule(path)


def adapter(
    pipe: Any,
    family: str,
    *,
    handles: tuple[str, ...] = ("<bear>", "<bowl>"),
    n_vectors: int = 1,
    kind: str = "lora",
    text: bool = False,
    unet: bool = True,
    seed: int = 1,
    strength: float = 0.3,
) -> Adapter:
    """Build an adapter.

    `kind` is lora, ranks (differing ranks and alphas), or conv (convolutions too).
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * strength

    modules = {}
    keys = module_keys(pipe, family, text=text, conv=kind == "conv")
    for index, key in enumerate(keys if unet else []):
        base = layer(pipe, key)
        rank = (2, 4, 3)[index % 3] if kind == "ranks" else 4
        if key.endswith(CONV_SUFFIXES):
            modules[key] = LoraModule(
                down=noise(2, base.in_channels, *base.kernel_size) * 0.3,
                up=noise(base.out_channels, 2, 1, 1),
                alpha=3.0,
            )
            continue
        modules[key] = LoraModule(
            down=noise(rank, base.in_features),
            up=noise(base.out_features, rank),
            alpha=float(1 + index % 2) if kind == "ranks" else 3.0,  # no scale of 1
        )
    concepts = tuple(
        LearnedConcept(
            handle,
            f"noun {index}",
            rows=tuple(
                noise(n_vectors, getattr(pipe, part).get_input_embeddings().embedding_dim)
                for part in FAMILIES[family].text_encoders
            ),
            is_background=index == 1,
        )
        for index, handle in enumerate(handles)
    )
    prediction = "v_prediction" if family == "sd2" else "epsilon"
    return Adapter(family, concepts, modules, replace(INFO, prediction_type=prediction))


def update(module: LoraModule) -> torch.Tensor:
    """Return what the factors add to the layer's weight, in float64."""
    rank = module.down.shape[0]
    scale = module.alpha / rank
    up, down = module.up.double(), module.down.double()
    if down.ndim == 2:
        return scale * up @ down
    return scale * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)


def draw(pipe: Any, prompt: str = "a photo of <bear> and <bowl>", **kwargs: Any) -> torch.Tensor:
    """Return the latents of two steps, (1, 4, 16, 16)."""
    return pipe(
        prompt,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(0),
        **kwargs,
    ).images.float()
