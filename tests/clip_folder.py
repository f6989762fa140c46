"""Random encoders in the real architectures, saved where the tests can load them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tests import tiny

SIDE = 64


def save_processor(kind: str, folder: Path) -> None:
    import transformers

    found = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
    sizes = {"size": {"height": SIDE, "width": SIDE}}
    if kind.startswith("CLIP"):
        sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    found(image_mean=[0.5] * 3, image_std=[0.25] * 3, **sizes).save_pretrained(folder)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """Save a random CLIP of 8 px patches."""
    folder = tmp_path_factory.mktemp("clip")
    tokens = tiny.tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=tiny.text_config(16, tokens).to_dict(),
            vision_config={
                **shape, "num_attention_heads": 4, "image_size": SIDE, "patch_size": 8,
                "projection_dim": 16,
            },
            projection_dim=16,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    save_processor("CLIPImageProcessor", folder)
    return folder
