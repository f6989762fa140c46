"""What the terms are made of, and what a batch does to them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from lora_scene.learning.lora import lora_parameters, without_lora
from lora_scene.learning.objective import LossTerms
from lora_scene.learning.step import Stepper
from lora_scene.recipe import load_recipe
from tests import tiny
from tests.learning import made


def ready(scene, *overrides, family="sd1", **options):
    settings = made.recipe("unused", "phase2.attention_weight=0.5", *overrides)
    return made.bench(tiny.pipeline(family), scene, settings, **options)


def loss_and_gradients(bench, *batches):
    """Return the mean total over batches, and the gradients of rows and adapters."""
    trained = [
        *bench.table.tables,
        *(p for pair in made.factors(bench.backbone.unet).values() for p in pair),
    ]
    with bench.objective() as objective:
        total = sum(objective(batch).total for batch in batches) / len(batches)
        gradients = torch.autograd.grad(total, trained)
    return total.item(), gradients


def predicted(bench, sample):
    """Return a sample's z_t and t, and what the base with its adapters makes of them."""
    b, t = bench.backbone, torch.tensor([sample.t])
    z_t = b.add_noise(sample.z[None], sample.eps[None], t)
    return z_t, t, b.denoise(z_t, t, b.encode_tokens(b.tokenize([sample.prompt])))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("masked_loss.normalize=area", "masked_loss.outside_weight=0.3"),
        ("attention_loss.form=across", "phase2.pairwise_weight=0.2"),
        ("masked_loss.outside_weight=0.3", "masked_loss.outside_target=base"),
    ],
    ids=["paper", "area", "across", "held to base"],
)
def test_accumulating_samples_equals_one_batch_of_mixed_subsets(family, overrides, scene):
    bench = ready(scene, *overrides, family=family)
    batch = [bench.sample((1,), seed=1, t=9), bench.sample((2, 0), seed=2), bench.sample((0, 1, 2))]
    together, whole = loss_and_gradients(bench, batch)
    apart, parts = loss_and_gradients(bench, *([sample] for sample in batch))
    assert together == pytest.approx(apart, rel=1e-5)
    for ours, theirs in zip(whole, parts, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_steps_gradient_is_the_mean_over_its_passes():
    weight = torch.zeros(1, requires_grad=True)
    passes = [LossTerms(*[(k + 1) * weight.sum()] * 5) for k in range(3)]
    stepper = SimpleNamespace(
        _materials=SimpleNamespace(recipe=load_recipe("sd15", ["run.accumulation=3"])),
        _accelerator=SimpleNamespace(backward=torch.Tensor.backward),
        _forward=lambda step, part: passes[part],
    )
    Stepper.gradients(stepper, 0)
    assert weight.grad.item() == pytest.approx((1 + 2 + 3) / 3)


def test_unmasked_loss_is_the_plain_mean(scene):
    bench = ready(scene, "masked_loss.enabled=false")
    sample = bench.sample((0,))
    with bench.objective() as objective:
        found = objective([sample]).diffusion
        b = bench.backbone
        text = b.encode_tokens(b.tokenize([sample.prompt]))
        t = torch.tensor([sample.t])
        predicted = b.denoise(b.add_noise(sample.z[None], sample.eps[None], t), t, text)
    torch.testing.assert_close(found, (predicted - sample.eps).square().mean())


def test_masked_loss_ignores_what_lies_outside_the_drawn_masks(scene):
    bench = ready(scene)
    sample = bench.sample((0,))
    outside = sample.variant.masks[0] == 0
    moved = dataclasses.replace(sample, eps=sample.eps + 0.0)
    with bench.objective() as objective:
        b = bench.backbone
        t = torch.tensor([sample.t])
        z_t = b.add_noise(sample.z[None], sample.eps[None], t)
        predicted = torch.zeros_like(z_t)
        target = b.target(sample.z[None], sample.eps[None], t)
        far = target + 100 * outside
        near = objective._diffusion([moved], predicted, target, None)
        assert torch.equal(objective._diffusion([moved], predicted, far, None), near)


def test_cells_outside_are_held_to_the_untouched_base(scene):
    bench = ready(scene, "masked_loss.outside_weight=1", "masked_loss.outside_target=base")
    sample = dataclasses.replace(bench.sample((0,)))
    with bench.objective() as objective, torch.no_grad():
        found = objective([sample]).diffusion
        z_t, t, adapted = predicted(bench, sample)
    plain = tiny.pipeline("sd1")
    with torch.no_grad():
        states, _ = plain.encode_prompt(sample.plain_prompt, "cpu", 1, False)
        held = plain.unet(z_t, t, encoder_hidden_states=states).sample
    mask = sample.variant.masks[0]
    target = mask * sample.eps + (1 - mask) * held
    torch.testing.assert_close(found, (adapted - target).square().mean(), rtol=1e-4, atol=0)
    assert not torch.allclose(adapted, held, atol=1e-3), "the adapters do nothing"


@pytest.mark.parametrize("has_background", [True, False])
def test_where_things_stand_on_grounds_those_left_out_are_held_to_nothing(has_background, scene):
    """In other samples; a background that is a concept is held to the base as ever."""
    if not has_background:
        [photo] = scene.photos
        photo = dataclasses.replace(photo, masks=photo.masks[:2])
        scene = dataclasses.replace(scene, concepts=scene.concepts[:2], photos=(photo,))
    base = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    bench = ready(scene, *base, "masked_loss.resize=area")
    sample = bench.sample((0,))
    masks = sample.variant.masks
    with bench.objective(has_grounds=True) as objective, torch.no_grad():
        found = objective([sample]).diffusion
        z_t, t, adapted = predicted(bench, sample)
        with without_lora(b := bench.backbone):
            held = b.denoise(z_t, t, b.encode_tokens(b.tokenize([sample.plain_prompt])))
    free = 1 - masks[:2].amax(dim=0)
    assert (free > 0).any()
    assert ((masks[1] == 1) & (masks[0] == 0)).any()
    target = masks[0] * sample.eps + (1 - masks[0]) * held
    expected = torch.maximum(masks[0], 0.5 * free) * (adapted - target).square()
    torch.testing.assert_close(found, expected.mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("target", ["data", "base"])
def test_a_things_ground_is_learnt_as_it_is_at_its_own_weight(target, scene):
    """Each sample against the loss that stands here, written out; the base is asked of one."""
    bench = ready(
        scene,
        "masked_loss.outside_weight=0.5",
        f"masked_loss.outside_target={target}",
        "grounds.outside_weight=0.25",
    )
    usual = bench.sample((0,), seed=1, t=9)
    moved = dataclasses.replace(bench.sample((1,), seed=2, t=700), on_ground=True)
    with bench.objective() as objective, torch.no_grad():
        found = objective([usual, moved]).diffusion
        alone = objective([usual]).diffusion
        _, _, adapted = predicted(bench, moved)
    mask = moved.variant.masks[1]
    error = (adapted[0] - moved.eps).square().mean(dim=0)
    expected = (torch.maximum(mask, 0.25 * (1 - mask)) * error).mean()
    torch.testing.assert_close(found, (alone + expected) / 2, rtol=1e-4, atol=0)


def test_base_is_not_asked_of_things_on_grounds(scene, monkeypatch):
    bench = ready(scene, "masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    usual, moved = bench.sample((0,), seed=1), bench.sample((1,), seed=2)
    moved = dataclasses.replace(moved, on_ground=True)
    asked, denoise = [], type(bench.backbone).denoise

    def watched(self, z_t, *args):
        asked.extend([len(z_t)] if not torch.is_grad_enabled() else [])
        return denoise(self, z_t, *args)

    monkeypatch.setattr(type(bench.backbone), "denoise", watched)
    with bench.objective() as objective:
        first = objective([usual, moved], None, (0, 0)).total.item()
        assert asked == [1]
        objective([moved, moved], None, (1, 0))
        assert objective([usual, moved], None, (0, 0)).total.item() == first
    assert asked == [1]


def test_base_is_asked_once_about_a_batch_that_comes_again(scene, monkeypatch):
    bench = ready(scene, "masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    first, second = [bench.sample((0,), seed=1)], [bench.sample((1,), seed=2)]
    asked = []
    denoise = type(bench.backbone).denoise

    def watched(self, *args):
        asked.append(not torch.is_grad_enabled())
        return denoise(self, *args)

    monkeypatch.setattr(type(bench.backbone), "denoise", watched)
    with bench.objective() as objective:
        fresh = [objective(batch).total.item() for batch in (first, second, first)]
        assert sum(asked) == 3
        drawn = [(first, (0, 0)), (second, (1, 0)), (first, (0, 0)), (second, (1, 0))]
        again = [objective(batch, None, draw).total.item() for batch, draw in drawn]
    assert sum(asked) == 5
    assert again == [*fresh[:2], *fresh[:2]]


def test_without_lora_trains_no_factor_that_was_not_trained_before(scene):
    bench = made.bench(tiny.pipeline("sd1"), scene, made.recipe("tiny"))
    first, *others = lora_parameters(bench.backbone)
    for factor in others:
        factor.requires_grad_(False)
    with without_lora(bench.backbone):
        pass
    assert first.requires_grad
    assert not any(factor.requires_grad for factor in others)


def test_without_lora_is_the_base_bit_for_bit_and_restores_the_adapters(scene):
    bench = ready(scene)
    plain = tiny.pipeline("sd1").unet
    z, t = torch.randn(1, 4, 16, 16), torch.tensor([5])
    text = torch.randn(1, 24, 32)
    with torch.no_grad():
        adapted = bench.backbone.unet(z, t, text).sample
        with without_lora(bench.backbone):
            assert torch.equal(bench.backbone.unet(z, t, text).sample, plain(z, t, text).sample)
        assert torch.equal(bench.backbone.unet(z, t, text).sample, adapted)
    assert not torch.equal(adapted, plain(z, t, text).sample)


def test_dropout_acts_in_training_alone(scene):
    bench = ready(scene, "lora.dropout=0.5")
    sample = [bench.sample((0,))]
    with bench.objective() as objective, torch.no_grad():
        assert objective(sample).total != objective(sample).total
        bench.backbone.unet.eval()
        assert objective(sample).total == objective(sample).total


@pytest.mark.parametrize("overrides", [(), ("lora.alpha=2",)])
def test_lora_adds_its_scaled_product(overrides, scene):
    bench = ready(scene, *overrides)
    lora = bench.settings.lora
    scale = (lora.alpha or lora.rank) / lora.rank
    name, (down, up) = next(iter(made.factors(bench.backbone.unet).items()))
    layer = bench.backbone.unet.get_submodule(name)
    x = torch.randn(3, layer.in_features)
    expected = layer.base_layer(x) + scale * (x @ down.T) @ up.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_lora_sits_on_every_projection_of_both_attentions(family, scene):
    bench = ready(scene, family=family)
    blocks = [n for n, _ in bench.backbone.unet.named_modules() if n.endswith((".attn1", ".attn2"))]
    expected = {f"{b}.{leaf}" for b in blocks for leaf in ("to_q", "to_k", "to_v", "to_out.0")}
    assert made.factors(bench.backbone.unet).keys() == expected


def test_cross_attention_alone_can_be_adapted(scene):
    bench = ready(scene, "lora.attention=cross", 'lora.targets=["to_k", "to_v"]')
    names = made.factors(bench.backbone.unet)
    assert names
    assert all(name.endswith((".attn2.to_k", ".attn2.to_v")) for name in names)
