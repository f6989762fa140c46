"""Key lists of full-size bases, on the meta device, against what ComfyUI and A1111 accept.

The names on their side are built here from the original (ldm) numbering of the blocks, not from
diffusers' modules.
"""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.formats.diffusers import to_diffusers
from lora_scene.adapters.formats.kohya import to_kohya
from lora_scene.backbones.families import FAMILIES
from tests.adapters import made

# blocks with attention at each level (down, mid, up), as transformer blocks a layer
DEPTHS = {
    "sd1": {"down": (1, 1, 1, 0), "mid": 1, "up": (0, 1, 1, 1)},
    "sd2": {"down": (1, 1, 1, 0), "mid": 1, "up": (0, 1, 1, 1)},
    "sdxl": {"down": (0, 2, 10), "mid": 10, "up": (10, 2, 0)},
}
N_TEXT_LAYERS = {"sd1": (12,), "sd2": (23,), "sdxl": (12, 32)}
N_UNET_MODULES = {"sd1": 128, "sd2": 128, "sdxl": 560}
LAYERS_PER_BLOCK = 2


class Parts:
    """The modules of a full-size base that carry LoRA."""

    def __init__(self, family):
        wide = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family]
        with torch.device("meta"):
            if family == "sdxl":
                self.unet = UNet2DConditionModel(
                    block_out_channels=(320, 640, 1280),
                    down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
                    up_block_types=(*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
                    transformer_layers_per_block=(1, 2, 10),
                    attention_head_dim=(5, 10, 20),
                    cross_attention_dim=wide,
                    use_linear_projection=True,
                    addition_embed_type="text_time",
                    addition_time_embed_dim=256,
                    projection_class_embeddings_input_dim=2816,
                )
            else:
                self.unet = UNet2DConditionModel(
                    cross_attention_dim=wide,
                    attention_head_dim=8 if family == "sd1" else (5, 10, 20, 20),
                    use_linear_projection=family == "sd2",
                )
            self.text_encoder = CLIPTextModel(text(768 if family != "sd2" else 1024, family))
            if family == "sdxl":
                self.text_encoder_2 = CLIPTextModelWithProjection(text(1280, family))


def text(width, family):
    heads = {768: 12, 1024: 16, 1280: 20}[width]
    n_layers = N_TEXT_LAYERS[family][-1 if width == 1280 else 0]
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=n_layers,
        num_attention_heads=heads,
        vocab_size=100,
    )


def modules(family):
    parts = Parts(family)
    found = {}
    for key in made.module_keys(parts, family, text=True):
        base = made.layer(parts, key)
        assert isinstance(base, torch.nn.Linear), key
        found[key] = LoraModule(
            down=torch.empty(1, base.in_features, device="meta"),
            up=torch.empty(base.out_features, 1, device="meta"),
            alpha=1.0,
        )
    return found


LINEARS = [f"attn{a}_to_{x}" for a in (1, 2) for x in ("q", "k", "v", "out_0")]


def ldm_names(family):
    """Return the attention layers' names in the original numbering."""
    depths, names = DEPTHS[family], set()

    def add(block, depth):
        for layer in range(depth):
            names.update(f"{block}_1_transformer_blocks_{layer}_{linear}" for linear in LINEARS)

    n_levels = len(depths["down"])
    for level in range(n_levels):
        for layer in range(LAYERS_PER_BLOCK):
            add(f"input_blocks_{1 + 3 * level + layer}", depths["down"][level])
        for layer in range(LAYERS_PER_BLOCK + 1):
            add(f"output_blocks_{3 * level + layer}", depths["up"][level])
    add("middle_block", depths["mid"])
    return names


