"""Things whose colours the base does not expect of their nouns, and what is done for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import SceneError
from lora_scene.learning import drawn_before
from lora_scene.learning.attention import read_level
from lora_scene.learning.colours import Drawing, colour_distances, mean_colour, noun_tokens
from lora_scene.learning.events import Notice
from lora_scene.recipe import load_recipe
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import load_scene
from tests import tiny
from tests.learning import made

DRAWN = (
    "grounds.prob=1",
    "grounds.n_images=2",
    "grounds.n_steps=1",
    "grounds.n_per_noun=1",
    "grounds.noise_from=0",
    "grounds.prompts=['sand']",
    "grounds.phrases=['on sand']",
    "handles.templates=['{}']",
)
SCENES = Path(made.ROOT) / "benchmarks" / "scenes"


@pytest.fixture(scope="module")
def mini():
    return Backbone(load_pipeline("mini"), name="mini")


def distances(backbone, scene, cache, **settings):
    recipe = load_recipe("mini")
    grounds = replace(recipe.grounds, **settings)
    level, template = read_level(backbone, recipe), recipe.handles.templates[0]
    return colour_distances(backbone, scene, Drawing(grounds, template, level, 0, cache))


def recoloured(scene):
    """Return a scene with red and blue of its photos exchanged."""
    photos = tuple(
        replace(one, pixels=np.ascontiguousarray(one.pixels[..., ::-1])) for one in scene.photos
    )
    return replace(scene, photos=photos)


def test_a_colour_is_the_mean_in_cielab():
    red, black = (53.24, 80.09, 67.20), (0, 0, 0)  # of sRGB, by the standard's formulae
    cells = np.array([(255, 0, 0), (0, 0, 0)], np.uint8)
    np.testing.assert_allclose(mean_colour(cells[:1]), red, atol=0.2)
    np.testing.assert_allclose(mean_colour(cells), np.mean([red, black], axis=0), atol=0.2)


def test_what_the_base_expects_is_near_and_the_same_in_other_colours_is_far(mini, tmp_path):
    """An apple, red by default, and a car, of many colours: no other test knows their colours."""
    scene = frame_scene(load_scene(SCENES / "t03-2"), mini.canvas())
    handles = [scene.concepts[k].handle for k in scene.things]
    near = distances(mini, scene, tmp_path / "nouns.safetensors")
    far = distances(mini, recoloured(scene), tmp_path / "nouns.safetensors")
    apple = handles.index("<app>")
    assert max(near.values()) < 40, "no scene of these is to stand on grounds"
    assert far[apple] > 80


def test_two_of_a_noun_are_each_as_far_as_they_are(mini, tmp_path):
    scene = frame_scene(load_scene(SCENES / "h08-2"), mini.canvas())  # an orange cat, and a blue
    assert [scene.concepts[k].noun for k in scene.things] == ["cat", "cat"]
    own, other = distances(mini, scene, tmp_path / "nouns.safetensors", n_per_noun=2).values()
    assert own < 40 < other


def test_a_things_colour_is_of_the_cells_of_all_photos(mini, tmp_path):
    """Of two photos, and of one with both side by side."""
    scene = frame_scene(load_scene(SCENES / "t03-2"), mini.canvas())
    (photo,), few = scene.photos, {"n_per_noun": 1, "n_steps": 1}
    (other,) = recoloured(scene).photos
    empty = replace(photo, masks=np.zeros_like(photo.masks), pixels=photo.pixels[::-1].copy())
    several = replace(scene, photos=(photo, empty, other))
    joined = replace(
        photo,
        pixels=np.concatenate([photo.pixels, other.pixels], axis=1),
        masks=np.concatenate([photo.masks, other.masks], axis=2),
    )
    cache = tmp_path / "nouns.safetensors"
    found = distances(mini, several, cache, **few)
    expected = distances(mini, replace(scene, photos=(joined,)), cache, **few)
    assert found == pytest.approx(expected)
    assert found != pytest.approx(distances(mini, scene, cache, **few))


@pytest.mark.parametrize("noun", ["cat", "photo", "an old teddy bear", "the"])
@pytest.mark.parametrize("template", ["a photo of {}", "{}", "{} at night", "a {} photo"])
def test_a_nouns_tokens_are_those_that_read_it(noun, template, mini):
    """By the token's own texts."""
    tokenizer = mini.tokenizers[0]
    ids = tokenizer(template.replace("{}", noun)).input_ids
    found = noun_tokens(mini, noun, template)
    assert tokenizer.decode([ids[i] for i in found]).strip() == noun
    assert found == list(range(found[0], found[-1] + 1))


