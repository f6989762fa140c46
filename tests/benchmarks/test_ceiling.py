from pathlib import Path

import numpy as np
import pytest

from benchmarks.ceiling import compose_cells, cut_out_cells, draw_known, ground_of, known_scene
from benchmarks.mini_world.compose import Sprites, compose
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.scene import save_scene
from lora_scene.creating.generation import draw
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.studio import open_studio
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


def test_things_are_cut_out_of_the_photo_onto_the_ground_that_is_asked_for(tmp_path: Path) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"), ["noto"])
    save_scene(compose(sprites, ("cat", "car"), "night", np.random.default_rng(0)), tmp_path)
    scene = load_scene(tmp_path)
    cells = cells_of(Plan(prompts=("a photo of {} in the snow",), seeds=(0,)), scene)
    studio = open_studio([], base="mini", device="cpu")
    photo = scene.photos[0]
    for cell, drawn in zip(cells, cut_out_cells(cells, scene, studio), strict=True):
        shown = photo.masks[list(cell.subset)].max(axis=0)
        assert drawn.pixels[shown == 0].mean() > 200, "snow"
        error = np.abs(drawn.pixels[shown == 1].astype(int) - photo.pixels[shown == 1])
        assert np.median(error) < 20, "the autoencoder's"


def test_the_base_is_weighed_against_every_drawing_that_it_was_trained_on(tmp_path: Path) -> None:
    noun_words, drawings = noun_set("mini16"), made.drawings()
    own, known = Sprites(drawings, noun_words, ["noto"]), Sprites(drawings, noun_words)
    save_scene(compose(own, ("cat", "owl"), "snow", np.random.default_rng(0)), tmp_path)
    scene = load_scene(tmp_path)
    weighed = known_scene(scene, known)
    assert (weighed.handles, weighed.nouns) == (scene.handles, scene.nouns)
    assert [photo.present for photo in weighed.photos] == [(0,)] * 3 + [(1,)] * 3
    for photo in weighed.photos:
        colour = np.median(photo.pixels[photo.masks[photo.present[0]] == 1], axis=0)
        number = [noun.word for noun in noun_words].index(scene.nouns[photo.present[0]])
        assert np.abs(colour[:2] - (10 * number, 250 - 10 * number)).max() < 8
        assert not (photo.pixels == made.HELD_OUT_COLOUR).all(-1).any()


def test_the_base_is_asked_by_nouns(tmp_path: Path) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"), ["noto"])
    save_scene(compose(sprites, ("cat", "owl"), "snow", np.random.default_rng(0)), tmp_path)
    scene = load_scene(tmp_path)
    few = Plan(prompts=("a photo of {} on grass",), seeds=(0,), sampling=Sampling(n_steps=2))
    cells, studio = cells_of(few, scene), open_studio([], base="mini")
    drawn = draw_known(cells, scene, studio, few)
    asked = [
        Request(text, 0, sampling=few.sampling)
        for text in (
            "a photo of cat on grass",
            "a photo of owl on grass",
            "a photo of cat and owl on grass",
        )
    ]
    expected = [picture.pixels for _, picture in draw(studio, asked, batch_size=few.batch_size)]
    assert [one.handles for one in drawn] == [("<cat>",), ("<owl>",), ("<cat>", "<owl>")]
    for one, pixels in zip(drawn, expected, strict=True):
        assert (one.pixels == pixels).all()
