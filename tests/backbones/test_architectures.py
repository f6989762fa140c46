from __future__ import annotations

import pytest
import torch

from lora_scene.backbones.architectures import ARCHITECTURES, find_architecture, meta_backbone
from lora_scene.errors import BackboneError
from tests import tiny

PUBLISHED = {  # parameters of the published checkpoints: UNet, text encoders
    "sd15": (859_520_964, [123_060_480]),
    "sd21": (865_910_724, [340_387_840]),
    "sdxl": (2_567_463_684, [123_060_480, 694_659_840]),
}
PUBLISHED_VAE = 83_653_863


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_embedded_architectures_have_as_many_parameters_as_the_published_ones(name):
    backbone = meta_backbone(ARCHITECTURES[name], dtype=torch.bfloat16)
    assert n_parameters(backbone.unet) == PUBLISHED[name][0]
    assert [n_parameters(e) for e in backbone.text_encoders] == PUBLISHED[name][1]
    assert n_parameters(backbone.vae) == PUBLISHED_VAE
    assert backbone.resolution == {"sd15": 512, "sd21": 512, "sdxl": 1024}[name]
    assert all(p.is_meta for p in backbone.unet.parameters())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_folder_is_described_by_its_own_configurations(bases, family):
    backbone = meta_backbone(find_architecture(bases[family]), dtype=torch.float32)
    pipeline = tiny.pipeline(family)
    assert backbone.family.key == family
    assert n_parameters(backbone.unet) == n_parameters(pipeline.unet)
    assert n_parameters(backbone.vae) == n_parameters(pipeline.vae)


def test_a_usual_hub_id_is_known_and_another_is_refused_with_what_is_known():
    known = find_architecture("stabilityai/stable-diffusion-xl-base-1.0")
    assert known is ARCHITECTURES["sdxl"]
    with pytest.raises(BackboneError, match="sd21-768"):
        find_architecture("somebody/else")
