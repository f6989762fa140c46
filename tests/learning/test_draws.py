"""What a step draws, and the variants that it draws from."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
import torch

from lora_scene.errors import SceneError
from lora_scene.learning.draws import (
    draw_sample,
    draw_timestep,
    draw_variant,
    step_generators,
)
from lora_scene.learning.latents import refuse_unseen, resize_masks
from lora_scene.recipe import Handles, Phase
from lora_scene.scenes.augment import SIMPLE_BACKGROUND, flip
from lora_scene.scenes.framing import frame
from lora_scene.scenes.run_prompts import longest_prompts
from lora_scene.scenes.scene import Concept, Photo, Scene
from lora_scene.size import Size
from tests import tiny
from tests.learning import made


def variants(scene, *overrides):
    settings = made.recipe("unused", *overrides)
    return made.bench(tiny.pipeline("sd1"), scene, settings, with_lora=False).variants


def draws(found, scene, n, *, phase=Phase(), handles=Handles()):  # noqa: B008  (frozen)
    return [
        draw_sample(
            found,
            concepts=scene.concepts,
            phase=phase,
            handles=handles,
            n_timesteps=1000,
            generators=step_generators(0, 1, step),
        )
        for step in range(n)
    ]


@pytest.fixture(scope="module")
def plain(scene):
    return variants(scene)


def test_step_draws_the_same_whenever_it_is_drawn(plain, scene):
    first, second = draws(plain, scene, 3), draws(plain, scene, 3)
    for a, b in zip(first, second, strict=True):
        assert (a.subset, a.prompt, a.t) == (b.subset, b.prompt, b.t)
        assert torch.equal(a.z, b.z)
        assert torch.equal(a.eps, b.eps)
    assert not torch.equal(first[0].eps, first[1].eps)


def test_seed_phase_step_and_part_each_change_what_is_drawn():
    places = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)]
    values = {float(step_generators(*place)[0].random()) for place in places}
    noise = {float(torch.rand((), generator=step_generators(*p)[1])) for p in places}
    assert len(values) == len(noise) == len(places)


def test_union_sampling_draws_sizes_equally_often(plain, scene):
    sizes = Counter(len(sample.subset) for sample in draws(plain, scene, 600))
    assert sizes.keys() == {1, 2, 3}
    assert all(abs(count - 200) < 60 for count in sizes.values())  # five deviations


def test_single_sampling_draws_one_concept(plain, scene):
    drawn = draws(plain, scene, 60, phase=Phase(sampling="single"))
    assert {sample.subset for sample in drawn} == {(0,), (1,), (2,)}


def test_single_sampling_has_no_prompt_of_several_where_a_picture_shows_no_others(scene):
    found = variants(scene, "augment.rearrange_prob=0.5", "augment.n_variants=8")
    recipe = made.recipe("unused", "phase1.steps=0", "phase2.sampling=single")
    drawn = {sample.prompt for sample in draws(found, scene, 60, phase=recipe.phase2)}
    assert set(longest_prompts(found, scene.concepts, recipe)) == drawn


def test_prompt_names_the_drawn_concepts_in_the_drawn_order(plain, scene):
    for sample in draws(plain, scene, 20):
        handles = [scene.concepts[k].handle for k in sample.subset]
        nouns = [scene.concepts[k].noun for k in sample.subset]
        assert sample.prompt == "a photo of " + " and ".join(handles)
        assert sample.plain_prompt == "a photo of " + " and ".join(nouns)


def test_prompt_may_name_nouns_and_draw_templates(plain, scene):
    settings = Handles(with_nouns=True, templates=("{} on grass", "the {}"))
    prompts = {sample.prompt for sample in draws(plain, scene, 40, handles=settings)}
    assert "the <bowl> red bowl" in prompts
    assert "<bear> bear on grass" in prompts


def test_timesteps_cover_their_range_as_their_density_says():
    rng = np.random.default_rng(0)
    for kind, mean in (("uniform", 0.5), ("noisy", 2 / 3), ("clean", 1 / 3)):
        drawn = [draw_timestep(Phase(timesteps=kind), 1000, rng) for _ in range(4000)]
        assert min(drawn) >= 0
        assert max(drawn) <= 999
        assert np.mean(drawn) / 1000 == pytest.approx(mean, abs=0.02)


def test_latent_is_drawn_from_the_posterior(plain, scene):
    sample = draws(plain[:1], scene, 1)[0]
    moments = plain[0].moments
    scaled = (sample.z - moments.mean) / moments.deviation
    assert scaled.std() == pytest.approx(1, abs=0.15)


def test_flip_is_drawn_by_its_probability_with_masks_and_picture_together(scene):
    found = variants(scene, "augment.flip_prob=0.25")
    assert [variant.probability for variant in found] == [0.75, 0.25]
    straight, mirrored = found
    flipped = flip(scene.photos[0]).masks
    assert torch.equal(mirrored.masks, resize_masks(flipped, Size(16, 16), "nearest"))
    assert not torch.equal(mirrored.moments.mean, straight.moments.mean)
    rng = np.random.default_rng(0)
    share = np.mean([draw_variant(found, rng) is mirrored for _ in range(2000)])
    assert share == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("prob", "n"), [(0, 1), (1, 1), (0.5, 2)])
def test_variant_that_cannot_be_drawn_is_not_encoded(prob, n, scene):
    assert len(variants(scene, f"augment.flip_prob={prob}")) == n


def test_shares_of_all_variants_add_up_to_one(scene):
    found = variants(
        scene,
        "augment.crop_prob=0.3",
        "augment.recompose_prob=0.2",
        "augment.rearrange_prob=0.2",
        "augment.paste_prob=0.1",
        "augment.n_variants=3",
    )
    assert sum(variant.probability for variant in found) == pytest.approx(1)
    assert len(found) == 2 + 2 * 3 + 3 + 3 + 3


@pytest.mark.parametrize("shares", [("0.33", "0.56", "0.11"), ("0.1", "0.34", "0.56")])
def test_shares_that_add_up_to_one_leave_the_photo_itself_none(shares, scene):
    """In decimals they do; in binary the one sum is above 1, the other's order decides."""
    assert sum(map(Decimal, shares)) == 1
    kinds = ("recompose_prob", "rearrange_prob", "paste_prob")
    given = [f"augment.{kind}={share}" for kind, share in zip(kinds, shares, strict=True)]
    found = variants(scene, *given, "augment.n_variants=2")
    expected = [float(share) / 2 for share in shares for _ in range(2)]
    assert [variant.probability for variant in found] == expected
    draw_variant(found, np.random.default_rng(0))


