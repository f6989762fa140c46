"""What tells a benchmark's run from any other: the hash of all that decides its row."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any

from lora_scene.backbones.sources import EMBEDDED, embedded_hashes
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.forms import brief
from lora_scene.learning.lineage import run_fingerprint, scene_bytes
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.methods import recipes_of
from lora_scene.workshop.protocol import Attempt, Protocol
from lora_scene.workshop.statistics import Row

Prepared = tuple[Attempt, Scene, str]  # a run, its scene, and the hash of all that decides its row

DRAWN_BY = ("prompts", "subsets", "seeds", "steps", "guidance", "scheduler")  # what is seen
FIRST_KEPT = (
    "58e12c69988240675f400d46b014e1c093fa88bdf322087d87580549fb6420fe",
    "beafb9d0def77a6c2bf48a9b82901b2ebf514523f8bb214fd19416b124becaf5",
)
"""SHA-256 of the embedded base's and judge's hashes when rows did not tell them yet."""


def fingerprint_of(protocol: Protocol, run: Attempt, *, scene: Scene) -> str:
    """Return the sha256 of all that decides a run's row.

    What is not embedded, a base of one's own or CLIP, counts by its name alone: other weights
    under the same name want another RESULTS.
    """
    learnt = recipes_of(protocol, run, scene=scene)
    parts = [run_fingerprint(part, recipe, "") for recipe, part in learnt]
    if not learnt:
        parts = [hashlib.sha256(b"".join(scene_bytes(scene))).hexdigest()]
    judged = (
        protocol.judge,
        protocol.clip,
        protocol.dino,
        protocol.finder,
        protocol.drawing,
        protocol.curve,
    )
    method, versions = run.method, _embedded_versions(protocol)
    whole = (protocol.base, method.kind, method.guide_scale, parts, judged, *versions)
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def prepared(protocol: Protocol, runs: Sequence[Attempt]) -> list[Prepared]:
    """Read every run's scene and recipes: a mistake in the last is told before the first begins."""
    load = cache(load_scene)
    scenes = [load(run.scene) for run in runs]
    pairs = zip(runs, scenes, strict=True)
    return [(run, scene, fingerprint_of(protocol, run, scene=scene)) for run, scene in pairs]


def own_rows(protocol: Protocol, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a protocol's runs as they would be made now: only those compare."""
    present, made_of, load = {row["key"] for row in rows}, {}, cache(load_scene)
    for run in protocol.runs():
        if run.key in present:
            with suppress(LoraSceneError):  # what cannot be made now has no row of its own
                made_of[run.key] = fingerprint_of(protocol, run, scene=load(run.scene))
    return [row for row in rows if made_of.get(row["key"]) == row["fingerprint"]]


def terms_of(protocol: Protocol, run: Attempt, *, scene: Scene) -> dict[str, Any]:
    """Return what a run's row must share with those that it is compared with, told by its row.

    The fingerprint tells that a row is a protocol's; where there are rows alone, as in a study,
    these tell which do not compare, and why. What is of one scene is called so.
    """
    drawing = asdict(protocol.drawing)
    shown = hashlib.sha256(b"".join(scene_bytes(scene))).hexdigest()[:16]
    return {
        "base": protocol.base,
        "image_forwards": protocol.image_forwards,
        **{f"drawing.{key}": _as_read(drawing[key]) for key in DRAWN_BY},
        f"scene {run.group}/{run.scene.name}": shown,
    }


def refuse_mixed(rows: Sequence[Row], where: object) -> None:
    """Refuse rows that do not compare, by their terms.

    Rows of earlier versions tell none; of those only the protocol's name is known.

    Raises:
        JudgingError: Everything in which they differ.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        for key, value in (row.get("terms") or {"protocol": row.get("protocol")}).items():
            found[key][brief(value)].add(row["method"])
    problems = [
        JudgingError(
            "rows of different protocols, which do not compare",
            where=f"{where}: {key}",
            got="; ".join(f"{value} in {', '.join(sorted(of))}" for value, of in values.items()),
            hint="choose methods of one protocol, or run the benchmark into another folder",
        )
        for key, values in found.items()
        if len(values) > 1
    ]
    if problems:
        raise JudgingError.collect(problems, f"{where}: rows that do not compare")


def _as_read(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _embedded_versions(protocol: Protocol) -> Iterator[str]:
    """Yield what tells the embedded base and judge from those of the first rows that are kept."""
    for name, package, folder in (
        (protocol.base, "lora_scene.backbones", "mini"),
        (protocol.judge, "lora_scene.judging", "mini_judge"),
    ):
        if name == EMBEDDED:
            version = hashlib.sha256(embedded_hashes(package, folder).encode()).hexdigest()
            if version not in FIRST_KEPT:
                yield f"{folder} {version}"
