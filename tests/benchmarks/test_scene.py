from pathlib import Path

import numpy as np

from benchmarks.mini_world.compose import Sprites, compose
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.scene import save_scene
from lora_scene.scenes.scene import load_scene
from tests.benchmarks import made


def test_a_saved_scene_is_one_that_the_package_reads(tmp_path: Path) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"), ["noto"])
    made_up = compose(sprites, ("cat", "car", "owl"), "snow", np.random.default_rng(0))
    save_scene(made_up, tmp_path)
    scene = load_scene(tmp_path)
    assert [concept.noun for concept in scene.concepts] == list(made_up.nouns)
    assert [concept.handle for concept in scene.concepts] == [f"<{n}>" for n in made_up.nouns]
    assert (scene.photos[0].pixels == made_up.picture).all()
    assert ((scene.photos[0].masks > 0.5) == made_up.masks).all()
