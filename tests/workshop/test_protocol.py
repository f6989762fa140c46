from __future__ import annotations

from pathlib import Path

import pytest

from lora_scene.errors import JudgingError, RecipeError
from lora_scene.recipe import load_recipe
from lora_scene.workshop.methods import equalised, forwards_of, recipes_of
from lora_scene.workshop.protocol import read_protocol
from tests.judging import fakes

TOML = """
name = "tiny"
base = "nowhere"
image_forwards = 24
reference = "full"
[scenes]
headline = ["scenes/*"]
[drawing]
prompts = ["a photo of {} on grass"]
[curve]
weights = [0, 0.5]
[[methods]]
name = "ours"
recipe = "own.toml"
scenes = ["headline"]
seeds = [0, 1]
[[methods]]
name = "full"
recipe = "full"
overrides = ["prior.weight=0"]
scenes = ["headline"]
"""


def write(folder: Path, text: str = TOML) -> Path:
    for name in ("a", "b"):
        (folder / "scenes" / name).mkdir(parents=True, exist_ok=True)
    (folder / "own.toml").write_text('extends = "sd15"\n[lora]\nrank = 3\n')
    (folder / "protocol.toml").write_text(text)
    return folder / "protocol.toml"


def test_runs_are_methods_times_scenes_times_seeds_interleaved(tmp_path) -> None:
    runs = list(read_protocol(write(tmp_path)).runs())
    assert [run.key for run in runs] == [
        "ours/headline-a-s0",
        "full/headline-a-s0",
        "ours/headline-b-s0",
        "full/headline-b-s0",
        "ours/headline-a-s1",
        "ours/headline-b-s1",
    ]


def test_a_recipe_beside_the_protocol_is_found(tmp_path) -> None:
    protocol = read_protocol(write(tmp_path))
    [(recipe, _)] = recipes_of(protocol, next(protocol.runs()), scene=fakes.scene())
    assert (recipe.lora.rank, recipe.base.model, recipe.name) == (3, "nowhere", "ours")


def test_every_training_sees_the_same_number_of_pictures(tmp_path) -> None:
    protocol = read_protocol(write(tmp_path))
    for run in protocol.runs():
        [(recipe, _)] = recipes_of(protocol, run, scene=fakes.scene())
        assert forwards_of(recipe, fakes.scene()) == 24
        assert recipe.phase1.steps == recipe.phase2.steps


def test_the_prior_and_the_base_as_target_cost_pictures() -> None:
    plain = ["phase1.steps=4", "phase1.draws=0", "phase2.steps=6", "phase2.draws=0"]
    photo, base = ("masked_loss.outside_target=" + kind for kind in ("data", "base"))
    for more, cost in (
        ([photo, "run.batch_size=2", "run.accumulation=3"], 10 * 6),
        ([photo, "prior.weight=1"], 10 * 2),
        ([base], 10 * 2),
        ([base, "phase2.draws=2"], 10 + 4 + 2),
        ([base, "phase2.draws=9"], 10 + 4 + 6),
        ([photo, "phase2.draws=2"], 10),
    ):
        assert forwards_of(load_recipe("sd15", [*plain, *more]), fakes.scene()) == cost


