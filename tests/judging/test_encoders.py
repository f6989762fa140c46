from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SwinConfig, SwinModel, ViTConfig, ViTModel

from lora_scene.errors import JudgingError
from lora_scene.judging.encoders import ClipEncoder, DinoEncoder
from tests.clip_folder import SIDE, save_processor

WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}


class _Touch:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("encoder", [ClipEncoder, DinoEncoder])
def test_a_judge_that_is_a_pickle_is_refused_and_not_opened(clip_folder, tmp_path, encoder) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch(tmp_path / "opened")))
    with pytest.raises(JudgingError, match=r"cannot be had(.|\n)*no pickles"):
        encoder(folder)
    assert not (tmp_path / "opened").exists()


@pytest.fixture
def dino(tmp_path) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(**WIDTHS, num_attention_heads=4, image_size=SIDE, patch_size=16)
    ViTModel(config).save_pretrained(tmp_path / "dino")
    save_processor("ViTImageProcessor", tmp_path / "dino")
    return tmp_path / "dino"


def without_weights(folder: Path, to: Path, part: str) -> Path:
    """Copy a network's folder, but for the weights whose names hold `part`."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, to / "model.safetensors", {"format": "pt"})
    return to


@pytest.mark.parametrize("part", ["text_model.", "visual_projection", "layers.1.mlp.fc1.bias"])
def test_weights_that_are_missing_are_not_drawn_at_random(clip_folder, tmp_path, part) -> None:
    with pytest.raises(JudgingError, match=rf"lacks \d+ of its weights(.|\n)*no .*{part}"):
        ClipEncoder(without_weights(clip_folder, tmp_path / "cut", part))


def test_weights_that_no_embedding_reads_may_be_missing(dino, tmp_path) -> None:
    """facebook/dino-vitb16 has none of a pooler."""
    cut = DinoEncoder(without_weights(dino, tmp_path / "cut", "pooler"))
    picture = [np.full((SIDE, SIDE, 3), 200, np.uint8)]
    np.testing.assert_array_equal(
        cut.embed_pictures(picture), DinoEncoder(dino).embed_pictures(picture)
    )
    with pytest.raises(JudgingError, match="of its weights"):
        DinoEncoder(without_weights(dino, tmp_path / "worse", "layernorm_after.weight"))


def test_a_missing_tokenizer_is_refused_not_taken_as_empty(clip_folder, tmp_path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(JudgingError, match=r"its files are missing(.|\n)*expected"):
        ClipEncoder(folder)


def test_a_network_that_embeds_no_pictures_by_a_class_token_is_refused(
    clip_folder, tmp_path
) -> None:
    config = SwinConfig(image_size=SIDE, patch_size=8, embed_dim=8, depths=[1], num_heads=[2])
    SwinModel(config).save_pretrained(tmp_path / "swin")
    save_processor("ViTImageProcessor", tmp_path / "swin")
    with pytest.raises(JudgingError, match=r"without a class token(.|\n)*SwinModel"):
        DinoEncoder(tmp_path / "swin")
    shutil.copytree(clip_folder, tmp_path / "clip")
    save_processor("ViTImageProcessor", tmp_path / "clip")
    with pytest.raises(JudgingError, match="DINO cannot embed pictures"):
        DinoEncoder(tmp_path / "clip")
