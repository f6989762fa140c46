"""The hard scenes as they lie in the repository, and how they are composed."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard_scenes import SCENES, VISIBLE, Thing, compose_hard, drawing_of
from lora_scene.scenes.scene import load_scene
from tests.benchmarks import made

FOLDER = Path(__file__).parents[2] / "benchmarks" / "scenes"


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_holds_the_things_of_its_plan(name: str) -> None:
    scene, hard = load_scene(FOLDER / name), SCENES[name]
    assert list(scene.nouns) == [thing.noun for thing in hard.things]
    assert len(set(scene.handles)) == len(hard.things)
    masks = scene.photos[0].masks > 0.5
    assert masks.sum(axis=0).max() == 1  # what is hidden belongs to what hides it


def test_development_and_tests_share_no_drawing() -> None:
    drawings: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}
    for name, hard in SCENES.items():
        drawings[name.startswith("dh")] |= {(thing.noun, thing.turn) for thing in hard.things}
    nouns = [{noun for noun, _ in own} for own in drawings.values()]
    assert not nouns[0] & nouns[1]


@pytest.mark.parametrize("name", ["h01-2", "h05-2", "h08-2", "h12-3"])
def test_things_hide_a_part_of_each_other_or_lie_apart(name: str) -> None:
    """Pixels of a drawing that lie nowhere in the masks are hidden: counted from the drawings."""
    hard, drawings = SCENES[name], made.drawings()
    _, masks = compose_hard(hard, drawings, np.random.default_rng(3))
    whole = [int((drawing_of(t, drawings)[..., 3] >= 128).sum()) for t in hard.things]
    shares = masks.sum(axis=(1, 2)) / whole
    assert shares.min() >= VISIBLE
    if hard.kind in ("touching", "stacked"):
        assert shares.min() < 0.95
        assert shares[-1] == 1  # the thing in front
    else:
        assert (shares == 1).all()
        assert masks.any(axis=0).sum() == sum(whole)


def test_places_follow_the_generator() -> None:
    hard, drawings = SCENES["h08-2"], made.drawings()
    first, second, other = (
        compose_hard(hard, drawings, np.random.default_rng(seed))[0] for seed in (5, 5, 6)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_a_turn_changes_hues_and_neither_shape_nor_greys() -> None:
    drawings = made.drawings()
    plain, turned = (drawing_of(Thing("cat", turn, 30), drawings) for turn in (0, 120))
    assert (plain[..., 3] == turned[..., 3]).all()
    for part, colour in ((plain, made.HELD_OUT_COLOUR), (turned, (255, 255, 0))):  # 120 degrees on
        assert np.abs(part[15, 15, :3].astype(int) - colour).max() <= 12  # hues are bytes