def test_grounds_cost_what_draws_them_and_save_what_the_base_is_not_asked() -> None:
    steps = ["phase1.steps=0", "phase2.steps=100", "phase2.draws=50"]
    drawn = [
        "grounds.prob=0.5",
        "grounds.far=0",
        "grounds.n_images=3",
        "grounds.n_steps=4",
        "grounds.noise_from=0.6",
    ]
    for more, cost in (
        ([], 100 + 50 - 10 + 3 * 4 * 2),  # of 50 draws two fifths have noise enough, half of those
        (["phase2.timesteps=noisy"], 100 + 50 - 16 + 24),  # 1 - 0.36 of them
        (["phase2.timesteps=clean"], 100 + 50 - 4 + 24),  # 0.16
        (["grounds.guidance=1"], 100 + 50 - 10 + 12),
        (["masked_loss.outside_target=data"], 100 + 24),
        # two nouns; what is far is not known before, so the base is taken to be asked each time
        (["grounds.far=40", "grounds.n_per_noun=5"], 100 + 50 + 24 + 2 * 5 * (4 * 2 + 1)),
    ):
        assert forwards_of(load_recipe("sd15", [*steps, *drawn, *more]), fakes.scene()) == cost
    scene = fakes.scene()
    recipe = equalised(load_recipe("sd15", [*steps, *drawn]), 304, scene)  # 24 for the grounds
    assert (recipe.phase2.steps, recipe.phase2.draws, forwards_of(recipe, scene)) == (200, 100, 304)
    with pytest.raises(RecipeError, match="takes all image-forwards"):
        equalised(load_recipe("sd15", [*steps, *drawn]), 24, scene)


def test_draws_that_come_again_are_scaled_with_the_steps() -> None:
    settings = ['masked_loss.outside_target="base"', "phase1.steps=0", "phase2.steps=80"]
    recipe = equalised(load_recipe("sd15", [*settings, "phase2.draws=20"]), 50, fakes.scene())
    assert (recipe.phase2.steps, recipe.phase2.draws) == (40, 10)


def test_a_phase_that_is_left_out_stays_out() -> None:
    settings = ["masked_loss.outside_target=data", "phase1.steps=0", "phase2.steps=7"]
    recipe = equalised(load_recipe("sd15", settings), 100, fakes.scene())
    assert (recipe.phase1.steps, recipe.phase2.steps) == (0, 100)


def test_scenes_may_lie_elsewhere(tmp_path) -> None:
    beside = read_protocol(write(tmp_path)).scenes
    absolute = TOML.replace('"scenes/*"', f'"{(tmp_path / "scenes" / "*").as_posix()}"')
    assert read_protocol(write(tmp_path, absolute)).scenes == beside


def test_training_separately_shares_the_pictures_among_the_concepts(tmp_path) -> None:
    text = TOML.replace('name = "ours"', 'name = "ours"\nkind = "separate"')
    protocol = read_protocol(write(tmp_path, text))
    parts = recipes_of(protocol, next(protocol.runs()), scene=fakes.scene())
    assert [scene.handles for _, scene in parts] == [("<bear>",), ("<bowl>",)]
    assert [forwards_of(*part) for part in parts] == [12, 12]
    assert parts[1][1].photos[0].masks.shape == (1, 64, 64)


