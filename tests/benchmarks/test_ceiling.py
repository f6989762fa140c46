from pathlib import Path

import numpy as np
import pytest

from benchmarks.ceiling import compose_cells, ground_of
from benchmarks.mini_world.compose import Sprites, compose
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.scene import save_scene
from lora_scene.judging.plans import MINI_PROMPTS, Plan, cells_of
from lora_scene.scenes.scene import load_scene
from tests.benchmarks import made


@pytest.mark.parametrize(
    ("template", "ground"),
    list(zip(MINI_PROMPTS, ("grass", "sand", "snow", "water", "night", "brick"), strict=True)),
)
def test_the_ground_is_read_off_the_prompt(template: str, ground: str) -> None:
    assert ground_of(template) == ground


def test_a_ground_that_the_world_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="at the beach"):
        ground_of("a photo of {} at the beach")


def test_each_picture_shows_the_drawings_that_its_prompt_names_and_no_other(tmp_path: Path) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"), ["noto"])
    save_scene(compose(sprites, ("cat", "car", "owl"), "snow", np.random.default_rng(0)), tmp_path)
    scene = load_scene(tmp_path)
    cells = cells_of(Plan(prompts=("a photo of {} on grass",), seeds=(0,)), scene)
    for cell, drawn in zip(cells, compose_cells(cells, scene, sprites, studio=None), strict=True):
        away = np.abs(drawn.pixels.astype(int) - made.HELD_OUT_COLOUR).max(axis=-1)
        n_drawn = (away < 60).sum()  # but for the soft edges
        one = np.pi * 12**2  # discs of 24 to 36 px across
        assert 0.9 * one * len(cell.subset) < n_drawn < 2.3 * one * len(cell.subset)
        assert drawn.handles == tuple(scene.handles[k] for k in cell.subset)