def test_recomposed_picture_is_named_whole_and_never_has_the_background(scene):
    found = variants(scene, "augment.recompose_prob=1", "augment.n_variants=8")
    assert all(2 not in variant.present for variant in found)
    for sample in draws(found, scene, 20):
        assert sorted(sample.subset) == sorted(sample.variant.present)
        assert sample.prompt.endswith(SIMPLE_BACKGROUND)


def test_rearranged_picture_is_named_whole_and_says_nothing_of_its_background(scene):
    found = variants(scene, "augment.rearrange_prob=1", "augment.n_variants=8")
    assert all(2 not in variant.present for variant in found)
    for sample in draws(found, scene, 20):
        assert sorted(sample.subset) == sorted(sample.variant.present)
        assert sample.prompt.endswith(">")


@pytest.mark.parametrize("kind", ["recompose", "rearrange", "paste"])
def test_a_background_that_no_variant_names_is_refused_for_that(kind, scene):
    """It was told that too little of it is left, and to enlarge its mask."""
    given = f"augment.{kind}_prob"
    found = variants(scene, f"{given}=1", "augment.n_variants=8")
    with pytest.raises(SceneError, match=r"<ground>: no picture is named by its background") as one:
        refuse_unseen(found, scene.concepts)
    assert "too little" not in str(one.value)
    refuse_unseen(variants(scene, f"{given}=0.9", "augment.n_variants=8"), scene.concepts)


def test_concept_that_the_square_cuts_off_is_never_named():
    masks = np.zeros((2, 40, 240), dtype=np.float32)
    masks[0, 5:30, 0:25], masks[1, 5:30, 215:240] = 1, 1
    wide = Photo(np.zeros((40, 240, 3), dtype=np.uint8), masks, "")
    scene = Scene((Concept("<a>", "bear"), Concept("<b>", "bowl")), (wide,), "wide")
    inside = frame(wide, Size(tiny.RESOLUTION, tiny.RESOLUTION)).present
    assert len(inside) == 1, "the test's photo must not fit"
    found = variants(scene, "augment.crop_prob=0.5", "augment.n_variants=2")
    for variant in found:
        assert variant.present
        assert all(variant.masks[k].any() for k in variant.present)


def test_photo_that_shows_only_the_background_needs_no_recomposition(scene):
    masks = np.zeros_like(scene.photos[0].masks)
    masks[2] = 1
    empty = Photo(scene.photos[0].pixels, masks, "")
    both = Scene(scene.concepts, (scene.photos[0], empty), "two photos")
    found = variants(both, "augment.recompose_prob=0.5", "augment.n_variants=2")
    assert all(variant.present for variant in found)
    assert any(variant.present == (2,) for variant in found)


def test_masks_come_to_a_grid_by_area_or_as_published_by_the_nearest_pixel():
    masks = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    cells = Size(16, 16)
    assert torch.equal(resize_masks(masks.numpy(), cells, "nearest"), masks[:, ::4, ::4])
    means = torch.nn.functional.avg_pool2d(masks, 4)
    torch.testing.assert_close(resize_masks(masks.numpy(), cells), means, rtol=0, atol=1e-6)
