"""Photos of several shapes in one scene, learnt at their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_scene.adapters.folder import read_adapter
from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import CheckpointError, InterruptedRunError
from lora_scene.learning import phases, samples
from lora_scene.learning.base_pictures import deal_sizes, deal_turns
from lora_scene.learning.draws import draw_batch, step_generators
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.latents import encode_variants
from lora_scene.recipe import Augment
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.scene import Concept, Photo, Scene
from lora_scene.size import Size
from tests import tiny
from tests.learning import made

TALL, WIDE = Size(64, 96), Size(128, 64)
CANVAS = Canvas(64, 32, 4, 16, "photo")
EVERYTHING = [
    "base.shape=photo",
    'handles.templates=["{}"]',  # the tiny tokenizers' prompts are short
    "run.batch_size=2",
    "augment.crop_prob=0.2",
    "augment.recompose_prob=0.2",
    "augment.rearrange_prob=0.2",
    "augment.paste_prob=0.2",
    "augment.n_variants=1",
    "prior.weight=1",
    "prior.n_images=1",
    "prior.n_steps=1",
    'run.sample_prompts=["<bowl>"]',
    "masked_loss.outside_weight=0.2",
    "masked_loss.outside_target=base",
]


def photo(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((2, height, width), dtype=np.float32)
    masks[0, : height // 2, : width // 2] = 1
    masks[1, height // 2 :, width // 2 :] = 1
    return Photo(pixels, masks, f"{width}.png")


@pytest.fixture(scope="module")
def both():
    concepts = (Concept("<bear>", "bear"), Concept("<bowl>", "bowl"))
    return Scene(concepts, (photo(68, 96), photo(272, 128)), "tall and wide")


def variants(both, family="sd1", settings=Augment(flip_prob=0)):  # noqa: B008  (frozen)
    backbone = Backbone(tiny.pipeline(family), name="tiny", resolution=64)
    rng = np.random.default_rng(0)
    return encode_variants(backbone, both, settings, canvas=CANVAS, generator=rng)


def test_each_photo_has_latents_masks_and_maps_of_its_shape(both):
    tall, wide = variants(both)
    for found, size in ((tall, TALL), (wide, WIDE)):
        assert found.latents == (size.width // 4, size.height // 4)
        assert found.masks.shape == (2, size.height // 4, size.width // 4)
        assert found.map_masks.shape == (2, size.height // 16, size.width // 16)


def test_a_batch_holds_one_shape_and_shapes_come_in_proportion(both):
    found = variants(both, settings=Augment(flip_prob=0.5))
    drawn: Counter[Size] = Counter()
    recipe = made.recipe("unused")
    for step in range(300):
        batch = draw_batch(
            3,
            found,
            concepts=both.concepts,
            phase=recipe.phase1,
            handles=recipe.handles,
            n_timesteps=1000,
            generators=step_generators(0, 1, step),
        )
        (size,) = {sample.variant.latents for sample in batch}
        drawn[size] += 1
    assert drawn[Size(16, 24)] / 300 == pytest.approx(0.5, abs=0.08)


def test_prior_pictures_are_spread_by_shares_and_none_is_without():
    tall, wide, square = Size(16, 24), Size(32, 16), Size(16, 16)
    assert Counter(deal_sizes({tall: 0.75, wide: 0.25}, 8)) == {tall: 6, wide: 2}
    assert Counter(deal_sizes({tall: 0.98, wide: 0.01, square: 0.01}, 2)).keys() == {
        tall,
        wide,
        square,
    }
    assert deal_sizes({square: 1.0}, 3) == [square] * 3


def test_turns_go_round_in_every_size_and_on_to_the_next():
    """Where each size begins anew, five sizes of two pictures never reach the third of five."""
    sizes = [Size(16, 8 * n) for n in range(1, 6)]
    turns = deal_turns(sizes * 2)
    for i, size in enumerate(sizes):
        own = [t for t, one in zip(turns, sizes * 2, strict=True) if one == size]
        assert own == [2 * i, 2 * i + 1]
    assert Counter(turn % 5 for turn in turns) == dict.fromkeys(range(5), 2)
    assert deal_turns([Size(16, 16)] * 7) == [*range(7)]


def script_ids(original, target, corner, *, mirrored):
    """Return the ids as diffusers' DreamBooth script for SDXL has them: resize, mirror, crop."""
    height, width = original
    scale = max(target[0] / height, target[1] / width)
    resized = round(height * scale), round(width * scale)
    y1, x1 = round(corner[0] * scale), round(corner[1] * scale)
    if mirrored:
        x1 = resized[1] - x1 - target[1]
    return (*original, y1, x1, *target)


@pytest.mark.parametrize("mirrored", [False, True])
def test_sdxl_is_told_what_it_was_told_while_it_was_trained(both, mirrored):
    tall, wide = variants(both, "sdxl", Augment(flip_prob=float(mirrored)))
    # 68x96 holds 64x96, and 272x128 holds 256x128: what is cut is cut half left, half right
    assert tall.size_ids == script_ids((96, 68), (96, 64), (0, 2), mirrored=mirrored)
    assert wide.size_ids == script_ids((128, 272), (64, 128), (0, 8), mirrored=mirrored)


def test_every_augmentation_and_the_prior_run_in_both_shapes_and_resume(
    both, bases, tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "N_STEPS", 1)
    shown = []
    monkeypatch.setattr(
        phases, "save_samples", lambda pictures, *_: shown.extend(p.size for p in pictures)
    )
    settings = made.recipe(bases["sd1"], *EVERYTHING, "run.sample_every=4", steps=(1, 1))
    whole = made.run(both, settings, tmp_path / "whole")
    assert set(shown) == {TALL}
    assert read_adapter(tmp_path / "whole").info.sizes == (TALL, WIDE)
    stopped = Interruption()
    stopped.number = 2
    with pytest.raises(InterruptedRunError):
        made.run(both, settings, tmp_path / "cut", interruption=stopped)
    square = made.recipe(bases["sd1"], *EVERYTHING, "base.shape=square", steps=(1, 1))
    with pytest.raises(CheckpointError, match="another recipe"):
        made.run(both, square, tmp_path / "cut")
    again = made.run(both, settings, tmp_path / "cut")
    made.assert_equal(made.numbers(again), made.numbers(whole))
    assert all(torch.isfinite(each).all() for each in made.numbers(whole).values())


def test_a_photo_that_shows_none_of_the_concepts_changes_nothing(bases, both, tmp_path):
    """Its masks are all absent, as `""` says, or what it showed is lost in its frame."""
    tall, large = both.photos[0], photo(272, 384)
    lost = np.zeros_like(large.masks)
    lost[0, 10, 10:60] = 1  # a row of pixels, a quarter of one where it is learnt
    absent = replace(tall, masks=np.zeros_like(tall.masks), source="absent.png")
    empty = (absent, replace(large, masks=lost, source="lost.png"))
    settings = made.recipe(bases["sd1"], "run.watch=1", "base.shape=photo", steps=(3, 2))
    outs = [tmp_path / "with", tmp_path / "without"]
    photos = [(*empty, tall), (tall,)]
    results = [
        made.run(replace(both, photos=own), settings, out)
        for own, out in zip(photos, outs, strict=True)
    ]
    made.assert_equal(*map(made.numbers, results))
    maps = [[path.read_bytes() for path in sorted((out / "maps").glob("*-?.jpg"))] for out in outs]
    assert maps[0] == maps[1] != []
    assert "absent.png: it shows none of the concepts" in (outs[0] / "run.jsonl").read_text()
