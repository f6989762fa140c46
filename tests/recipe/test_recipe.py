from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from lora_scene.errors import RecipeError
from lora_scene.recipe import (
    Recipe,
    doubts,
    dump_recipe,
    idle_settings,
    load_recipe,
    parse_recipe,
    quoted,
    recipe_names,
    recipe_text,
)
from lora_scene.workshop.protocol import read_protocol

PROTOCOLS = Path(__file__).parents[2] / "benchmarks" / "protocols"
BENCHED = sorted((Path(__file__).parents[2] / "benchmarks" / "recipes").rglob("*.toml"))


def problems(*overrides: str, name: str = "paper") -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def test_shipped_recipes_are_those_that_are_documented():
    expected = {"full", "mini", "paper", "sd15", "sd21", "sdxl", "summary"}
    assert expected <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_loads_and_survives_dump_and_parse(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert parse_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_says_how_to_launch_it(name):
    text = recipe_text(name)
    assert text.startswith("#")
    assert f"--recipe {name}" in text or name == "summary"


def test_default_recipe_survives_dump_and_parse():
    assert parse_recipe(dump_recipe(Recipe())) == Recipe()


def test_the_page_of_settings_has_all_of_them_with_their_defaults():
    told = {}
    for line in (Path(__file__).parents[2] / "docs/settings.md").read_text("utf-8").splitlines():
        if match := re.match(r"\| `(\w+)\.(\w+)` \| (.*?) ?\| \S", line):
            told[match[1], match[2]] = re.findall(r"`([^`]*)`", match[3])
    has = {}
    for section in dataclasses.fields(Recipe):
        settings = getattr(Recipe(), section.name)
        if dataclasses.is_dataclass(settings) and section.name != "phase2":
            for key, value in dataclasses.asdict(settings).items():
                values = [value] if isinstance(value, str) else value
                has[section.name, key] = values
    assert told.keys() == has.keys()
    for name, value in has.items():
        if isinstance(value, bool | int | float):
            assert json.loads(told[name][0]) == value, name
        else:
            assert ", ".join(told[name]) == ", ".join(value), name


def test_paper_recipe_keeps_the_published_constants():
    recipe = load_recipe("paper")
    assert [phase.steps for phase in recipe.phases] == [400, 400]
    assert [phase.attention_weight for phase in recipe.phases] == [0.01, 0.01]
    assert recipe.phase1.rows_lr == 5e-4
    assert recipe.prior.weight == 1.0
    assert recipe.masked_loss.normalize == "none"
    assert recipe.masked_loss.outside_weight == 0.0
    assert recipe.attention_loss.reduction == "sum"
    assert recipe.augment.flip_prob == 0.5


def test_full_recipe_differs_from_paper_only_in_phase_two():
    paper, full = (dataclasses.asdict(load_recipe(name)) for name in ("paper", "full"))
    different = {key for key in paper if paper[key] != full[key]}
    assert different == {"name", "description", "phase2"}
    assert full["phase2"]["trains"] == "full"
    assert full["phase2"]["weights_lr"] == full["phase2"]["rows_lr"] == 2e-6


def test_summary_recipe_does_what_the_circulating_summary_says():
    recipe = load_recipe("summary")
    assert recipe.phase1.sampling == "single"
    assert (recipe.phase1.attention_weight, recipe.phase1.pairwise_weight) == (0.0, 0.0)
    assert recipe.phase2.sampling == "union"
    assert (recipe.phase2.attention_weight, recipe.phase2.pairwise_weight) == (0.0, 0.1)
    assert recipe.handles.init == "random"


def test_no_prompt_of_prior_or_grounds_is_an_evaluation_prompt():
    evaluated = [
        "beach",
        "jungle",
        "snow",
        "street",
        "fabric",
        "floor",
        "city",
        "mountain",
        "Eiffel",
        "water",
    ]
    for name in recipe_names():
        recipe = load_recipe(name)
        for prompt in (*recipe.prior.prompts, *(recipe.grounds.prompts if name != "mini" else ())):
            assert not [word for word in evaluated if word in prompt], prompt
    judged = " ".join(read_protocol(PROTOCOLS / "long-test.toml").plan.prompts)
    grounds = load_recipe("mini").grounds
    words = {word for text in (*grounds.prompts, *grounds.phrases) for word in text.split()}
    assert not (words - {"a", "photo", "of", "on", "in", "the", "at"}) & set(judged.split())


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("lora.rank=7", lambda recipe: recipe.lora.rank == 7),
        ("lora.alpha=3", lambda recipe: recipe.lora.alpha == 3.0),
        ("phase2.schedule=cosine", lambda recipe: recipe.phase2.schedule == "cosine"),
        ('phase2.schedule="linear"', lambda recipe: recipe.phase2.schedule == "linear"),
        ("base.model=some/model", lambda recipe: recipe.base.model == "some/model"),
        ("base.compile=true", lambda recipe: recipe.base.compile is True),
        ('lora.targets=["to_k","to_v"]', lambda recipe: recipe.lora.targets == ("to_k", "to_v")),
        (" phase1.steps = 3 ", lambda recipe: recipe.phase1.steps == 3),
        ("name=mine", lambda recipe: recipe.name == "mine"),
    ],
)
def test_override_is_read_as_toml_or_as_a_bare_word(override, read):
    assert read(load_recipe("paper", [override]))