def comfyui_names(family):
    """Name what ComfyUI's key map holds: diffusers' block names and CLIP's layer names."""
    names = set()
    for name in ldm_names(family):
        kind, _, rest = name.partition("_blocks_")
        if kind.startswith("middle"):
            rest = name.removeprefix("middle_block_1_")
            names.add(f"lora_unet_mid_block_attentions_0_{rest}")
            continue
        number, _, rest = rest.partition("_1_")
        shift = 1 if kind == "input" else 0
        level, layer = divmod(int(number) - shift, 3)
        side = "down" if kind == "input" else "up"
        names.add(f"lora_unet_{side}_blocks_{level}_attentions_{layer}_{rest}")
    prefixes = ("lora_te1", "lora_te2") if family == "sdxl" else ("lora_te",)
    for prefix, n_layers in zip(prefixes, N_TEXT_LAYERS[family], strict=True):
        for layer in range(n_layers):
            for linear in (
                "mlp_fc1", "mlp_fc2", "self_attn_k_proj", "self_attn_q_proj", "self_attn_v_proj",
                "self_attn_out_proj",
            ):  # fmt: skip
                names.add(f"{prefix}_text_model_encoder_layers_{layer}_{linear}")
    return names


def a1111_name(key):
    """Convert a UNet key as A1111 does, by the place of the block."""
    name = key.removeprefix("lora_unet_")
    if match := re.fullmatch(r"down_blocks_(\d+)_attentions_(\d+)_(.+)", name):
        return f"input_blocks_{1 + 3 * int(match[1]) + int(match[2])}_1_{match[3]}"
    if match := re.fullmatch(r"mid_block_attentions_(\d+)_(.+)", name):
        return f"middle_block_1_{match[2]}"
    match = re.fullmatch(r"up_blocks_(\d+)_attentions_(\d+)_(.+)", name)
    return f"output_blocks_{3 * int(match[1]) + int(match[2])}_1_{match[3]}"


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_key_is_one_that_comfyui_and_a1111_accept(family):
    tensors = to_kohya(modules(family), FAMILIES[family])
    names = {key.split(".", 1)[0] for key in tensors}
    assert {key.split(".", 1)[1] for key in tensors} == {
        "lora_down.weight", "lora_up.weight", "alpha",
    }  # fmt: skip
    unet = {name for name in names if name.startswith("lora_unet_")}
    assert len(unet) == N_UNET_MODULES[family]
    assert names == comfyui_names(family)
    assert {a1111_name(name) for name in unet} == ldm_names(family)


def ldm_convolutions(family):
    """Return the residual blocks' 3x3 convolutions in the original numbering."""
    n_levels = len(DEPTHS[family]["down"])
    blocks = [f"middle_block_{place}" for place in (0, 2)]
    for level in range(n_levels):
        blocks += [f"input_blocks_{1 + 3 * level + i}_0" for i in range(LAYERS_PER_BLOCK)]
        blocks += [f"output_blocks_{3 * level + i}_0" for i in range(LAYERS_PER_BLOCK + 1)]
    return {f"{block}_{leaf}" for block in blocks for leaf in ("in_layers_2", "out_layers_3")}


def a1111_convolution(key):
    """Convert a residual block's key as A1111 does."""
    match = re.fullmatch(
        r"lora_unet_(down|mid|up)_blocks?_(?:(\d+)_)?resnets_(\d+)_(conv[12])", key
    )
    side, level, layer = match[1], int(match[2] or 0), int(match[3])
    block = {
        "down": f"input_blocks_{1 + 3 * level + layer}_0",
        "mid": f"middle_block_{2 * layer}",
        "up": f"output_blocks_{3 * level + layer}_0",
    }[side]
    leaf = {"conv1": "in_layers_2", "conv2": "out_layers_3"}[match[4]]
    return f"{block}_{leaf}"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_convolutions_have_keys_that_interfaces_accept(family):
    found = {
        key: LoraModule(torch.empty(1, 4, 3, 3), torch.empty(4, 1, 1, 1), alpha=1.0)
        for key in made.module_keys(Parts(family), family, text=False, conv=True)
        if ".resnets." in key
    }
    names = {key.split(".", 1)[0] for key in to_kohya(found, FAMILIES[family])}
    assert {a1111_convolution(name) for name in names} == ldm_convolutions(family)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_diffusers_file_names_the_stock_models_modules(family):
    found = modules(family)
    tensors = to_diffusers(found)
    assert len(tensors) == 2 * len(found)
    n_text = 6 * sum(N_TEXT_LAYERS[family])
    assert len(found) == N_UNET_MODULES[family] + n_text
    assert all(
        key.startswith("unet.") or re.match(r"text_encoder(_2)?\.text_model\.encoder\.", key)
        for key in tensors
    )
