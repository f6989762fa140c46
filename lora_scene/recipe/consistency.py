"""Settings that are right alone and wrong together."""

from __future__ import annotations

import string
from collections.abc import Iterator

from lora_scene.errors import RecipeError
from lora_scene.recipe.tree import Recipe


def contradictions(recipe: Recipe) -> Iterator[RecipeError]:
    """Yield settings that are right alone and wrong together."""
    yield from _texts(recipe)
    yield from _phases(recipe)
    yield from _watching(recipe)
    augment = recipe.augment
    shares = augment.crop_prob + augment.recompose_prob
    shares += augment.rearrange_prob + augment.paste_prob
    if shares > 1:
        yield RecipeError(
            "crop_prob, recompose_prob, rearrange_prob and paste_prob are shares of the steps",
            where="augment",
            expected="a sum of at most 1",
            got=f"{shares:g}",
        )


def _texts(recipe: Recipe) -> Iterator[RecipeError]:
    for template in recipe.handles.templates:
        if template.count("{}") != 1 or not _is_template(template):
            yield RecipeError("a template needs one {}", where="handles.templates", got=template)
    if not recipe.handles.templates:
        yield RecipeError("at least one template is needed", where="handles.templates")
    for prompt in recipe.prior.prompts:
        if not _is_template(prompt):
            yield RecipeError("braces other than {}", where="prior.prompts", got=prompt)
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


def _is_template(text: str) -> bool:
    """Tell whether `{}` is all that formatting would fill in."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:
        return False
    return not any(name or spec or conversion for _, name, spec, conversion in fields)
