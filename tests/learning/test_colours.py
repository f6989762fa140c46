"""Things whose colours the base does not expect of their nouns, and what is done for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import SceneError
from lora_scene.files import write_json
from lora_scene.learning import drawn_before
from lora_scene.learning.attention import read_level
from lora_scene.learning.colours import colour_distances, mean_colour, noun_tokens
from lora_scene.learning.events import Notice, StepDone
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene
from tests import tiny
from tests.learning import made

QUICK = {"n_per_noun": 1, "n_steps": 2}
SCENES = Path(made.ROOT) / "benchmarks" / "scenes"


@pytest.fixture(scope="module")
def mini():
    return Backbone(load_pipeline("mini"), name="mini")


def distances(backbone, scene, *overrides, **settings):
    recipe = load_recipe("mini", overrides)
    return colour_distances(
        backbone,
        scene,
        replace(recipe.grounds, **settings),
        template=recipe.handles.templates[0],
        level=read_level(backbone, recipe),
    )


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


def test_what_the_base_expects_is_near_and_the_same_in_other_colours_is_far(mini):
    """A red apple and a car, which the base draws in many colours."""
    scene = load_scene(SCENES / "t03-2")
    near, far = distances(mini, scene), distances(mini, recoloured(scene))
    assert max(near.values()) < 40, "no scene of these is to stand on grounds"
    assert far["<app>"] > 80


def test_two_of_a_noun_are_each_as_far_as_they_are(mini):
    scene = load_scene(SCENES / "h08-2")  # an orange cat, and a blue
    assert scene.nouns == ("cat", "cat")
    found = distances(mini, scene, n_per_noun=2)
    assert found["<cat>"] < 40 < found["<cat2>"]


def test_a_thing_is_as_far_as_the_nearest_of_several_pictures(mini):
    """Cars of many colours: with more of them one is nearer."""
    scene = load_scene(SCENES / "t03-2")
    one, several = (distances(mini, scene, n_per_noun=n, n_steps=4) for n in (1, 4))
    assert all(several[handle] <= one[handle] for handle in one)
    assert several != one


def test_what_is_far_hangs_on_the_thing_alone(mini):
    """Not on what else is in the scene, nor on the order."""
    scene = load_scene(SCENES / "t03-2")
    (photo,) = scene.photos
    turned = replace(
        scene,
        concepts=scene.concepts[::-1],
        photos=(replace(photo, masks=np.ascontiguousarray(photo.masks[::-1])),),
    )
    alone = replace(
        scene, concepts=scene.concepts[:1], photos=(replace(photo, masks=photo.masks[:1]),)
    )
    found = distances(mini, scene, **QUICK)
    assert distances(mini, turned, **QUICK) == found
    handle = scene.concepts[0].handle
    assert distances(mini, alone, **QUICK) == {handle: found[handle]}


def test_what_has_no_noun_and_a_background_are_not_looked_at(mini):
    scene = load_scene(SCENES / "t03-2")
    first, second = scene.concepts
    unnamed = replace(scene, concepts=(replace(first, noun="object"), second))
    assert list(distances(mini, unnamed, **QUICK)) == [second.handle]
    behind = replace(scene, concepts=(first, replace(second, is_background=True)))
    assert list(distances(mini, behind, **QUICK)) == [first.handle]


def test_a_things_colour_is_of_the_cells_of_all_photos(mini):
    """Of two photos, beside one that does not show it, and of one with both side by side."""
    scene = load_scene(SCENES / "t03-2")
    (photo,), (other,) = scene.photos, recoloured(scene).photos
    empty = replace(photo, masks=np.zeros_like(photo.masks), pixels=photo.pixels[::-1].copy())
    several = replace(scene, photos=(photo, empty, other))
    joined = replace(
        photo,
        pixels=np.concatenate([photo.pixels, other.pixels], axis=1),
        masks=np.concatenate([photo.masks, other.masks], axis=2),
    )
    found = distances(mini, several, **QUICK)
    expected = distances(mini, replace(scene, photos=(joined,)), **QUICK)
    assert found == pytest.approx(expected)
    assert found != pytest.approx(distances(mini, scene, **QUICK))


def test_a_soft_edge_counts_from_half_on(mini):
    scene = load_scene(SCENES / "t03-2")
    (photo,) = scene.photos
    soft = replace(photo, masks=np.where(photo.masks > 0, photo.masks, 0.4).astype(np.float32))
    found = distances(mini, replace(scene, photos=(soft,)), **QUICK)
    assert found == distances(mini, scene, **QUICK)


def test_the_recipes_maps_are_looked_at(mini):
    scene = load_scene(SCENES / "t03-2")
    sides = [distances(mini, scene, f"attention_loss.map_side={n}", **QUICK) for n in (8, 16)]
    assert sides[0] != sides[1]


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
    settings = made.recipe(bases[family], *made.ON_GROUNDS, "grounds.far=1e9", steps=(1, 0))
    made.run(scene, settings, tmp_path, listener=told.append)
    (said,) = (one.text for one in told if isinstance(one, Notice) and "how far" in one.text)
    assert all(scene.concepts[k].handle in said for k in scene.things)
    assert said.endswith("no grounds are needed")


@pytest.mark.parametrize("more", [(), (f"grounds.phrases=['{'far ' * 80}']",)])
def test_where_nothing_is_far_all_is_bit_for_bit_as_without_grounds(more, bases, scene, tmp_path):
    """Also where a phrase would be cut, had it to be said."""
    base = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    near = made.recipe(bases["sd1"], *made.ON_GROUNDS, *base, "grounds.far=1e9", *more)
    without = made.recipe(bases["sd1"], *made.ON_GROUNDS, *base, "grounds.prob=0")
    pair = [made.run(scene, one, tmp_path / str(i)) for i, one in enumerate((near, without))]
    made.assert_equal(*(made.numbers(one) for one in pair))
    assert not (tmp_path / "0" / "checkpoint" / "grounds.safetensors").exists()


def test_what_is_far_stands_on_grounds(bases, scene, tmp_path, monkeypatch):
    away = {"<bear>": 76.96, "<bowl>": 77.0}
    monkeypatch.setattr(drawn_before, "colour_distances", lambda *given, **more: away)
    told, things = [], []
    draw = drawn_before.draw_grounds

    def watched(backbone, settings, far, **given):
        things.append(far)
        return draw(backbone, settings, far, **given)

    monkeypatch.setattr(drawn_before, "draw_grounds", watched)
    settings = made.recipe(bases["sd1"], *made.ON_GROUNDS, "grounds.far=77", steps=(1, 0))
    made.run(scene, settings, tmp_path, listener=told.append)
    assert things == [frozenset({1})]
    (said,) = (one.text for one in told if isinstance(one, Notice) and "how far" in one.text)
    assert "<bear> 77.0, <bowl> 77.0; at grounds.far=77, on grounds: <bowl>" in said
    assert json.loads((tmp_path / "training.json").read_text())["colours"] == away


def test_a_run_that_goes_on_reads_what_it_saw(bases, scene, tmp_path, monkeypatch):
    """On another device a number near the limit might be another."""
    settings = made.recipe(bases["sd1"], *made.ON_GROUNDS, "run.checkpoint_every=1", steps=(0, 2))

    def kill(event):
        if isinstance(event, StepDone):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made.run(scene, settings, tmp_path, listener=kill)
    monkeypatch.delattr(drawn_before, "colour_distances")
    made.run(scene, settings, tmp_path)


def test_what_another_run_saw_or_a_hand_has_changed_is_not_read(tmp_path):
    kept, seen = tmp_path / "colours.json", {"<bear>": 12.5}
    write_json(kept, {"fingerprint": "mine", "distances": seen})
    assert drawn_before.read_colours(kept, "mine") == seen
    assert drawn_before.read_colours(kept, "another") is None
    kept.write_text(kept.read_text().replace("12.5", "99"))
    assert drawn_before.read_colours(kept, "mine") is None
    assert drawn_before.read_colours(tmp_path / "none.json", "mine") is None


def test_at_0_all_things_are_far_and_no_noun_is_drawn(bases, scene, tmp_path):
    everything = made.recipe(bases["sd1"], *made.ON_GROUNDS, "grounds.far=1e-6")
    at_zero = made.recipe(bases["sd1"], *made.ON_GROUNDS, "grounds.far=0")
    pair = [made.run(scene, one, tmp_path / str(i)) for i, one in enumerate((everything, at_zero))]
    made.assert_equal(*(made.numbers(one) for one in pair))
    assert not (tmp_path / "1" / "checkpoint" / "colours.json").exists()


def test_no_noise_from_1_on_is_as_no_grounds(bases, scene, tmp_path):
    never = made.recipe(bases["sd1"], *made.ON_GROUNDS, "grounds.noise_from=1", "grounds.far=0")
    without = made.recipe(bases["sd1"], *made.ON_GROUNDS, "grounds.prob=0")
    pair = [made.run(scene, one, tmp_path / str(i)) for i, one in enumerate((never, without))]
    made.assert_equal(*(made.numbers(one) for one in pair))


def test_a_template_that_is_too_long_for_a_noun_is_refused(mini):
    scene, settings = load_scene(SCENES / "t03-2"), load_recipe("mini").grounds
    with pytest.raises(
        SceneError, match=r"handles.templates: a prompt is too long(?s:.*)grounds.far=0"
    ):
        colour_distances(mini, scene, settings, template="far " * 40 + "{}", level=1)
