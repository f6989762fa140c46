"""Protocols from TOML files, every mistake reported at once.

    name = "mini"
    base = "mini"                    every method's base
    judge = "mini"                   or clip+dino
    image_forwards = 1600            of each training, whatever the method
    reference = "full"               paired differences are taken against it
    [scenes]
    headline = ["scenes/t*"]         groups of scene folders, beside this file
    [drawing]
    prompts = ["a photo of {} on grass"]
    [curve]
    weights = [0.0, 0.5, 1.2]        of the adapter, besides 1
    [[methods]]
    name = "ours"
    recipe = "recipes/ours.toml"     beside this file, or the name of a shipped recipe
    scenes = ["headline"]
    seeds = [0, 1, 2]

Paths are relative to the file.
"""

from __future__ import annotations

import dataclasses
import glob
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lora_scene.errors import JudgingError, did_you_mean
from lora_scene.judging.plans import Subsets
from lora_scene.workshop.protocol import Curve, Drawing, Method, Protocol


def read_protocol(path: Path) -> Protocol:
    """Read a protocol.

    Raises:
        JudgingError: Everything that is wrong with it, collected.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JudgingError("the protocol cannot be read", where=path, got=str(error)) from error
    problems: list[JudgingError] = []
    scenes = _scenes(table.pop("scenes", {}), path.parent, problems)
    methods = [
        _build(Method, entry, f"methods.{n}", problems)
        for n, entry in enumerate(table.pop("methods", []))
    ]
    parts = {
        key: _build(kind, table.pop(key, {}), key, problems)
        for key, kind in (("drawing", Drawing), ("curve", Curve))
    }
    head = _build(Protocol, table, "", problems)
    if problems or head is None or None in methods or None in parts.values():
        raise JudgingError.collect(problems, f"protocol {path}")
    protocol = dataclasses.replace(
        head, scenes=scenes, methods=tuple(methods), folder=path.parent, **parts
    )
    problems += _contradictions(protocol)
    if problems:
        raise JudgingError.collect(problems, f"protocol {path}")
    return typing.cast(Protocol, protocol)


def _scenes(table: Any, folder: Path, problems: list[JudgingError]) -> dict[str, tuple[Path, ...]]:
    groups = {}
    for name, patterns in (table if isinstance(table, dict) else {}).items():
        listed = patterns if isinstance(patterns, list) else [patterns]
        found = [_folders(str(one), folder) for one in listed]
        problems += [
            JudgingError("no such scene folder", where=f"scenes.{name}", got=folder / str(one))
            for one, paths in zip(listed, found, strict=True)
            if not paths
        ]
        groups[name] = tuple(path for paths in found for path in paths)
    return groups


def _folders(pattern: str, folder: Path) -> list[Path]:
    """Return the folders that a pattern names, relative to `folder` or absolute."""
    paths = [folder / name for name in glob.glob(pattern, root_dir=folder)]
    return sorted(path for path in paths if path.is_dir())


def _build(kind: type, table: Any, where: str, problems: list[JudgingError]) -> Any:
    """Build a dataclass from a table, or add what is wrong and return None."""
    if not isinstance(table, dict):
        problems.append(JudgingError("expected a section", where=where, got=repr(table)))
        return None
    hints = typing.get_type_hints(kind)
    special = ("scenes", "drawing", "curve", "methods", "folder") if kind is Protocol else ()
    known = [name for name in hints if name not in special]
    values, n_before = {}, len(problems)
    for key, value in table.items():
        place = f"{where}.{key}".lstrip(".")
        if key not in known:
            hint = did_you_mean(key, known)
            problems.append(JudgingError("unknown key", where=place, hint=hint))
            continue
        expected = _mistake(value, hints[key])
        if expected:
            problems.append(
                JudgingError("wrong value", where=place, expected=expected, got=repr(value))
            )
        values[key] = tuple(value) if isinstance(value, list) else value
    missing = [
        one.name
        for one in dataclasses.fields(kind)
        if one.default is dataclasses.MISSING
        and one.default_factory is dataclasses.MISSING
        and one.name not in table
    ]
    problems += [JudgingError("missing", where=f"{where}.{name}".lstrip(".")) for name in missing]
    return kind(**values) if len(problems) == n_before else None


def _mistake(value: Any, hint: Any) -> str | None:
    """Say what was expected when a value does not fit its field, or None when it does."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return None if value in choices else f"one of {', '.join(choices)}"
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        is_list = isinstance(value, list) and all(_mistake(one, item) is None for one in value)
        return None if is_list else f"a list of {item.__name__}"
    is_right = isinstance(value, int | float if hint is float else hint)
    is_right = is_right and (hint is bool or not isinstance(value, bool))
    return None if is_right else {str: "a text", bool: "true or false"}.get(hint, "a number")


def _contradictions(protocol: Protocol) -> Iterator[JudgingError]:
    names = [method.name for method in protocol.methods]
    if len(set(names)) < len(names) or not names:
        yield JudgingError("methods need names of their own", where="methods", got=names)
    if protocol.reference and protocol.reference not in names:
        yield JudgingError(
            "no such method", where="reference", expected=names, got=protocol.reference
        )
    for method in protocol.methods:
        for group in method.scenes or ("",):
            if group not in protocol.scenes:
                yield JudgingError(
                    "no such group of scenes",
                    where=f"methods.{method.name}.scenes",
                    expected=", ".join(protocol.scenes) or "a table [scenes]",
                    got=group or "none",
                )
        if method.course_of and method.course_of not in names:
            yield JudgingError(
                "no such method",
                where=f"methods.{method.name}.course_of",
                expected=", ".join(names),
                got=method.course_of,
            )
        if method.kind != "guided" and not method.recipe:
            yield JudgingError("a recipe is needed", where=f"methods.{method.name}.recipe")
    wrong = [prompt for prompt in protocol.drawing.prompts if prompt.count("{}") != 1]
    if wrong or not protocol.drawing.prompts:
        yield JudgingError("prompts need one {} each", where="drawing.prompts", got=wrong)
    if protocol.drawing.subsets not in typing.get_args(Subsets):
        yield JudgingError(
            "no such choice of subsets",
            where="drawing.subsets",
            expected=", ".join(typing.get_args(Subsets)),
            got=protocol.drawing.subsets,
        )
