from colorsys import rgb_to_hsv
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mini_world import wide
from benchmarks.mini_world.base import (
    CROPS_A_SCENE,
    go_on_from,
    new_denoiser,
    objective,
)
from benchmarks.mini_world.batches import CROP, Batches
from benchmarks.mini_world.captions import caption
from benchmarks.mini_world.compose import Composition, Placement
from benchmarks.mini_world.export import build_pipeline
from benchmarks.mini_world.latents import encode_pool
from benchmarks.mini_world.nouns import THING, noun_set
from benchmarks.mini_world.prefetch import Share
from benchmarks.mini_world.splits import is_held_out
from benchmarks.mini_world.tokens import build_tokenizer, wide_words, world_words
from benchmarks.mini_world.vae import new_vae
from benchmarks.mini_world.wide import Drawn, WideSprites, compose_wide, lay_out
from tests.benchmarks import made

NAMED = noun_set("mini16")[:10]
WIDTHS = (8, 16, 16)


@pytest.fixture(scope="module")
def sprites() -> WideSprites:
    return WideSprites(made.drawings(), NAMED)


@pytest.fixture(scope="module")
def scenes(sprites: WideSprites) -> list[Composition]:
    rng = np.random.default_rng(0)
    return [compose_wide(sprites, rng) for _ in range(300)]


def test_the_wide_world_shows_things_twins_and_contact(scenes: list[Composition]) -> None:
    words = {noun for scene in scenes for noun in scene.nouns}
    assert words == {THING, *(noun.word for noun in NAMED)}
    share = np.mean([noun == THING for scene in scenes for noun in scene.nouns])
    assert 0.3 < share < 0.5
    several = [scene for scene in scenes if len(scene.nouns) > 1]
    named = [[noun for noun in scene.nouns if noun != THING] for scene in several]
    assert any(len(set(nouns)) < len(nouns) for nouns in named)
    touching = [scene for scene in several if any(place.depth for place in scene.placements)]
    assert 0.15 < len(touching) / len(several) < 0.45


def test_no_scene_shows_what_is_held_out(scenes: list[Composition]) -> None:
    for scene in scenes:
        assert not is_held_out(scene.nouns, scene.background)
        for mask in scene.masks:  # of one colour, turned or not; pink is the held-out style's alone
            assert not (scene.picture[mask] == made.HELD_OUT_COLOUR).all(-1).any()


def test_masks_are_what_is_visible_and_stand_in_their_boxes(scenes: list[Composition]) -> None:
    for scene in scenes:
        assert scene.masks.sum(axis=0).max(initial=0) <= 1
        for mask, place in zip(scene.masks, scene.placements, strict=True):
            rows, columns = np.nonzero(mask)
            assert place.top <= rows.min() <= rows.max() < place.top + place.height
            assert place.left <= columns.min() <= columns.max() < place.left + place.width
            disc = np.pi / 4 * place.height * place.width  # every drawing here is a disc
            assert mask.sum() / disc > wide.VISIBLE - 0.1


def test_what_is_nearer_covers_what_is_behind_it() -> None:
    square = np.full((20, 20, 4), 255, np.uint8)
    colours = ((255, 0, 0), (0, 0, 255))
    drawn = []
    for noun, colour in zip(("cat", "dog"), colours, strict=True):
        part = square.copy()
        part[..., :3] = colour
        drawn.append(Drawn(noun, 0, part))
    for seed in range(10):
        scene = lay_out(drawn, "grass", "contact", np.random.default_rng(seed))
        assert scene is not None
        back, front = sorted(range(2), key=lambda k: scene.placements[k].depth)
        assert [scene.nouns[back], scene.nouns[front]] == ["cat", "dog"]
        assert scene.masks[front].sum() == 400
        assert 0.6 * 400 <= scene.masks[back].sum() <= 0.97 * 400
        assert (scene.picture[scene.masks[front]] == colours[1]).all()
        assert (scene.picture[scene.masks[back]] == colours[0]).all()


def test_a_turn_moves_the_hue_by_its_share_of_a_circle() -> None:
    part = np.zeros((1, 1, 4), np.uint8)
    part[...] = (200, 40, 40, 130)
    after = wide.turned(part, 64)
    hue, saturation, value = rgb_to_hsv(*(after[0, 0, :3] / 255))
    assert hue == pytest.approx(0.25, abs=0.01)
    assert (saturation, value) == pytest.approx((0.8, 200 / 255), abs=0.02)
    assert after[0, 0, 3] == 130


def test_captions_say_which_of_two_stands_in_front() -> None:
    back, front = Placement("cat", 0, 0, 0, 20, 20), Placement("dog", 0, 8, 8, 20, 20, depth=1)
    rng = np.random.default_rng(0)
    said = [caption((back, front), "sand", rng) for _ in range(300)]
    covering = [text for text in said if "in front of" in text]
    assert 100 < len(covering) < 200
    assert all(text.index("dog") < text.index("cat") for text in covering)
    flat = [caption((back, Placement("dog", 0, 8, 8, 20, 20)), "sand", rng) for _ in range(300)]
    assert not any("in front of" in text for text in flat)


def test_a_base_goes_on_from_another_by_the_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old_words = build_tokenizer(world_words())
    old = new_denoiser(len(old_words), WIDTHS)
    build_pipeline(old, new_vae((4, 4, 4)), old_words).save_pretrained(tmp_path)
    words = build_tokenizer(wide_words())
    new = new_denoiser(len(words), WIDTHS)
    fresh = new.text.get_input_embeddings().weight.detach().clone()
    go_on_from(new, words, tmp_path)
    rows, before = (d.text.get_input_embeddings().weight.detach() for d in (new, old))
    for word in ("cat</w>", "pineapple</w>", "<|endoftext|>"):
        assert (rows[words.get_vocab()[word]] == before[old_words.get_vocab()[word]]).all()
    thing = words.get_vocab()["thing</w>"]
    assert (rows[thing] == fresh[thing]).all()
    latents = torch.randn(1, 12, 16, 16)
    states = [
        d.text(torch.tensor([t("a cat on sand").input_ids])).last_hidden_state
        for d, t in ((old, old_words), (new, words))
    ]
    drawn = [
        d.unet(latents, 500, s).sample.detach() for d, s in zip((old, new), states, strict=True)
    ]
    torch.testing.assert_close(*drawn)


def test_a_mixed_stage_trains_on_crops_and_scenes_in_turn(sprites: WideSprites) -> None:
    torch.manual_seed(0)
    words = build_tokenizer(wide_words())
    pool = encode_pool(new_vae((4, 4, 4)).eval(), sprites, 60, seed=0)
    denoiser = new_denoiser(len(words), WIDTHS)
    shapes: list[tuple[int, ...]] = []
    denoiser.unet.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    loss = objective(denoiser, Batches(pool, words), "mixed", Share(2, 0, 0))
    values = [loss(step, 0.0) for step in range(2)]
    assert [shape[0] for shape in shapes] == [2 * CROPS_A_SCENE, 2]
    assert [shape[2] for shape in shapes] == [CROP, 16]
    assert all(bool(value.isfinite()) for value in values)
