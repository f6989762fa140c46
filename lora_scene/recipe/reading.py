"""Recipes from TOML and back: inheritance, overrides, every mistake reported at once."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from lora_scene.errors import LoraSceneError, RecipeError, did_you_mean
from lora_scene.recipe.consistency import contradictions
from lora_scene.recipe.settings import Recipe


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a TOML file, and apply overrides.

    Args:
        name: A shipped recipe's name (`recipe_names`), or the path of a TOML file.
        overrides: `section.key=value` each, the value as TOML writes it; quotes around a word
            may be left out.

    Raises:
        RecipeError: Unknown names, wrong types, values out of range: all of them at once.
    """
    tree = _read_tree(name)
    problems: list[LoraSceneError] = []
    for override in overrides:
        _apply_override(tree, override, problems)
    return _checked(tree, problems, f"recipe {name}")


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    files = resources.files("lora_scene.recipes").iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


def recipe_text(name: str | Path) -> str:
    """Return a recipe's file as it is written, comments included.

    Raises:
        RecipeError: There is no such recipe, or its file cannot be read.
    """
    if str(name) in recipe_names():
        return (resources.files("lora_scene.recipes") / f"{name}.toml").read_text("utf-8")
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                "cannot be read", where=name, expected="a file of UTF-8 text", got=error
            ) from error
    raise RecipeError(
        "no such recipe",
        where=name,
        expected=f"one of {', '.join(recipe_names())}, or the path of a .toml file",
        hint=did_you_mean(str(name), recipe_names()),
    )


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as TOML, every field spelled out; `load_recipe` reads it back equal."""
    import tomli_w

    return tomli_w.dumps(dataclasses.asdict(recipe))


def parse_recipe(text: str) -> Recipe:
    """Build a recipe from TOML text, such as an adapter carries.

    Raises:
        RecipeError: As `load_recipe`.
    """
    return _checked(_parse(text, "recipe"), [], "recipe")


def _checked(tree: Mapping[str, Any], problems: list[LoraSceneError], where: str) -> Recipe:
    """Build a recipe; raise all problems, those already found among them, at once."""
    recipe = _build(Recipe, tree, "", problems)
    if not problems:
        problems.extend(contradictions(recipe))
    if problems:
        raise RecipeError.collect(problems, where)
    assert isinstance(recipe, Recipe)
    return recipe


def _read_tree(name: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a recipe's table, laid over the one that it extends."""
    tree = _parse(recipe_text(name), name)
    parent = tree.pop("extends", None)
    tree.setdefault("name", Path(name).stem)
    if parent is None:
        return tree
    parent = _beside(name, str(parent))
    if parent in seen:
        raise RecipeError("recipes extend each other in a circle", where=name, got=parent)
    return _overlay(_read_tree(parent, (*seen, str(name))), tree)


def _beside(child: str | Path, parent: str) -> str:
    """Return a parent's path as seen from the file that names it; a shipped name stays."""
    is_path = Path(child).suffix == ".toml" and Path(parent).suffix == ".toml"
    return str(Path(child).parent / parent) if is_path else parent


def _parse(text: str, where: object) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError("not valid TOML", where=where, got=error) from error


def _overlay(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, table by table."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = (
            _overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _apply_override(tree: dict[str, Any], override: str, problems: list[LoraSceneError]) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        problems.append(
            RecipeError("an override needs a value", where=override, expected="section.key=value")
        )
        return
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, leaf = key.strip().split(".")
    table = tree
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            problems.append(RecipeError("not a section", where=key, got=section))
            return
    table[leaf] = parsed


def _build(kind: type, tree: Mapping[str, Any], path: str, problems: list[LoraSceneError]) -> Any:
    """Build a dataclass from a table; what is wrong goes to `problems`."""
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    problems.extend(
        RecipeError(
            "unknown key",
            where=f"{path}{key}",
            expected=f"one of {', '.join(hints)}",
            hint=did_you_mean(key, hints),
        )
        for key in sorted(tree.keys() - hints.keys())
    )
    defaults = Recipe.__dataclass_fields__ if kind is Recipe else {}
    for declared in dataclasses.fields(kind):
        if declared.name not in tree:
            continue
        value, where, hint = tree[declared.name], f"{path}{declared.name}", hints[declared.name]
        if dataclasses.is_dataclass(hint):
            if isinstance(value, Mapping):
                base = defaults[declared.name].default
                full = {**_shallow(base), **value}
                values[declared.name] = _build(typing.cast(type, hint), full, f"{where}.", problems)
            else:
                problems.append(RecipeError("expected a section", where=where, got=repr(value)))
        else:
            problem = _mistake(value, hint, declared.metadata.get("range"))
            if problem:
                problems.append(
                    RecipeError("wrong value", where=where, expected=problem, got=repr(value))
                )
            else:
                values[declared.name] = _coerced(value, hint)
    return kind(**values)


def _shallow(instance: Any) -> dict[str, Any]:
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance)}


def _mistake(value: Any, hint: Any, limits: tuple[float, float] | None) -> str | None:
    """Say what was expected when a value does not fit its field, or None when it does."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return None if value in choices else f"one of {', '.join(choices)}"
    if typing.get_origin(hint) is tuple:
        is_texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return None if is_texts else "a list of texts"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    kinds: types.UnionType | type = int | float if hint is float else hint
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        return names[hint]
    if limits and isinstance(value, int | float):
        is_within = math.isfinite(value) and limits[0] <= value <= limits[1]
        return None if is_within else f"{names[hint]} from {limits[0]:g} to {limits[1]:g}"
    return None


def _coerced(value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    return float(value) if hint is float else value
