"""What is wrong with a protocol whose values are of the right kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_scene.creating.limits import MAX_AMOUNT
from lora_scene.creating.schedulers import OWN, SAMPLERS
from lora_scene.errors import JudgingError
from lora_scene.judging.judge import MINI_JUDGE, PAPER_JUDGE, PARTS
from lora_scene.recipe.templates import is_template

if TYPE_CHECKING:
    from lora_scene.workshop.protocol import Protocol

OF_TRAINING = ("recipe", "overrides", "image_forwards")  # keys of methods that train
OF_GUIDING = ("guide_scale", "batch")


def mismatches(protocol: Protocol) -> Iterator[JudgingError]:
    """Yield names that are no folder's, or of no method or group, and recipes that are lacking."""
    names = [method.name for method in protocol.methods]
    for name in (*names, *protocol.scenes):
        if re.match(r"\.|.*[/\\]", name):
            yield JudgingError("a name that is no folder's", where=name, expected="no / and no \\")
    groups = ", ".join(protocol.scenes) or "a table [scenes]"

    def unknown(what: str, where: str, expected: object, got: str) -> JudgingError:
        return JudgingError(f"no such {what}", where=where, expected=expected, got=got or "none")

    if len(set(names)) < len(names) or not names:
        yield JudgingError("methods need names of their own", where="methods", got=names)
    if protocol.reference and protocol.reference not in names:
        yield unknown("method", "reference", names, protocol.reference)
    for method in protocol.methods:
        place = f"methods.{method.name}"
        for group in method.scenes or ("",):
            if group not in protocol.scenes:
                yield unknown("group of scenes", f"{place}.scenes", groups, group)
        others = [name for name in names if name != method.name]
        if method.course_of and method.course_of not in others:
            yield unknown("method", f"{place}.course_of", ", ".join(others), method.course_of)
        if method.kind != "guided" and not method.recipe:
            yield JudgingError("a recipe is needed", where=f"{place}.recipe")


def idle_keys(table: Mapping[str, Any]) -> Iterator[JudgingError]:
    """Yield what was written, and nothing would look at."""

    def idle(
        place: str, section: Mapping[str, Any], keys: Sequence[str], why: str
    ) -> Iterator[Any]:
        for key in keys:
            if key in section:
                where = f"{place}{key}"
                yield JudgingError("nothing looks at this", where=where, got=section[key], hint=why)

    if (judge := table.get("judge", MINI_JUDGE)) != PAPER_JUDGE:
        why = f'leave it out, or write judge = "{PAPER_JUDGE}": {judge} has parts of its own'
        yield from idle("", table, PARTS, why)
    curve = table.get("curve", {})
    if not curve.get("weights"):
        said = [key for key, value in curve.items() if value != []]
        yield from idle("curve.", curve, said, "give curve.weights, or leave out [curve]")
    for method in table.get("methods", ()):
        place = f"methods.{method['name']}."
        if method.get("kind") == "guided":
            yield from idle(place, method, OF_TRAINING, "leave it out: guided trains nothing")
        else:
            yield from idle(place, method, OF_GUIDING, 'leave it out: it is of kind = "guided"')


def undrawable(protocol: Protocol) -> Iterator[JudgingError]:
    """Yield what drawing would refuse, which comes after all the training."""
    drawing, curve = protocol.drawing, protocol.curve
    wrong = [prompt for prompt in drawing.prompts if not is_template(prompt)]
    if wrong or not drawing.prompts:
        expected = "prompts with one {} each, and no other brace"
        yield JudgingError("no such prompts", where="drawing.prompts", expected=expected, got=wrong)
    seeds = {f"methods.{method.name}.seeds": method.seeds for method in protocol.methods}
    seeds["drawing.seeds"] = drawing.seeds
    if curve.weights:
        seeds["curve.seeds"] = curve.seeds
    for where, given in seeds.items():
        if min(given, default=-1) < 0:
            expected = "one or more whole numbers from 0 on"
            yield JudgingError("no such seeds", where=where, expected=expected, got=given)
    amounts = [weight for weight in curve.weights if abs(weight) > MAX_AMOUNT]
    if amounts:
        expected = f"from {-MAX_AMOUNT:g} to {MAX_AMOUNT:g}"
        yield JudgingError("no such weights", where="curve.weights", expected=expected, got=amounts)
    if (got := drawing.scheduler) not in (OWN, *SAMPLERS):
        where, expected = "drawing.scheduler", ", ".join((OWN, *SAMPLERS))
        yield JudgingError("no such scheduler", where=where, expected=expected, got=got)