def test_guided_sampling_trains_nothing(tmp_path) -> None:
    text = TOML.replace('recipe = "own.toml"', 'kind = "guided"')
    protocol = read_protocol(write(tmp_path, text))
    assert recipes_of(protocol, next(protocol.runs()), scene=fakes.scene()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('judgee = "x"\n[scenes]', 'judgee = "x"\n[scenes]', r"judgee: unknown key[\s\S]*judge"),
        ("image_forwards = 24", 'image_forwards = "24"', "image_forwards: wrong value"),
        ('reference = "full"', 'reference = "fool"', "no such method"),
        ('"scenes/*"', '"scenas/*"', "no such scene folder"),
        ('"a photo of {} on grass"', '"grass"', "one {} each"),
        ('"a photo of {} on grass"', '"a {{}}"', "no other brace"),
        ("seeds = [0, 1]", 'seeds = [0, "one"]', "a list of whole numbers"),
        ('recipe = "own.toml"', 'kind = "recipes"', "one of recipe, separate, guided"),
        ('recipe = "own.toml"', "", "a recipe is needed"),
        ('name = "full"', 'name = "ours"', "names of their own"),
        ('scenes = ["headline"]\nseeds', 'scenes = ["main"]\nseeds', "no such group"),
        ('base = "nowhere"', "", "base: missing"),
        ('name = "full"', 'name = "full"\ncourse_of = "our"', "course_of: no such method"),
        ('name = "ours"', 'name = "a/b"', "a/b: a name that is no folder's"),
        ('name = "ours"', 'name = ".ours"', "a name that is no folder's"),
        ("headline = [", '"head\\\\line" = [', "a name that is no folder's"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "two runs would share a folder"),
        ("[curve]", "[drawing.curve]", "drawing.curve: unknown key"),
        ("[drawing]", "[drawing]\nseeds = []", r"drawing\.seeds: no such seeds"),
        ("[drawing]", "[drawing]\nseeds = [-1]", r"drawing\.seeds: no such seeds"),
        ("[drawing]", "[drawing]\nguidance = 101", "guidance: wrong value"),
        ("[drawing]", '[drawing]\nscheduler = "ddimm"', "no such scheduler"),
        ("[curve]", "[curve]\nseeds = []", r"curve\.seeds: no such seeds"),
        ("[curve]", "[curve]\nseeds = [-1]", r"curve\.seeds: no such seeds"),
        ("[curve]", "[curve]\nn_prompts = -1", "n_prompts: wrong value"),
        ("[0, 0.5]", "[1001]", r"curve\.weights: no such weights"),
        ("seeds = [0, 1]", "batch = -3", "batch: wrong value"),
        ("seeds = [0, 1]", "guide_scale = -0.1", "guide_scale: wrong value"),
        ("seeds = [0, 1]", "seeds = []", r"methods\.ours\.seeds: no such seeds"),
        ('recipe = "own.toml"', 'recipe = "own.toml"\ncourse_of = "ours"', "no such method"),
        ("image_f", 'clip = "x/y"\nimage_f', r"^\S*\s*clip: nothing looks at this"),
        ("image_f", 'judge = "mini"\nfinder = "attention"\nimage_f', r"finder: [\s\S]*clip\+dino"),
        ("image_f", 'dino = "x/y"\nimage_f', r"dino: nothing looks at this[\s\S]*mini has parts"),
        ("weights = [0, 0.5]", "n_prompts = 1", r"curve\.n_prompts: nothing looks at this"),
        ("seeds = [0, 1]", "guide_scale = 0.2", r"methods\.ours\.guide_scale: nothing looks"),
        ("seeds = [0, 1]", "batch = 2", r"methods\.ours\.batch: nothing looks at this"),
        ("seeds = [0, 1]", 'kind = "guided"', r"methods\.ours\.recipe: [\s\S]*trains nothing"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, old, new, message) -> None:
    text = TOML.replace("[scenes]", new, 1) if "judgee" in new else TOML.replace(old, new, 1)
    with pytest.raises(JudgingError, match=message):
        read_protocol(write(tmp_path, text))


def test_all_mistakes_are_said_at_once(tmp_path) -> None:
    text = TOML.replace("= 24", '= "24"').replace("[0, 0.5]", '"0"')
    with pytest.raises(JudgingError, match="2 problems"):
        read_protocol(write(tmp_path, text))


def test_without_weights_a_curve_needs_no_seeds(tmp_path) -> None:
    text = TOML.replace("weights = [0, 0.5]", "seeds = []")
    assert read_protocol(write(tmp_path, text)).curve.seeds == ()


def test_a_file_that_is_no_toml_is_refused(tmp_path) -> None:
    with pytest.raises(JudgingError, match="not valid TOML"):
        read_protocol(write(tmp_path, "name = "))


def test_parts_of_the_judge_that_is_asked_are_taken(tmp_path) -> None:
    parts = 'judge = "clip+dino"\nclip = "a/b"\ndino = "c/d"\nfinder = "clipseg"\nimage_f'
    protocol = read_protocol(write(tmp_path, TOML.replace("image_f", parts, 1)))
    assert (protocol.clip, protocol.dino, protocol.finder) == ("a/b", "c/d", "clipseg")