def test_a_noun_that_a_word_of_the_template_swallows_is_looked_for_in_that_word():
    def words(text):
        return SimpleNamespace(input_ids=[0, *(hash(one) for one in text.split()), 1])

    assert noun_tokens(SimpleNamespace(tokenizers=[words]), "man", "a super{} there") == [2]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_looks_and_tells(family, bases, scene, tmp_path):
    told = []
    settings = made.recipe(bases[family], *DRAWN, "grounds.far=1e9", steps=(1, 0))
    made.run(scene, settings, tmp_path, listener=told.append)
    (said,) = (one.text for one in told if isinstance(one, Notice) and "colours" in one.text)
    assert all(scene.concepts[k].handle in said for k in scene.things)


def test_where_nothing_is_far_all_is_bit_for_bit_as_without_grounds(bases, scene, tmp_path):
    base = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    near = made.recipe(bases["sd1"], *DRAWN, *base, "grounds.far=1e9")
    without = made.recipe(bases["sd1"], *DRAWN, *base, "grounds.prob=0")
    pair = [made.run(scene, one, tmp_path / str(i)) for i, one in enumerate((near, without))]
    made.assert_equal(*(made.numbers(one) for one in pair))
    drawn = [(tmp_path / str(i) / "checkpoint" / "grounds.safetensors").exists() for i in (0, 1)]
    assert drawn == [False, False]


def test_what_is_far_stands_on_grounds(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_before, "colour_distances", lambda *given: {0: 12.4, 1: 77.0})
    told, things = [], []
    draw = drawn_before.draw_grounds

    def watched(backbone, settings, far, **given):
        things.append(far)
        return draw(backbone, settings, far, **given)

    monkeypatch.setattr(drawn_before, "draw_grounds", watched)
    settings = made.recipe(bases["sd1"], *DRAWN, "grounds.far=77", steps=(1, 0))
    made.run(scene, settings, tmp_path, listener=told.append)
    assert things == [frozenset({1})]
    texts = [one.text for one in told if isinstance(one, Notice)]
    assert any("<bear> 12, <bowl> 77; from 77 on" in text for text in texts), texts


def test_at_0_all_things_are_far_and_no_noun_is_drawn(bases, scene, tmp_path):
    everything = made.recipe(bases["sd1"], *DRAWN, "grounds.far=1e-6")
    at_zero = made.recipe(bases["sd1"], *DRAWN, "grounds.far=0")
    pair = [made.run(scene, one, tmp_path / str(i)) for i, one in enumerate((everything, at_zero))]
    made.assert_equal(*(made.numbers(one) for one in pair))
    assert not (tmp_path / "1" / "checkpoint" / "nouns.safetensors").exists()


def test_a_template_that_is_too_long_for_a_noun_is_refused(mini, tmp_path):
    scene = frame_scene(load_scene(SCENES / "t03-2"), mini.canvas())
    drawing = Drawing(load_recipe("mini").grounds, "far " * 40 + "{}", 1, 0, tmp_path / "nouns")
    with pytest.raises(SceneError, match=r"handles.templates: a prompt is too long"):
        colour_distances(mini, scene, drawing)
