"""The oracle's photos show the scene's own things, whole and masked, on grounds not judged."""

import numpy as np

from benchmarks.mini_world.compose import Sprites
from benchmarks.mini_world.drawings import HELD_OUT_STYLE
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.recomposed import photographed
from lora_scene.scenes.scene import Concept, Scene
from tests.benchmarks import made


def test_every_photo_shows_some_things_of_the_scene_and_masks_them():
    sprites = Sprites(made.drawings(), noun_set("mini16"), [HELD_OUT_STYLE])
    scene = Scene((Concept("<owl>", "owl"), Concept("<dog>", "dog")), (), "two")
    found = photographed(scene, sprites, 12)
    assert found.concepts == scene.concepts
    assert len(found.photos) == 12
    for photo in found.photos:
        drawn = (photo.pixels == made.HELD_OUT_COLOUR).all(axis=2)  # every drawing's, no ground's
        covered = photo.masks.max(axis=0) > 0.5
        assert covered[drawn].all()
        assert drawn[covered].mean() > 0.7, "but for the discs' rims"
    assert {photo.present for photo in found.photos} == {(0,), (1,), (0, 1)}
    again = photographed(scene, sprites, 12)
    assert all(
        np.array_equal(a.pixels, b.pixels) for a, b in zip(found.photos, again.photos, strict=True)
    )
