"""The adapters themselves: where they sit and what they add."""

from __future__ import annotations

import pytest
import torch

from lora_scene.learning.lora import learned_modules, remove_lora
from tests import tiny
from tests.adapters import made as adapters
from tests.learning import made


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_adapters_on_convolutions_add_their_product_to_the_kernels(scene, family):
    settings = made.recipe("unused", "lora.rank=3", "lora.conv_rank=2", "lora.alpha=5")
    bench = made.bench(tiny.pipeline(family), scene, settings)
    modules = learned_modules(bench.backbone)
    unet, plain = bench.backbone.unet, tiny.pipeline(family).unet
    residual = {f"unet.{name}" for name, _ in plain.named_modules() if _is_residual(name)}
    assert residual
    assert {key for key, module in modules.items() if module.down.ndim == 4} == residual
    assert all(module.rank == (2 if key in residual else 3) for key, module in modules.items())

    noise = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 16, 16, generator=noise)
    text = torch.randn(2, 7, unet.config.cross_attention_dim, generator=noise)
    added = None
    if family == "sdxl":
        width = bench.backbone.text_encoders[1].config.projection_dim
        added = {"text_embeds": torch.zeros(2, width), "time_ids": torch.ones(2, 6)}
    t = torch.tensor([10, 900])
    with torch.no_grad():
        adapted = unet(z, t, text, added_cond_kwargs=added).sample
        for key, module in modules.items():
            layer = plain.get_submodule(key.removeprefix("unet."))
            layer.weight += adapters.update(module).float()
        assert torch.allclose(adapted, plain(z, t, text, added_cond_kwargs=added).sample, atol=1e-4)
        remove_lora(bench.backbone)
        untouched = tiny.pipeline(family).unet(z, t, text, added_cond_kwargs=added).sample
        assert torch.equal(unet(z, t, text, added_cond_kwargs=added).sample, untouched)
    assert not torch.allclose(adapted, untouched, atol=1e-2)


@pytest.mark.parametrize(("alpha", "scale"), [(0, 1), (8, 1), (4, 0.5), (12, 1.5)])
def test_one_alpha_is_one_scale_of_attention_convolutions_and_text_encoders(alpha, scale, scene):
    """It was divided by the rank of each: at the alpha of rank 8, convolutions of rank 2 had 4."""
    ranks = ("lora.rank=8", "lora.conv_rank=2", "lora.text_encoder_rank=3")
    settings = made.recipe("unused", *ranks, f"lora.alpha={alpha}")
    modules = learned_modules(made.bench(tiny.pipeline("sd1"), scene, settings).backbone)
    assert {module.rank for module in modules.values()} == {8, 2, 3}
    for key, module in modules.items():
        assert module.alpha / module.rank == pytest.approx(scale), key


def _is_residual(name: str) -> bool:
    return ".resnets." in name and name.endswith(("conv1", "conv2"))
