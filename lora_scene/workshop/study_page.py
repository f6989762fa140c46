"""A study with people: one blind page from a benchmark's pictures.

    RESULTS -> items (scene, prompt, seed) that all methods drew -> page, key

A participant sees some items, each as every method drew it, in random order and on random sides,
with the things that it should show beside it. The page does not know the methods: only the key
does. Between them stand checks whose answer is known.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.errors import JudgingError, did_you_mean
from lora_scene.files import write_json, write_text
from lora_scene.pages import render
from lora_scene.workshop.results import read_rows, scene_folder
from lora_scene.workshop.statistics import methods_of

PAGE, KEY = "index.html", "key.json"
MAX_METHODS = 8  # more would make a sitting too long
MAX_SIDE = 512  # pixels of an embedded picture
SMALL = 256  # pixels; smaller pictures are shown pixel by pixel
JPEG_QUALITY = 92
N_CHECKS = 4

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One prompt of one scene and seed, as every method drew it.

    Attributes:
        group: Of scenes.
        scene: Its name.
        plain: The prompt with class nouns.
        seed: Of the pictures.
        subset: The concepts that it names.
        nouns: Their class nouns.
        files: Method to picture.
        folder: Where the scene's photo and concepts lie.
    """

    group: str
    scene: str
    plain: str
    seed: int
    subset: tuple[int, ...]
    nouns: tuple[str, ...]
    files: Mapping[str, Path]
    folder: Path


@dataclass(frozen=True)
class Study:
    """What was made.

    Attributes:
        page: The page to be given out.
        key: Which trial is which method's; not to be given out.
        n_items: Items in the page.
        n_trials: Pictures that a participant judges.
    """

    page: Path
    key: Path
    n_items: int
    n_trials: int


def make_study(
    results: Path,
    out: Path,
    *,
    methods: Sequence[str] = (),
    n_items: int = 24,
    per_person: int = 6,
    seed: int = 0,
) -> Study:
    """Write the page and its key.

    Args:
        results: A benchmark's folder.
        out: Where to write.
        methods: Which are compared; none takes all.
        n_items: Items in the page.
        per_person: Items that a participant sees, each by every method.
        seed: Of the choice of items and the trials' names.

    Raises:
        JudgingError: Too few or too many methods, an unknown one, or no item that all drew.
    """
    rows = read_rows(results)
    chosen = _chosen_methods(rows, methods)
    rng = np.random.default_rng(seed)
    items = find_items(rows, chosen, results=results)
    if not items:
        raise JudgingError(
            "there is no prompt that all methods drew", where=results, got=", ".join(chosen)
        )
    picked = [items[i] for i in rng.permutation(len(items))[:n_items]]
    names = _TrialNames(rng)
    page_items = [_page_item(item, chosen, names) for item in picked]
    checks = _checks(picked, items, names)
    study: dict[str, Any] = {
        "id": hashlib.sha256(json.dumps(list(names.key)).encode()).hexdigest()[:12],
        "perPerson": min(per_person, len(picked)),
        "isSmall": _side(next(iter(picked[0].files.values()))) < SMALL,
        "items": page_items,
        "checks": checks,
    }
    write_text(out / PAGE, render("workshop", "study.html", study=study))
    write_json(out / KEY, {"study": study["id"], "methods": chosen, "trials": names.key})
    n_trials = study["perPerson"] * len(chosen) + len(checks)
    return Study(out / PAGE, out / KEY, len(picked), n_trials)


