"""Every switch that saves memory or time gives the plain path's loss and gradients."""

from __future__ import annotations

import functools

import pytest
import torch

from lora_scene.backbones.storage import store
from lora_scene.learning.lora import lora_parameters
from tests import tiny
from tests.learning import made

SUBSETS = ([0, 1], [1])
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measured(
    scene, *overrides: str, family: str = "sdxl", dtype: str = "fp32"
) -> tuple[float, torch.Tensor]:
    """Return a step's loss and all its gradients in one vector."""
    pipeline = tiny.pipeline(family)
    settings = made.recipe(family, "optimizer.name=adamw", *overrides)
    for part in (pipeline.unet, pipeline.vae, *_encoders(pipeline)):
        part.to(DTYPES[dtype])
    store(pipeline.unet, settings.base.quantization, device="cpu")
    bench = made.bench(pipeline, scene, settings)
    samples = [bench.sample(subset, seed=i) for i, subset in enumerate(SUBSETS)]
    with bench.objective() as objective:
        terms = objective(samples)
        terms.total.backward()
    parameters = [*bench.table.tables, *lora_parameters(bench.backbone)]
    assert all(p.dtype == torch.float32 for p in parameters)
    return float(terms.total.detach()), torch.cat([p.grad.flatten() for p in parameters])


def _encoders(pipeline) -> list[torch.nn.Module]:
    names = ("text_encoder", "text_encoder_2")
    return [getattr(pipeline, n) for n in names if getattr(pipeline, n, None) is not None]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_checkpointing_changes_neither_loss_nor_gradients(scene, family):
    loss, gradient = measured(scene, family=family)
    switched, other = measured(scene, "base.gradient_checkpointing=true", family=family)
    assert switched == pytest.approx(loss, rel=1e-5)
    assert relative(other, gradient) < 1e-4


@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
def test_graphs_of_compiled_blocks_change_neither_loss_nor_gradients(scene, monkeypatch):
    """Under adapters and checkpoints, as torch.compile sees them; fusing kernels takes minutes."""
    captured = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", captured)
    overrides = ("lora.conv_rank=2", "base.gradient_checkpointing=true")
    loss, gradient = measured(scene, *overrides, family="sd1")
    compiled, other = measured(scene, *overrides, "base.compile=true", family="sd1")
    assert compiled == pytest.approx(loss, rel=1e-5)
    assert relative(other, gradient) < 1e-4


@pytest.mark.parametrize(("dtype", "limit"), [("bf16", 0.06), ("fp16", 0.01)])
def test_half_precision_stays_within_its_rounding(scene, dtype, limit):
    """bf16 keeps 8 bits, fp16 11; tens of layers in a row add to the rounding of each."""
    loss, gradient = measured(scene)
    halved, other = measured(scene, dtype=dtype)
    assert halved == pytest.approx(loss, rel=limit)
    assert relative(other, gradient) < 2 * limit


@pytest.mark.parametrize(("quantization", "limit"), [("int8", 0.1), ("fp8", 0.5), ("nf4", 0.9)])
def test_low_bit_bases_give_a_gradient_that_points_the_same_way(scene, quantization, limit):
    loss, gradient = measured(scene, "lora.conv_rank=2")
    low, other = measured(scene, "lora.conv_rank=2", f"base.quantization={quantization}")
    assert low == pytest.approx(loss, rel=limit)
    assert torch.nn.functional.cosine_similarity(other, gradient, dim=0) > 1 - limit**2 / 2


def test_kept_encodings_change_nothing_but_time(scene, monkeypatch):
    pipeline = tiny.pipeline("sdxl")
    bench = made.bench(pipeline, scene, made.recipe("sdxl", "phase2.rows_lr=0"))
    calls = []
    encode = bench.backbone.encode_tokens
    monkeypatch.setattr(
        bench.backbone, "encode_tokens", lambda ids: calls.append(len(ids[0])) or encode(ids)
    )
    with bench.objective() as objective:
        samples = [bench.sample(SUBSETS[0])]
        first, n_calls = objective(samples).total, len(calls)
        second = objective(samples).total
    assert n_calls == len(calls) == 1
    assert torch.equal(first, second)
    fresh = made.bench(tiny.pipeline("sdxl"), scene, made.recipe("sdxl"))
    with fresh.objective() as objective:
        assert objective(samples).total.item() == pytest.approx(first.item(), rel=1e-6)


def test_rows_that_train_are_encoded_anew_each_time(scene, monkeypatch):
    bench = made.bench(tiny.pipeline("sd1"), scene, made.recipe("sd1"))
    with bench.objective() as objective:
        samples = [bench.sample(SUBSETS[0])]
        first = objective(samples).total
        bench.table.tables[0].data += 0.5
        assert not torch.equal(objective(samples).total, first)