@pytest.mark.parametrize("text", ["models/bär🐻𠮷", 'a "b" \\ c', "\x7f\t", "#x = 1"])
def test_a_quoted_text_is_read_back_as_it_is(text):
    assert load_recipe("paper", [f"base.model={quoted(text)}"]).base.model == text


def test_later_override_wins_and_the_rest_of_the_section_stays():
    recipe = load_recipe("paper", ["lora.dropout=0.5", "lora.dropout=0.25"])
    assert recipe.lora == dataclasses.replace(load_recipe("paper").lora, dropout=0.25)


def test_a_section_in_double_brackets_is_told_with_single_ones(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "sd15"\n[[lora]]\nrank = 4\n')
    for overrides in ([], ["lora.dropout=0.1"]):
        with pytest.raises(RecipeError, match=r"write \[lora\], once, in single brackets"):
            load_recipe(tmp_path / "mine.toml", overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lora.rnak=4", "did you mean rank"),
        ("optimiser.name=adamw", "did you mean optimizer"),
        ("lora.rank=many", "a whole number"),
        ("lora.rank=4.5", "a whole number"),
        ("lora.rank=true", "a whole number"),
        ("lora.rank=0", "a whole number from 1 to 1024"),
        ("lora.dropout=1", "a number from 0 to 0.95"),
        ("base.compile=1", "true or false"),
        ("base.model=3", "a text"),
        ("lora.targets=to_k", "a list of texts"),
        ("lora.targets=[1]", "a list of texts"),
        ("lora=4", "expected a section"),
        ("lora.rank.deep=4", "not a section"),
        ("lora.rank", "an override needs a value"),
        ("steps=3", "did you mean phase1.steps or phase2.steps?"),
        ("rank=4", "did you mean lora.rank?"),
        ("asks_base=true", "asks_base: unknown key"),
        ("nam=mine", "did you mean name"),
        ("optimizer.name=adam", "one of adamw8bit, adamw,"),
        ("phase1.rows_lr=nan", "a number from 0 to 1"),
        ("phase1.attention_weight=inf", "a number from 0 to inf"),
        ("run.seed=-1", "a whole number from 0"),
    ],
)
def test_wrong_override_is_refused_with_what_was_expected(override, said):
    assert said in problems(override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (['handles.templates=["a photo"]'], "a template needs one {}"),
        (['handles.templates=["{} and {}"]'], "a template needs one {}"),
        (['handles.templates=["{} in {place}"]'], "a template needs one {}"),
        (['handles.templates=["{} at {"]'], "a template needs one {}"),
        (['handles.templates=["a {{}} x"]'], "a template needs one {}"),
        (["handles.templates=[]"], "at least one template"),
        (['prior.prompts=["a {noun}"]'], "prior.prompts"),
        (['prior.prompts=["a {{}}"]'], "braces other than {}"),
        (['prior.prompts=["a {0}"]'], "braces other than {}"),
        (['run.sample_prompts=["a {}"]'], "nothing is filled in"),
        (['run.sample_prompts=["a <bear> {"]'], "no braces"),
        (["prior.weight=1", "prior.prompts=[]"], "at least one prompt"),
        (["phase1.rows_lr=0"], "phase1.rows_lr"),
        (["phase2.weights_lr=0"], "phase2.weights_lr"),
        (["phase2.trains=full", "phase2.weights_lr=0"], "trains full with a learning rate of 0"),
        (["phase1.trains=full", "phase1.weights_lr=1e-6"], "not both"),
        (["phase2.trains=full", "base.quantization=nf4"], "low-bit weights cannot be trained"),
        (
            ["phase2.trains=full", "masked_loss.outside_target=base"],
            "no untouched base to predict with",
        ),
        (["augment.crop_prob=0.6", "augment.paste_prob=0.6"], "a sum of at most 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, said):
    assert said in problems(*overrides)


def test_all_problems_are_reported_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[lora]\nrnak = 3\nrank = "x"\n[phase1]\nsteps = -1\n', "utf-8")
    said = problems("run.batch_size=0", "nonsense", name=path)
    for expected in (
        "5 problems",
        "lora.rnak",
        "lora.rank",
        "phase1.steps",
        "run.batch",
        "nonsense",
    ):
        assert expected in said


def test_all_contradictions_are_reported_at_once():
    said = problems(
        "augment.crop_prob=1", "augment.paste_prob=1", "phase2.weights_lr=0", "handles.templates=[]"
    )
    for expected in ("3 problems", "a sum of at most 1", "phase2.weights_lr", "handles.templates"):
        assert expected in said


def test_carried_recipe_is_checked_like_a_read_one():
    with pytest.raises(RecipeError, match="a rate above 0"):
        parse_recipe("[phase1]\nrows_lr = 0\n")
    with pytest.raises(RecipeError, match="not valid TOML"):
        parse_recipe("[lora")


def test_unknown_recipe_offers_the_nearest():
    with pytest.raises(RecipeError, match="did you mean sdxl"):
        load_recipe("sdx")


def test_recipe_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("name = 'x'", "utf-16")
    with pytest.raises(RecipeError, match="a file of UTF-8 text"):
        load_recipe(path)


def test_extended_recipe_changes_only_what_it_says(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "summary"\n[lora]\nrank = 3\n', "utf-8")
    mine, summary = load_recipe(tmp_path / "mine.toml"), load_recipe("summary")
    expected = dataclasses.replace(
        summary, name="mine", lora=dataclasses.replace(summary.lora, rank=3)
    )
    assert mine == expected


def test_extended_file_is_looked_for_beside_the_file_that_names_it(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "parent.toml").write_text('extends = "sd15"\n[lora]\nrank = 5\n', "utf-8")
    (folder / "child.toml").write_text('extends = "parent.toml"\n[lora]\nalpha = 2\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(folder / "child.toml")
    assert (recipe.lora.rank, recipe.lora.alpha) == (5, 2.0)


def test_a_recipe_that_extends_none_is_named(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "sd51"\n', "utf-8")
    with pytest.raises(RecipeError, match=r"mine.toml extends sd51: no such(.|\n)*one of full"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_circle_of_recipes_is_refused(n, tmp_path):
    for i in range(n):
        path = tmp_path / f"{i}.toml"
        path.write_text(f'extends = "{(i + 1) % n}.toml"\n', "utf-8")
    with pytest.raises(RecipeError, match="in a circle"):
        load_recipe(tmp_path / "0.toml")


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n"])
def test_a_recipe_that_says_nothing_is_refused(text, tmp_path):
    (tmp_path / "empty.toml").write_text(text, "utf-8")
    (tmp_path / "child.toml").write_text('extends = "empty.toml"\n', "utf-8")
    for name in ("empty.toml", "child.toml"):
        with pytest.raises(RecipeError, match="says nothing"):
            load_recipe(tmp_path / name)


def test_a_chain_of_recipes_without_end_is_refused(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.toml").write_text(f'extends = "{i + 1}.toml"\n', "utf-8")
    with pytest.raises(RecipeError, match="without end"):
        load_recipe(tmp_path / "0.toml")


def test_a_circle_is_seen_however_its_paths_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('extends = "./mine.toml"\n', "utf-8")
    with pytest.raises(RecipeError, match="in a circle"):
        load_recipe("mine.toml")


def test_a_byte_order_mark_before_a_recipe_is_no_mistake(tmp_path):
    (tmp_path / "mine.toml").write_text("\ufeff[lora]\nrank = 3\n", "utf-8")
    assert load_recipe(tmp_path / "mine.toml").lora.rank == 3


@pytest.mark.parametrize(
    "override",
    ["lora.rank=" + "9" * 5000, "lora.rank=0x" + "f" * 5000, "run.seed=" + "9" * 400,
     "handles.templates=" + "[" * 9999, ".".join("a" * 9999) + "=1", "lora.alpha=" + "9" * 400],
)  # fmt: skip
def test_hostile_overrides_are_refused_shortly(override):
    said = problems(override)
    assert len(said) < 5000


IDLE = {
    "lora.rank=32": "no phase trains adapters",
    "full.text_encoder=false": "no phase trains the model itself",
    "optimizer.weight_decay=0.5": "rows alone",
    "prior.n_images=7": "prior.weight is 0",
    "masked_loss.outside_target=base": "masked_loss.outside_weight is 0",
    "attention_loss.reduction=mean": "no phase has an attention_weight",
    "augment.crop_min_scale=0.2": "augment.crop_prob is 0",
    "augment.n_variants=3": "no variant is random",
    "run.snapshots=4": "phase2.steps is 0",
    "phase1.weights_lr=0.3": "phase1 trains rows alone",
    "phase1.end_fraction=0.5": "phase1.schedule is constant",
    "phase1.draws=3": "the untouched base is not asked",
    "phase2.rows_lr=0.5": "phase2.steps is 0",
}
ROWS_ALONE = ("phase2.steps=0", "prior.weight=0", "phase1.attention_weight=0")


@pytest.mark.parametrize(("setting", "why"), IDLE.items())
def test_a_setting_that_changes_nothing_is_told(setting, why):
    recipe = load_recipe("paper", [*ROWS_ALONE, setting])
    (told,) = idle_settings(recipe, [*ROWS_ALONE, setting])
    assert told.startswith(f"{setting.partition('=')[0]} changes nothing: {why}")


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("summary", ["phase1.pairwise_weight=0.1"], "phase1.sampling is single"),
        ("paper", ["prior.weight=2", "phase2.steps=0"], "rows alone are trained"),
        ("sd15", ["phase2.draws=400"], "phase2 has no more steps"),
        ("sd15", ["phase2.draws=401"], "phase2 has no more steps"),
    ],
)
def test_a_setting_that_a_phase_does_not_come_to_is_told(name, settings, why):
    (told,) = idle_settings(load_recipe(name, settings), settings)
    assert told.startswith(f"{settings[0].partition('=')[0]} changes nothing: {why}")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("paper", ["prior.weight=2", "phase2.steps=0", "prior.prompts=['a <bear>, a {}']"]),
        ("sd15", ["phase2.draws=399", "phase2.pairwise_weight=0.1", "phase1.draws=0"]),
        ("paper", ["lora.rank=32", "prior.n_images=7", "phase2.weights_lr=1e-3"]),
        ("paper", ["masked_loss.outside_target=base", "masked_loss.outside_weight=0.5"]),
        ("full", ["full.text_encoder=false", "optimizer.name=adamw"]),
        ("sd15", ["phase1.draws=3", "phase2.end_fraction=0.5", "augment.n_variants=3"]),
        ("mini", ["run.snapshots=4", "attention_loss.form=across", "masked_loss.normalize=none"]),
    ],
)
def test_a_setting_that_counts_is_not_called_idle(name, settings):
    assert idle_settings(load_recipe(name, settings), settings) == []


def test_draws_that_come_again_too_often_are_told() -> None:
    (told,) = doubts(load_recipe("sd15", ["phase2.steps=4000"]))
    assert "sees each 80 times" in told
    assert "phase2.draws=500" in told
    for settings in (["phase2.draws=500"], ["phase2.draws=0"], ["masked_loss.outside_weight=0"]):
        assert not list(doubts(load_recipe("sd15", ["phase2.steps=4000", *settings])))


def test_variants_that_the_draws_never_reach_are_told() -> None:
    many = ["augment.n_variants=200"]
    (told,) = doubts(load_recipe("sd15", many))
    assert "of 200 variants about 38 are drawn" in told
    for settings in (["phase2.draws=400"], ["phase1.draws=0"], ["augment.rearrange_prob=0"]):
        assert not list(doubts(load_recipe("sd15", [*many, *settings])))
    assert not list(doubts(load_recipe("sd15", ["phase1.steps=4", "phase2.steps=4"])))


@pytest.mark.parametrize(
    ("settings", "n_told"),
    [
        (["optimizer.name=prodigy"], 1),
        (["optimizer.name=prodigy", "phase2.weights_lr=1"], 0),
        (["phase2.weights_lr=1"], 1),
        (["phase2.weights_lr=1", "phase2.steps=0"], 0),
    ],
)
def test_a_rate_that_is_another_optimizers_is_told(settings, n_told) -> None:
    told = list(doubts(load_recipe("sd15", settings)))
    assert len(told) == n_told
    assert all("phase2.weights_lr" in one and "prodigy" in one for one in told)


@pytest.mark.parametrize("name", [*recipe_names(), *BENCHED])
def test_nothing_is_doubted_of_a_shipped_or_benchmarked_recipe(name) -> None:
    assert not list(doubts(load_recipe(name)))
