"""Settings that are right alone and wrong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from lora_scene.errors import RecipeError
from lora_scene.recipe.settings import Phase
from lora_scene.recipe.shown import Grounds
from lora_scene.recipe.templates import has_other_braces, is_template
from lora_scene.recipe.tree import Recipe

USUAL_REPEATS = 8  # of a draw, in the recipes for real bases
MOST_REPEATS = 12  # that lost nothing: benchmarks/notes/what-paid.md
LEAST_PRODIGY_LR = 0.1  # prodigy's factor, usually 1; no other optimizer's rate is as high


def contradictions(recipe: Recipe) -> Iterator[RecipeError]:
    """Yield settings that are right alone and wrong together."""
    yield from _texts(recipe)
    yield from _phases(recipe)
    yield from _watching(recipe)
    yield from _grounds(recipe)
    if recipe.augment.plain_share < 0:
        yield RecipeError(
            "crop_prob, recompose_prob, rearrange_prob and paste_prob are shares of the steps",
            where="augment",
            expected="a sum of at most 1",
            got=f"{1 - recipe.augment.plain_share:g}",
        )


def idle_settings(recipe: Recipe, given: Sequence[str]) -> list[str]:
    """Return a sentence for each setting that was given, and that changes nothing in a recipe.

    Args:
        recipe: With what was given.
        given: `section.key` each; what follows an equals sign is left out.
    """
    keys = list(dict.fromkeys(one.partition("=")[0].strip() for one in given))
    why = {key: reason for names, reason in _idle(recipe) for key in names}
    return [f"{key} changes nothing: {why[key]}" for key in keys if key in why]


def doubts(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for each thing that is allowed, and was seldom meant."""
    yield from _unreached_variants(recipe)
    if recipe.prior.weight and not recipe.has_prior:
        yield "the prior draws nothing: rows alone are trained, and no prior prompt has a handle"
    if recipe.grounds.is_on:
        yield from _odd_grounds(recipe)
    for number, phase in enumerate(recipe.phases, 1):
        draws = _n_draws(recipe, phase)
        if phase.steps > MOST_REPEATS * draws:
            yield (
                f"phase {number} has {draws} draws for {phase.steps} steps, and sees each"
                f" {phase.steps / draws:.0f} times: a longer run wants more of them, from its"
                f" first step on: phase{number}.draws={phase.steps // USUAL_REPEATS}"
            )
        if phase.steps and phase.trains != "rows":
            yield from _odd_rate(recipe.optimizer.name, phase, f"phase{number}.weights_lr")


