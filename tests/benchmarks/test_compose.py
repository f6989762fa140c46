import numpy as np
import pytest

from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.compose import GRID, SIDE, Sprites, compose, draw_combination
from benchmarks.mini_world.latents import encode_pool
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.splits import is_held_out, is_pair_held_out
from benchmarks.mini_world.vae import new_vae
from tests.benchmarks import made

WORDS = [noun.word for noun in noun_set("mini16")]


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    return Sprites(made.drawings(), noun_set("mini16"))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_masks_are_disjoint_and_inside_their_boxes(sprites: Sprites, n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        words, background = draw_combination(WORDS, n, rng)
        scene = compose(sprites, words, background, rng)
        assert sorted(scene.nouns) == sorted(words)
        assert scene.masks.shape == (n, SIDE, SIDE)
        assert scene.masks.sum(0).max() == 1
        for mask, place in zip(scene.masks, scene.placements, strict=True):
            rows, columns = np.nonzero(mask)
            assert place.top <= rows.min() <= rows.max() < place.top + place.height
            assert place.left <= columns.min() <= columns.max() < place.left + place.width
            assert place.top % GRID == place.left % GRID == 0


def test_each_mask_covers_the_pixels_of_its_own_drawing(sprites: Sprites) -> None:
    rng = np.random.default_rng(0)
    scene = compose(sprites, ("cat", "rocket"), "snow", rng, drawings=[0, 0])
    for mask, place in zip(scene.masks, scene.placements, strict=True):
        number = WORDS.index(place.noun)
        expected = np.array([10 * number, 250 - 10 * number, 0])
        inside = scene.picture[mask].astype(int)
        share = (np.abs(inside - expected).max(1) < 8).mean()
        assert share > 0.8, f"{place.noun}: {share:.2f} of its mask has its colour"


def test_two_drawings_are_read_along_the_longer_way(sprites: Sprites) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        first, second = compose(sprites, ("cat", "dog"), "sand", rng).placements
        assert sum(first.centre) <= sum(second.centre)


def test_held_out_combinations_and_styles_are_never_encoded(sprites: Sprites) -> None:
    pool = encode_pool(new_vae((4, 4, 4)), sprites, 150, seed=0)
    assert len(pool) == 150
    for places, background in zip(pool.placements, pool.backgrounds, strict=True):
        assert not is_held_out([place.noun for place in places], background)
    rng = np.random.default_rng(0)
    for _ in range(100):
        picture = compose(sprites, *draw_combination(WORDS, 2, rng), rng).picture
        assert not (picture == made.HELD_OUT_COLOUR).all(-1).any()


def test_some_pairs_are_never_drawn_together_and_most_are() -> None:
    pairs = [(a, b) for a in WORDS for b in WORDS if a < b]
    apart = [pair for pair in pairs if is_pair_held_out(*pair)]
    assert 0.03 * len(pairs) < len(apart) < 0.2 * len(pairs)
    assert all(is_held_out((b, a), name) for a, b in apart for name in BACKGROUNDS)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_background_is_painted_by_the_generator_alone(name: str) -> None:
    first = paint_background(name, SIDE, np.random.default_rng(7))
    second = paint_background(name, SIDE, np.random.default_rng(7))
    assert first.shape == (SIDE, SIDE, 3)
    assert (first == second).all()