def find_items(rows: Sequence[Row], methods: Sequence[str], *, results: Path) -> list[Item]:
    """Return what all methods drew, of their first training seed each."""
    files: dict[tuple[Any, ...], dict[str, Path]] = {}
    about: dict[tuple[Any, ...], tuple[Row, Row]] = {}
    for row in sorted(rows, key=lambda row: -int(row["seed"])):
        for drawn in row["pictures"]:
            place = (row["group"], row["scene"], drawn["plain"], drawn["seed"])
            path = results / "runs" / row["key"] / drawn["file"]
            files.setdefault(place, {})[row["method"]] = path
            about[place] = (row, drawn)
    items = []
    for place in sorted(files):
        row, drawn = about[place]
        if all(method in files[place] for method in methods):
            subset = tuple(int(k) for k in drawn["subset"])
            nouns = tuple(row["nouns"][k] for k in subset)
            own = {method: files[place][method] for method in methods}
            items.append(Item(*place, subset, nouns, own, scene_folder(results, row)))
    return items


def _chosen_methods(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    known = methods_of(rows)
    for method in methods:
        if method not in known:
            raise JudgingError(
                "no such method in the results",
                where=method,
                expected=", ".join(known) or "none: no run is finished",
                hint=did_you_mean(method, known),
            )
    chosen = list(methods or known)
    if not 2 <= len(chosen) <= MAX_METHODS:
        raise JudgingError(
            "a study compares a few methods",
            expected=f"2 to {MAX_METHODS}",
            got=f"{len(chosen)}: {', '.join(chosen)}",
            hint="choose with --method, once for each",
        )
    return chosen


class _TrialNames:
    """Gives trials names that tell nothing, and remembers what they stand for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.key: dict[str, dict[str, Any]] = {}
        self._rng = rng

    def add(self, **meaning: Any) -> str:
        """Return a new name."""
        name = self._rng.bytes(6).hex()
        self.key[name] = meaning
        return name


def _page_item(item: Item, methods: Sequence[str], names: _TrialNames) -> dict[str, Any]:
    trials = []
    for method in methods:
        about = {"scene": item.scene, "prompt": item.plain, "seed": item.seed}
        trials.append(
            {
                "id": names.add(method=method, **about),
                "picture": _data_uri(item.files[method]),
            }
        )
    trials.sort(key=lambda trial: trial["id"])
    return {"prompt": item.plain, "things": _things(item), "trials": trials}


def _checks(
    picked: Sequence[Item], items: Sequence[Item], names: _TrialNames
) -> list[dict[str, Any]]:
    """Return pictures whose identity is known: a scene's own photo, and another scene's.

    The things that should be seen are in the first as they are, and in the second not at all.
    """
    checks = []
    single = [item for item in picked if not (item.folder / "photo1.png").exists()]
    for number, item in enumerate(_spread(single, N_CHECKS)):
        shown = _all_nouns(item, items)
        others = [one for one in items if shown.isdisjoint(_all_nouns(one, items))]
        is_own = number % 2 == 0 or not others
        photo = (item if is_own else others[number % len(others)]).folder / "photo0.png"
        checks.append(
            {
                "id": names.add(check="own" if is_own else "other", scene=item.scene),
                "prompt": f"a photo of {' and '.join(item.nouns)}",
                "things": _things(item),
                "picture": _data_uri(photo),
            }
        )
    return checks


def _spread(items: Sequence[Item], n: int) -> list[Item]:
    """Return n items, as far apart in the list as can be; fewer where there are fewer."""
    n = min(n, len(items))
    return [items[(i * len(items)) // n] for i in range(n)]


def _all_nouns(item: Item, items: Sequence[Item]) -> set[str]:
    same = (item.group, item.scene)
    return {noun for one in items if (one.group, one.scene) == same for noun in one.nouns}


def _things(item: Item) -> list[dict[str, str]]:
    return [
        {"noun": noun, "picture": _data_uri(item.folder / f"concept{k}.png")}
        for k, noun in zip(item.subset, item.nouns, strict=True)
    ]


def _data_uri(path: Path) -> str:
    """Return a picture as a data URI without a word of how it was made."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    is_large = max(small.size) > SMALL
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if is_large:
        small.save(file, format="JPEG", quality=JPEG_QUALITY)
    else:
        small.save(file, format="PNG", optimize=True)
    kind = "jpeg" if is_large else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _side(path: Path) -> int:
    with Image.open(path) as image:
        return max(image.size)