def _odd_grounds(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for each thing about grounds that are drawn and was seldom meant."""
    n, places = recipe.grounds.n_images, len(recipe.grounds.prompts)
    if n < places:
        yield f"of {places} grounds.prompts the first {n} are drawn: grounds.n_images={places}"
    if recipe.augment.recompose_prob == 1:
        yield "no sample stands on a ground: recomposed pictures have a background of their own"
    if not recipe.masked_loss.enabled:
        yield "without the mask in the loss grounds have a full weight, and things grow faint"


def _unreached_variants(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence if most variants are never drawn, though there are steps for them."""
    augment, run = recipe.augment, recipe.run
    least = min((share for share in augment.random_shares if share), default=0.0)
    a_step = least * run.batch_size * run.accumulation
    in_steps = a_step * sum(phase.steps for phase in recipe.phases)
    drawn = a_step * sum(_n_draws(recipe, phase) for phase in recipe.phases)
    if drawn < augment.n_variants / 2 <= in_steps:
        yield (
            f"of {augment.n_variants} variants about {drawn:.0f} are drawn, again and again:"
            " phase1.draws and phase2.draws grow with augment.n_variants"
        )


def _n_draws(recipe: Recipe, phase: Phase) -> int:
    """Return how many steps of a phase draw anew."""
    return min(phase.steps, recipe.draws_of(phase) or phase.steps)


def _odd_rate(optimizer: str, phase: Phase, key: str) -> Iterator[str]:
    """Yield a sentence about a rate that is another optimizer's."""
    is_factor = phase.weights_lr >= LEAST_PRODIGY_LR
    if optimizer == "prodigy" and not is_factor:
        yield (
            f"prodigy finds its own rate; {key}={phase.weights_lr:g} is a factor on it, usually 1"
        )
    if optimizer != "prodigy" and is_factor:
        yield f"{key}={phase.weights_lr:g} is prodigy's; {optimizer} wants a hundredth or less"


def _idle(recipe: Recipe) -> Iterator[tuple[list[str], str]]:
    """Yield settings that nothing looks at, and why."""
    trained = {phase.trains for phase in recipe.phases if phase.steps}
    masked, augment = recipe.masked_loss, recipe.augment
    if "lora" not in trained:
        yield _keys("lora", recipe.lora), "no phase trains adapters"
    if "full" not in trained:
        yield _keys("full", recipe.full), "no phase trains the model itself"
    if trained == {"rows"}:
        yield ["optimizer.name", "optimizer.weight_decay"], "rows alone are trained, by AdamW"
    if not recipe.prior.weight:
        yield _keys("prior", recipe.prior, but="weight"), "prior.weight is 0"
    elif trained and not recipe.has_prior:
        yield (
            _keys("prior", recipe.prior),
            "rows alone are trained, and no prior prompt has a handle",
        )
    yield from _idle_of_grounds(recipe.grounds)
    if not masked.enabled:
        names = ("normalize", "outside_weight", "outside_target")
        yield [f"masked_loss.{name}" for name in names], "masked_loss.enabled is false"
        yield ["grounds.outside_weight"], "masked_loss.enabled is false"
    elif not masked.outside_weight:
        yield ["masked_loss.outside_target"], "masked_loss.outside_weight is 0"
    if not any(phase.attention_weight for phase in recipe.phases if phase.steps):
        told = "no phase has an attention_weight"
        yield ["attention_loss.form", "attention_loss.reduction"], told
    if not augment.crop_prob:
        yield ["augment.crop_min_scale"], "augment.crop_prob is 0"
        if not (augment.recompose_prob or augment.rearrange_prob or augment.paste_prob):
            yield ["augment.n_variants"], "no variant is random"
    if not recipe.phase2.steps:
        yield ["run.snapshots", "run.patience"], "phase2.steps is 0"
    yield from _idle_of_phases(recipe)


def _idle_of_phases(recipe: Recipe) -> Iterator[tuple[list[str], str]]:
    for number, phase in enumerate(recipe.phases, 1):
        name = f"phase{number}"
        if not phase.steps:
            yield _keys(name, phase, but="steps"), f"{name}.steps is 0"
            continue
        if phase.trains == "rows":
            yield [f"{name}.weights_lr"], f"{name} trains rows alone"
        if phase.schedule == "constant":
            yield [f"{name}.end_fraction"], f"{name}.schedule is constant"
        if phase.sampling == "single":
            told = f"{name}.sampling is single: there is no pair of maps"
            yield [f"{name}.pairwise_weight"], told
        if phase.draws >= phase.steps:
            yield [f"{name}.draws"], f"{name} has no more steps, and draws nothing again"
        if not recipe.masked_loss.asks_base:
            yield [f"{name}.draws"], "the untouched base is not asked"


def _idle_of_grounds(grounds: Grounds) -> Iterator[tuple[list[str], str]]:
    if not grounds.prob:
        yield _keys("grounds", grounds, but="prob"), "grounds.prob is 0"
    elif grounds.noise_from == 1:
        yield _keys("grounds", grounds, but="noise_from"), "grounds.noise_from is 1"
    elif not grounds.far:
        yield ["grounds.n_per_noun"], "grounds.far is 0"


def _keys(section: str, table: Any, but: str = "") -> list[str]:
    return [f"{section}.{field.name}" for field in fields(table) if field.name != but]


def _texts(recipe: Recipe) -> Iterator[RecipeError]:
    for template in recipe.handles.templates:
        if not is_template(template):
            yield RecipeError(
                "a template needs one {}, and no other brace",
                where="handles.templates",
                got=template,
            )
    if not recipe.handles.templates:
        yield RecipeError("at least one template is needed", where="handles.templates")
    for prompt in recipe.prior.prompts:
        if has_other_braces(prompt):
            yield RecipeError("braces other than {}", where="prior.prompts", got=prompt)
    for prompt in recipe.run.sample_prompts:
        if "{" in prompt or "}" in prompt:
            yield RecipeError(
                "nothing is filled in",
                where="run.sample_prompts",
                expected="handles, such as <bear>, and no braces",
                got=prompt,
            )
    if recipe.prior.weight and not recipe.prior.prompts:
        yield RecipeError("at least one prompt is needed", where="prior.prompts")


def _phases(recipe: Recipe) -> Iterator[RecipeError]:
    for index, phase in enumerate(recipe.phases, 1):
        if phase.trains == "rows" and phase.steps and not phase.rows_lr:
            yield RecipeError(
                "trains rows with a learning rate of 0",
                where=f"phase{index}.rows_lr",
                expected="a rate above 0",
            )
        if phase.trains != "rows" and phase.steps and not phase.weights_lr:
            yield RecipeError(
                f"trains {phase.trains} with a learning rate of 0",
                where=f"phase{index}.weights_lr",
                expected="a rate above 0",
            )
    trained = {phase.trains for phase in recipe.phases if phase.steps}
    if trained >= {"lora", "full"}:
        yield RecipeError(
            "one run trains adapters or full weights, not both", where="phase2.trains"
        )
    if "full" in trained and recipe.masked_loss.outside_target == "base":
        yield RecipeError(
            "full training leaves no untouched base to predict with",
            where="masked_loss.outside_target",
            expected="data",
        )
    if "full" in trained and recipe.base.quantization != "none":
        yield RecipeError(
            "low-bit weights cannot be trained themselves",
            where="base.quantization",
            expected='none, or phase2.trains = "lora"',
        )


def _watching(recipe: Recipe) -> Iterator[RecipeError]:
    run = recipe.run
    if recipe.is_full and run.snapshots:
        yield RecipeError(
            "snapshots are adapters, and full training makes whole models",
            where="run.snapshots",
            expected="0",
            got=run.snapshots,
        )
    if run.patience and not run.watch:
        yield RecipeError(
            "patience looks at held draws, and run.watch = 0 looks at none",
            where="run.patience",
            expected="run.watch above 0",
            got=run.patience,
        )


def _grounds(recipe: Recipe) -> Iterator[RecipeError]:
    grounds = recipe.grounds
    if len(grounds.prompts) != len(grounds.phrases) or not grounds.prompts:
        yield RecipeError(
            "each prompt that draws a ground needs a phrase that says where things then are",
            where="grounds.phrases",
            expected="as many as grounds.prompts, and at least one",
            got=f"{len(grounds.phrases)} and {len(grounds.prompts)}",
        )
    for key, texts in (("prompts", grounds.prompts), ("phrases", grounds.phrases)):
        for text in texts:
            if not text.strip() or "{" in text or "}" in text:
                yield RecipeError(
                    "no place",
                    where=f"grounds.{key}",
                    expected="a few words, without a thing or {}",
                    got=text,
                )
