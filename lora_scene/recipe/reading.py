"""Recipes from TOML and back: inheritance, overrides, every mistake reported at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from lora_scene.documents import parse_toml, read_text
from lora_scene.errors import LoraSceneError, RecipeError, did_you_mean
from lora_scene.forms import build
from lora_scene.recipe.consistency import contradictions
from lora_scene.recipe.tree import Recipe

MAX_PARENTS = 20


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a TOML file, and apply overrides.

    Args:
        name: A shipped recipe's name (`recipe_names`), or the path of a TOML file.
        overrides: `section.key=value` each, the value as TOML writes it; quotes around a word
            may be left out.

    Raises:
        RecipeError: Unknown names, wrong types, values out of range: all of them at once.
    """
    tree = _read_tree(name, recipe_text(name))
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
    if path.suffix == ".toml" and os.path.lexists(path):
        return read_text(path, RecipeError)
    raise RecipeError(
        "no such recipe",
        where=name,
        expected=f"one of {', '.join(recipe_names())}, or the path of a .toml file",
        hint=did_you_mean(str(name), recipe_names()),
    )


def refuse_orphan(name: str | Path, copy: Path) -> None:
    """Refuse to copy a recipe to where the one that it extends is not found, or is another.

    Raises:
        RecipeError: Its `extends` is a path that leads elsewhere from there.
    """
    parent = parse_toml(recipe_text(name), name, RecipeError).get("extends")
    if not isinstance(parent, str) or Path(name).suffix != ".toml":
        return
    found, wanted = (os.path.realpath(_beside(one, parent)) for one in (copy, name))
    if found != wanted:
        raise RecipeError(
            "it extends a recipe by a path that leads elsewhere from there",
            where=copy,
            got=parent,
            hint="copy it beside the old one, or write every setting out: "
            f"lora-scene recipes show {name} --resolved",
        )


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as TOML, every field spelled out; `load_recipe` reads it back equal."""
    import tomli_w

    return tomli_w.dumps(dataclasses.asdict(recipe))


def quoted(value: str | int) -> str:
    """Return a value as TOML writes it: as JSON, but for a letter that only TOML escapes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def flat_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's table by `section.key`; what stands in no section by its key alone."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def parse_recipe(text: str) -> Recipe:
    """Build a recipe from TOML text, such as an adapter carries.

    Raises:
        RecipeError: As `load_recipe`.
    """
    return _checked(parse_toml(text, "recipe", RecipeError), [], "recipe")


def _checked(tree: Mapping[str, Any], problems: list[LoraSceneError], where: str) -> Recipe:
    """Build a recipe; raise all problems, those already found among them, at once."""
    recipe = build(Recipe, tree, problems, error=RecipeError, is_toml=True)
    if recipe is not None and not problems:
        problems.extend(contradictions(recipe))
    if recipe is None or problems:
        raise RecipeError.collect(problems, where)
    return recipe


def _read_tree(name: str | Path, text: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read the table in a recipe's text, laid over the one that it extends."""
    tree = parse_toml(text, name, RecipeError)
    if not tree:
        raise RecipeError("the recipe says nothing", where=name, hint='extends = "sd15", say')
    parent = tree.pop("extends", None)
    tree.setdefault("name", Path(name).stem)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise RecipeError("wrong value", where=f"{name}: extends", expected="a recipe", got=parent)
    parent = _beside(name, parent)
    chain = (*seen, _place(name))
    if _place(parent) in chain or len(chain) > MAX_PARENTS:
        raise RecipeError(
            "recipes extend each other in a circle, or without end", where=name, got=parent
        )
    try:
        inherited = recipe_text(parent)
    except RecipeError as error:
        raise RecipeError(
            error.what,
            where=f"{name} extends {parent}",
            expected=error.expected,
            got=error.got,
            hint=error.hint,
        ) from error
    return _overlay(_read_tree(parent, inherited, chain), tree)


def _place(name: str | Path) -> str:
    """Return one name for a recipe, however its path is written."""
    return str(name) if str(name) in recipe_names() else os.path.realpath(name)


def _beside(child: str | Path, parent: str) -> str:
    """Return a parent's path as seen from the file that names it; a shipped name stays."""
    is_path = Path(child).suffix == ".toml" and Path(parent).suffix == ".toml"
    return str(Path(child).parent / parent) if is_path else parent


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
    parsed: Any = value.strip()
    with contextlib.suppress(RecipeError):  # a word without quotes
        parsed = parse_toml(f"value = {value}", key, RecipeError)["value"]
    *sections, leaf = key.strip().split(".")
    meant = [] if sections else _places_of(leaf)
    if meant:
        problems.append(
            RecipeError(
                "a setting without its section",
                where=override,
                hint=f"did you mean {' or '.join(meant)}?",
            )
        )
        return
    table = tree
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            problems.append(RecipeError("not a section", where=key, got=section))
            return
    table[leaf] = parsed


def _places_of(key: str) -> list[str]:
    """Return `section.key` for every section that has such a setting; none for a top-level key."""
    top = dataclasses.asdict(Recipe())
    sections = {name: table for name, table in top.items() if isinstance(table, dict)}
    return [f"{name}.{key}" for name, table in sections.items() if key in table and key not in top]
