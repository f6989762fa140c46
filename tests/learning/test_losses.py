"""Each loss against its formula, written out in loops."""

from __future__ import annotations

import math

import pytest
import torch

from lora_scene.learning.losses import (
    cell_weights,
    map_confusion,
    map_error,
    map_similarity,
    weighted_error,
)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("normalize", ["none", "area"])
def test_weighted_error_is_the_written_out_mean(normalize):
    b, c, h, w = 2, 3, 4, 5
    prediction, target = noise(b, c, h, w), noise(b, c, h, w, seed=1)
    weight = noise(b, 1, h, w, seed=2)
    expected = []
    for i in range(b):
        total, area = 0.0, 0.0
        for y in range(h):
            for x in range(w):
                area += float(weight[i, 0, y, x])
                for channel in range(c):
                    error = float(prediction[i, channel, y, x] - target[i, channel, y, x])
                    total += float(weight[i, 0, y, x]) * error**2
        expected.append(total / c / (h * w if normalize == "none" else area))
    found = weighted_error(prediction, target, weight, normalize=normalize)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_weighted_error_of_a_binary_mask_is_the_published_product():
    prediction, target = noise(2, 4, 6, 6), noise(2, 4, 6, 6, seed=1)
    mask = (noise(2, 1, 6, 6, seed=2) > 0.5).double()
    published = (prediction * mask - target * mask).square().mean(dim=(1, 2, 3))
    found = weighted_error(prediction, target, mask)
    torch.testing.assert_close(found.double(), published, rtol=1e-6, atol=0)


def test_area_makes_a_small_concept_count_as_much_as_a_large_one():
    error = torch.ones(2, 4, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :2, :2], mask[1, :, :6, :6] = 1, 1
    small, large = weighted_error(error, error * 0, mask, normalize="area").tolist()
    assert small == large == 1.0
    small, large = weighted_error(error, error * 0, mask).tolist()
    assert large / small == pytest.approx(9)


def test_empty_mask_gives_no_loss_and_no_nan():
    error = torch.ones(1, 4, 8, 8)
    assert weighted_error(error, error * 0, torch.zeros(1, 1, 8, 8), normalize="area").item() == 0


def test_cell_weights_spare_the_concepts_that_are_not_drawn():
    drawn = torch.tensor([[[1.0, 0.0, 0.0, 0.4]]])
    every = torch.tensor([[[1.0, 0.0, 0.0, 0.4]], [[0.0, 1.0, 0.0, 0.5]]])
    found = cell_weights(drawn, every, 0.2).flatten().tolist()
    assert found == pytest.approx([1.0, 0.0, 0.2, 0.4])
    assert torch.equal(cell_weights(drawn, every, 0.0), drawn)


def test_cell_weights_of_several_concepts_are_their_pixelwise_maximum():
    masks = noise(3, 4, 4).float()
    found = cell_weights(masks[:2], masks, 0.0)
    for y in range(4):
        for x in range(4):
            assert found[0, y, x] == max(masks[0, y, x], masks[1, y, x])


def test_map_error_is_the_written_out_mean_of_maps_over_their_maximum():
    maps, masks = noise(3, 4, 4), (noise(3, 4, 4, seed=1) > 0.5).double()
    for k, found in enumerate(map_error(maps, masks).tolist()):
        peak = max(float(maps[k, y, x]) for y in range(4) for x in range(4))
        errors = [
            (float(maps[k, y, x]) / peak - float(masks[k, y, x])) ** 2
            for y in range(4)
            for x in range(4)
        ]
        assert found == pytest.approx(sum(errors) / 16, rel=1e-9)


def test_a_thin_mask_is_held_to_its_own_maximum():
    maps = torch.tensor([[[0.2, 0.1], [0.0, 0.0]]])
    assert map_error(maps, maps / maps.max() * 0.3) == pytest.approx(0, abs=1e-9)


def test_gradient_of_map_error_flows_through_the_maximum():
    maps = noise(1, 3, 3).requires_grad_(True)
    masks = (noise(1, 3, 3, seed=1) > 0.5).double()
    assert torch.autograd.gradcheck(lambda m: map_error(m, masks), maps)
    map_error(maps, masks).sum().backward()
    detached = maps.detach().clone().requires_grad_(True)
    peak = detached.detach().amax()
    (detached / peak - masks).square().mean().backward()
    assert not torch.allclose(maps.grad, detached.grad)


def test_map_of_zeros_gives_a_finite_loss():
    assert torch.isfinite(map_error(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))).all()


def test_map_confusion_is_the_written_out_cross_entropy():
    maps, masks = noise(2, 3, 3) + 0.1, (noise(2, 3, 3, seed=1) > 0.4).double()
    for k, found in enumerate(map_confusion(maps, masks).tolist()):
        total, area = 0.0, 0.0
        for y in range(3):
            for x in range(3):
                share = float(maps[k, y, x] / (maps[0, y, x] + maps[1, y, x]))
                total -= float(masks[k, y, x]) * math.log(share)
                area += float(masks[k, y, x])
        assert found == pytest.approx(total / area, rel=1e-6)


def test_map_confusion_of_a_single_handle_is_zero():
    assert map_confusion(noise(1, 4, 4), torch.ones(1, 4, 4)).tolist() == [0.0]


def test_map_similarity_is_the_mean_cosine_over_pairs():
    maps = noise(3, 4, 4)
    cosines = []
    for a in range(3):
        for b in range(a + 1, 3):
            product = float((maps[a] * maps[b]).sum())
            cosines.append(product / float(maps[a].norm() * maps[b].norm()))
    assert map_similarity(maps).item() == pytest.approx(sum(cosines) / 3, rel=1e-9)


def test_map_similarity_is_one_for_equal_maps_zero_for_disjoint_ones_and_for_one_handle():
    same = noise(1, 4, 4).repeat(2, 1, 1)
    assert map_similarity(same).item() == pytest.approx(1)
    apart = torch.zeros(2, 2, 2)
    apart[0, 0], apart[1, 1] = 1, 1
    assert map_similarity(apart).item() == 0
    assert map_similarity(same[:1]).item() == 0
