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
from collections.abc import Iterator, Mapping
from pathlib import Path

from lora_scene.documents import build, parse_toml, read_text
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.workshop.protocol import Protocol


def read_protocol(path: Path) -> Protocol:
    """Read a protocol.

    Raises:
        JudgingError: Everything that is wrong with it, collected.
    """
    table = parse_toml(read_text(path, JudgingError), path, JudgingError)
    problems: list[LoraSceneError] = []
    protocol = build(Protocol, table, problems, error=JudgingError, omit=("folder",))
    if protocol is not None:
        scenes = _scenes(protocol.scenes, path.parent, problems)
        protocol = dataclasses.replace(protocol, scenes=scenes, folder=path.parent)
    if protocol is not None and not problems:
        problems += _contradictions(protocol)
    if protocol is None or problems:
        raise JudgingError.collect(problems, f"protocol {path}")
    return protocol


def _scenes(
    groups: Mapping[str, tuple[Path, ...]], folder: Path, problems: list[LoraSceneError]
) -> dict[str, tuple[Path, ...]]:
    """Return the folders that each group's patterns name."""
    scenes = {}
    for name, patterns in groups.items():
        found = [_folders(str(pattern), folder) for pattern in patterns]
        problems += [
            JudgingError("no such scene folder", where=f"scenes.{name}", got=folder / pattern)
            for pattern, paths in zip(patterns, found, strict=True)
            if not paths
        ]
        scenes[name] = tuple(path for paths in found for path in paths)
    return scenes


def _folders(pattern: str, folder: Path) -> list[Path]:
    """Return the folders that a pattern names, relative to `folder` or absolute."""
    paths = [folder / name for name in glob.glob(pattern, root_dir=folder)]
    return sorted(path for path in paths if path.is_dir())


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
