"""Things on grounds that the base draws: what is shown, said, and drawn how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_scene.errors import RecipeError, SceneError
from lora_scene.learning.draws import (
    draw_batch,
    draw_timestep,
    step_generators,
)
from lora_scene.learning.events import Notice, StepDone
from lora_scene.learning.grounds import GroundSet, draw_grounds
from lora_scene.learning.lineage import run_fingerprint
from lora_scene.recipe import (
    Grounds,
    Phase,
    Recipe,
    doubts,
    dump_recipe,
    load_recipe,
    parse_recipe,
)
from lora_scene.scenes.augment import SIMPLE_BACKGROUND
from lora_scene.scenes.handles import UNNAMED_NOUN
from lora_scene.scenes.run_prompts import longest_on_grounds
from lora_scene.size import Size
from tests import tiny
from tests.learning import made

ALWAYS = Grounds(prob=1.0, noise_from=0.6)
FEW = (
    "grounds.prob=1",
    "grounds.far=0",
    "grounds.n_images=2",
    "grounds.n_steps=1",
    "grounds.noise_from=0",
    'grounds.prompts=["sand", "a wall"]',
    'grounds.phrases=["on sand", "by a wall"]',
)


@pytest.fixture(scope="module")
def bench(scene):
    return made.bench(tiny.pipeline("sd1"), scene, made.recipe("unused"), with_lora=False)


@pytest.fixture
def two(bench):
    shape = bench.variants[0].moments.mean.shape
    latents = (torch.full(shape, 5.0), torch.full(shape, 7.0))
    return GroundSet(latents, ("on sand", "at night"), ALWAYS, frozenset({0, 1}))


def under(grounds, samples, concepts, seed=0):
    rng = np.random.default_rng(seed)
    return grounds.under(samples, concepts, n_timesteps=1000, rng=rng)


def test_things_stay_and_the_ground_lies_around_them(bench, two):
    sample = bench.sample((1,), t=600)
    seen = set()
    for seed in range(8):
        (shown,) = under(two, [sample], bench.scene.concepts, seed)
        mask = sample.variant.masks[1]
        value = {"on sand": 5.0, "at night": 7.0}[shown.prompt[-len("at night") :].strip()]
        expected = mask * sample.z + (1 - mask) * value
        torch.testing.assert_close(shown.z, expected)
        assert shown.on_ground
        assert shown.prompt == f"{sample.prompt} {shown.prompt[len(sample.prompt) + 1 :]}"
        assert shown.plain_prompt.startswith(sample.plain_prompt + " ")
        assert (shown.t, shown.subset) == (600, (1,))
        assert shown.eps is sample.eps
        seen.add(value)
    assert seen == {5.0, 7.0}


def test_things_that_the_prompt_leaves_out_are_not_shown(bench, two):
    sample = bench.sample((0,), t=900)
    (shown,) = under(two, [sample], bench.scene.concepts)
    other = (sample.variant.masks[1] == 1) & (sample.variant.masks[0] == 0)
    assert other.any()
    assert set(shown.z[:, other].unique().tolist()) <= {5.0, 7.0}


@pytest.mark.parametrize(
    ("t", "prob", "suffix", "is_background"),
    [
        (599, 1.0, "", False),
        (999, 0.0, "", False),
        (999, 1.0, SIMPLE_BACKGROUND, False),
        (999, 1.0, "", True),
    ],
    ids=["little noise", "never", "says of a background", "is a background"],
)
def test_a_sample_stays_as_it_is(t, prob, suffix, is_background, bench, two):
    variant = replace(bench.variants[0], caption_suffix=suffix)
    sample = replace(bench.sample((0,), t=t), variant=variant)
    concepts = [replace(one, is_background=is_background) for one in bench.scene.concepts]
    grounds = replace(two, settings=replace(ALWAYS, prob=prob))
    assert under(grounds, [sample], concepts) == [sample]


def test_a_sample_that_names_nothing_far_stays_as_it_is(bench, two):
    bear, both = bench.sample((0,), t=999), bench.sample((0, 1), t=999)
    bowl_is_far = replace(two, things=frozenset({1}))
    shown = under(bowl_is_far, [bear, both], bench.scene.concepts)
    assert shown[0] == bear
    assert shown[1].on_ground


def test_only_grounds_of_the_samples_size_are_taken(bench, two):
    other = replace(two, latents=(torch.zeros(4, 8, 8), two.latents[1]))
    for seed in range(6):
        (shown,) = under(other, [bench.sample((0,), t=999)], bench.scene.concepts, seed)
        assert shown.prompt.endswith("at night")


def test_grounds_are_drawn_in_turn_for_every_size(bench, tmp_path):
    settings = Grounds(
        prob=1.0, prompts=("sand", "night"), phrases=("on it", "in it"), n_images=6, n_steps=1
    )
    shares, things = {Size(16, 16): 0.5, Size(24, 16): 0.5}, frozenset({0})
    cache = tmp_path / "grounds.safetensors"
    found = draw_grounds(bench.backbone, settings, things, shares=shares, seed=0, cache=cache)
    drawn = Counter(
        (tuple(z.shape), said) for z, said in zip(found.latents, found.phrases, strict=True)
    )
    wide, square = (4, 16, 24), (4, 16, 16)
    assert drawn == {
        (square, "on it"): 2, (square, "in it"): 1, (wide, "on it"): 1, (wide, "in it"): 2,
    }  # fmt: skip
    written = cache.stat().st_mtime_ns
    other = replace(settings, phrases=("by it", "at it"), prob=0.5, outside_weight=0.4)
    again = draw_grounds(bench.backbone, other, things, shares=shares, seed=0, cache=cache)
    assert all(map(torch.equal, found.latents, again.latents))
    assert cache.stat().st_mtime_ns == written, "drawn again for what is said of them"


@pytest.mark.parametrize("timesteps", ["uniform", "noisy", "clean"])
def test_share_is_how_often_a_sample_is_shown_so(timesteps):
    """Against a count of what is drawn."""
    phase, rng = Phase(timesteps=timesteps), np.random.default_rng(0)
    recipe = Recipe(grounds=replace(ALWAYS, prob=0.5, far=0.0))
    drawn = [draw_timestep(phase, 1000, rng) >= 600 for _ in range(20_000)]
    assert recipe.ground_share(phase) == pytest.approx(0.5 * np.mean(drawn), abs=0.01)
    assert Recipe(grounds=replace(ALWAYS, far=40.0)).ground_share(phase) == 0, "nothing may be far"


def test_a_run_draws_its_grounds_once_and_tells_of_them(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], *FEW, steps=(2, 2))
    told = []
    result = made.run(scene, settings, tmp_path / "whole", listener=told.append)
    assert any("grounds: 2 pictures" in one.text for one in told if isinstance(one, Notice))
    kept = parse_recipe((tmp_path / "whole" / "recipe.toml").read_text())
    assert kept.grounds == settings.grounds
    without = made.run(scene, made.recipe(bases["sd1"], steps=(2, 2)), tmp_path / "without")
    pairs = zip(*(made.numbers(one).values() for one in (result, without)), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)


def test_an_interrupted_run_goes_on_with_the_same_grounds_bit_for_bit(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], *FEW, "run.checkpoint_every=1", steps=(1, 3))
    whole = made.run(scene, settings, tmp_path / "whole")

    def kill(event):
        if isinstance(event, StepDone) and (event.phase, event.step) == (2, 2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made.run(scene, settings, tmp_path / "cut", listener=kill)
    drawn = tmp_path / "cut" / "checkpoint" / "grounds.safetensors"
    before = drawn.stat().st_mtime_ns
    resumed = made.run(scene, settings, tmp_path / "cut")
    assert drawn.stat().st_mtime_ns == before
    made.assert_equal(made.numbers(resumed), made.numbers(whole))


def test_no_grounds_leave_a_recipes_fingerprint_as_it_was(scene):
    recipe = load_recipe("sd15")
    assert "[grounds]" in dump_recipe(recipe)
    marks = {
        run_fingerprint(scene, load_recipe("sd15", overrides), "base")
        for overrides in (
            [],
            ["grounds.n_images=3"],
            ["grounds.prompts=['sand']", "grounds.phrases=['on']"],
        )
    }
    assert len(marks) == 1
    assert run_fingerprint(scene, load_recipe("sd15", ["grounds.prob=1"]), "base") not in marks


def test_how_nouns_are_drawn_is_of_the_fingerprint_where_they_are(scene):
    marks = [
        run_fingerprint(scene, load_recipe("sd15", ["grounds.prob=1", *more]), "base")
        for more in (
            ["grounds.far=0"],
            ["grounds.far=0", "grounds.n_per_noun=3"],
            ["grounds.far=40"],
            ["grounds.far=40", "grounds.n_per_noun=3"],
            ["grounds.far=41"],
        )
    ]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["grounds.phrases=['on sand']"], "as many as grounds.prompts"),
        (["grounds.phrases=[]", "grounds.prompts=[]"], "at least one"),
        (["grounds.prompts=['a photo of {}']", "grounds.phrases=['on sand']"], "no place"),
        (["grounds.prompts=['sand']", "grounds.phrases=[' ']"], "no place"),
    ],
)
def test_grounds_that_cannot_be_meant_are_refused(given, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("sd15", given)


@pytest.mark.parametrize("key", ["prompts", "phrases"])
def test_a_ground_with_a_thing_on_it_is_refused_before_the_base_is_loaded(key, scene, tmp_path):
    other = {"prompts": "phrases", "phrases": "prompts"}[key]
    given = [*FEW, f"grounds.{key}=['behind a <bear>']", f"grounds.{other}=['sand']"]
    with pytest.raises(RecipeError, match="a ground has no things on it"):
        made.run(scene, made.recipe("nowhere", *given), tmp_path / "out")


def test_a_phrase_that_would_be_cut_is_refused(bases, scene, tmp_path):
    given = [*FEW, f"grounds.phrases=['{'far ' * 80}']", "grounds.prompts=['sand']"]
    with pytest.raises(SceneError, match=r"grounds.phrases: a prompt is too long"):
        made.run(scene, made.recipe(bases["sd1"], *given), tmp_path / "out")


def test_that_things_without_nouns_stand_on_no_grounds_is_told(bases, scene, tmp_path):
    unnamed = [replace(one, noun=UNNAMED_NOUN) for one in scene.concepts]
    settings = made.recipe(bases["sd1"], *FEW, "grounds.far=40", steps=(1, 0))
    told = []
    made.run(replace(scene, concepts=tuple(unnamed)), settings, tmp_path, listener=told.append)
    said = [one.text for one in told if isinstance(one, Notice)]
    assert any("no thing has a noun" in one for one in said)
    assert not any("the grounds:" in one for one in said)


def test_a_ground_that_seems_to_hold_a_thing_is_told(bases, scene, tmp_path):
    given = [*FEW, "grounds.prompts=['a wall', 'two bears']", "grounds.phrases=['by it', 'there']"]
    told = []
    made.run(scene, made.recipe(bases["sd1"], *given), tmp_path, listener=told.append)
    said = [one.text for one in told if isinstance(one, Notice) and "another bear" in one.text]
    assert len(said) == 1
    assert "two bears" in said[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["grounds.n_images=2"], "the first 2 are drawn"),
        (["augment.recompose_prob=1", "augment.rearrange_prob=0"], "no sample stands on a ground"),
        (["masked_loss.enabled=false"], "things grow faint"),
    ],
)
def test_grounds_that_were_seldom_meant_are_told(given, said):
    assert any(said in one for one in doubts(load_recipe("sd15", ["grounds.prob=1", *given])))
    assert not any(said in one for one in doubts(load_recipe("sd15", given)))


def test_longest_prompts_name_all_things_and_each_ground(bench):
    concepts, both = bench.scene.concepts, frozenset({0, 1})
    found = longest_on_grounds(bench.variants, concepts, made.recipe("unused", *FEW), both)
    handles = [concept.handle for concept in concepts if not concept.is_background]
    assert not any(one.handle in said for one in concepts if one.is_background for said in found)
    for said in (" on sand", " by a wall"):
        assert any(one.endswith(said) and all(h in one for h in handles) for one in found)


@pytest.mark.parametrize("sampling", ["single", "union"])
def test_longest_prompts_on_grounds_name_something_far_and_are_drawn(sampling, scene, two):
    """Against what is drawn: of both things the bowl alone is far."""
    given = ["phase1.steps=0", f"phase2.sampling={sampling}", "augment.rearrange_prob=0.5"]
    settings = made.recipe("unused", *FEW, *given, "augment.n_variants=4")
    bench, bowl = made.bench(tiny.pipeline("sd1"), scene, settings, with_lora=False), frozenset({1})
    grounds = replace(two, things=bowl, settings=settings.grounds, phrases=("on sand", "by a wall"))
    found = longest_on_grounds(bench.variants, scene.concepts, settings, bowl)
    drawn = set()
    for step in range(200):
        samples = draw_batch(
            1,
            bench.variants,
            concepts=scene.concepts,
            phase=settings.phase2,
            handles=settings.handles,
            n_timesteps=1000,
            generators=step_generators(0, 2, step),
        )
        (shown,) = under(grounds, samples, scene.concepts, seed=step)
        drawn |= {" ".join(sorted(shown.prompt.split()))} if shown.on_ground else set()
    assert {" ".join(sorted(one.split())) for one in found} <= drawn, "one is never drawn"
    assert max(map(len, found)) == max(map(len, drawn))
