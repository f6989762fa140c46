"""A study with people: one blind page from a benchmark's pictures.

    RESULTS -> items (scene, prompt, seed) that all methods drew -> page, key

A participant sees some items, each as every method drew it, in random order and on random sides,
with the things that it should show beside it. The page does not know the methods: only the key
does. Between them stand checks whose answer is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.documents import parse_json, read_text
from lora_scene.errors import JudgingError, did_you_mean
from lora_scene.file_groups import written_together
from lora_scene.files import write_json, write_text
from lora_scene.pages import fill_page, inlined
from lora_scene.scenes.pictures import open_image
from lora_scene.workshop.fingerprints import refuse_mixed
from lora_scene.workshop.results import read_rows, scene_folder
from lora_scene.workshop.statistics import Row, methods_of

PAGE, KEY = "index.html", "key.json"
MAX_METHODS = 8  # more would make a sitting too long
MAX_SIDE = 512  # pixels of an embedded picture
SMALL = 256  # pixels; smaller pictures are shown pixel by pixel
QUALITY = 92  # of WebP; small pictures are PNGs
N_CHECKS = 4

Namer = Callable[..., str]  # what a trial is to a name that tells nothing


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
        n_trials: Pictures that a participant judges.
        lacks: What its checks cannot tell of participants, and rows of their making, a sentence
            each.
    """

    page: Path
    key: Path
    n_trials: int
    lacks: tuple[str, ...] = ()


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
        JudgingError: No run is finished, too few or too many methods, an unknown one, no item that
            all drew, rows that do not compare, or `out` holds another study, whose key its answers
            need.
    """
    rows = read_rows(results)
    if not rows:
        hint = "`lora-scene benchmark` writes them"
        raise JudgingError("no finished run of a benchmark", where=results, hint=hint)
    chosen = _chosen_methods(rows, methods)
    shown = [row for row in rows if row["method"] in chosen and row["pictures"]]
    refuse_mixed(shown, results)
    items = find_items(rows, chosen, results=results)
    rng = np.random.default_rng(seed)
    picked = [items[i] for i in rng.permutation(len(items))[:n_items]]
    key: dict[str, dict[str, Any]] = {}
    named = _namer(rng, key)
    page_items = [_page_item(item, chosen, named) for item in picked]
    checks = _checks(picked, items, named)
    told = json.dumps([chosen, key, page_items, checks], sort_keys=True)
    study: dict[str, Any] = {
        "id": hashlib.sha256(told.encode()).hexdigest()[:12],
        "perPerson": min(per_person, len(picked)),
        "isSmall": max(open_image(next(iter(picked[0].files.values())))[0].size) < SMALL,
        "items": page_items,
        "checks": checks,
    }
    _refuse_another(out / KEY, study["id"])
    with written_together(out) as aside:
        write_text(aside / PAGE, fill_page("workshop", "study.html", study=study))
        write_json(aside / KEY, {"study": study["id"], "methods": chosen, "trials": key})
    n_trials = study["perPerson"] * len(chosen) + len(checks)
    lacks = [*_lacks([key[check["id"]]["check"] for check in checks]), *_untold(shown)]
    return Study(out / PAGE, out / KEY, n_trials, tuple(lacks))


def find_items(rows: Sequence[Row], methods: Sequence[str], *, results: Path) -> list[Item]:
    """Return what all methods drew, of their first training seed each."""
    files: dict[tuple[Any, ...], dict[str, Path]] = {}
    about: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: -int(row["seed"])):
        for drawn in row["pictures"]:
            subset = tuple(int(k) for k in drawn["subset"])  # two things may have one noun
            place = (row["group"], row["scene"], drawn["plain"], drawn["seed"], subset)
            path = results / "runs" / row["key"] / drawn["file"]
            files.setdefault(place, {})[row["method"]] = path
            about[place] = row
    items = []
    for place in sorted(files):
        row = about[place]
        if all(method in files[place] for method in methods):
            nouns = tuple(row["nouns"][k] for k in place[-1])
            own = {method: files[place][method] for method in methods}
            items.append(Item(*place, nouns, own, scene_folder(results, row)))
    if not items:
        got = ", ".join(methods)
        raise JudgingError("there is no prompt that all methods drew", where=results, got=got)
    return items


def _refuse_another(path: Path, study: str) -> None:
    """Refuse to replace the key of a study that may have answers already."""
    kept = parse_json(read_text(path, JudgingError), path, JudgingError) if path.is_file() else {}
    if isinstance(kept, dict) and kept.get("study", study) != study:
        raise JudgingError(
            "the key of another study, which its answers need",
            where=path,
            hint="take another --out, or move it away",
        )


def _chosen_methods(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    known = methods_of(rows)
    for method in methods:
        if method not in known:
            raise JudgingError(
                "no such method in the results",
                where=method,
                expected=", ".join(known),
                hint=did_you_mean(method, known),
            )
    chosen = list(dict.fromkeys(methods or known))
    if not 2 <= len(chosen) <= MAX_METHODS:
        raise JudgingError(
            "a study compares a few methods",
            expected=f"2 to {MAX_METHODS}",
            got=f"{len(chosen)}: {', '.join(chosen)}",
            hint="choose with --method, once for each",
        )
    return chosen


def _namer(rng: np.random.Generator, key: dict[str, dict[str, Any]]) -> Namer:
    """Return what gives names that tell nothing, and writes into a key what they stand for."""

    def named(**meaning: Any) -> str:
        name: str = rng.bytes(6).hex()
        key[name] = meaning
        return name

    return named


def _page_item(item: Item, methods: Sequence[str], named: Namer) -> dict[str, Any]:
    about: dict[str, Any] = {"scene": item.scene, "prompt": item.plain, "seed": item.seed}
    about["subset"] = item.subset
    trials = [
        {"id": named(method=method, **about), "picture": _embedded(item.files[method])}
        for method in methods
    ]
    trials.sort(key=lambda trial: trial["id"])
    return {"prompt": item.plain, "things": _things(item), "trials": trials}


def _checks(picked: Sequence[Item], items: Sequence[Item], named: Namer) -> list[dict[str, Any]]:
    """Return pictures whose identity is known: a scene's own photo, and another scene's.

    The things that should be seen are in the first as they are, and in the second not at all. Of
    several photos none need show all things, so that scenes of such have no check.
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
                "id": named(check="own" if is_own else "other", scene=item.scene),
                "prompt": f"a photo of {' and '.join(item.nouns)}",
                "things": _things(item),
                "picture": _embedded(photo),
            }
        )
    return checks


def _lacks(kinds: Sequence[str]) -> Iterator[str]:
    """Yield what checks of these kinds cannot tell."""
    if not kinds:
        yield "no check stands between: only scenes of one photo have any"
        return
    if len(kinds) < N_CHECKS:
        yield (
            f"{len(kinds)} of {N_CHECKS} checks stand between: "
            "each takes a prompt of its own, of a scene of one photo"
        )
    if "other" not in kinds:
        yield "no check shows another scene, so that who always gives 5 passes"


def _untold(rows: Sequence[Row]) -> Iterator[str]:
    """Yield that some rows do not tell whether they compare."""
    n = sum(not row.get("terms") for row in rows)
    if n:
        yield (
            f"{n} of {len(rows)} runs are of an earlier version, which did not note how their "
            "pictures were drawn: see to it yourself that they compare"
        )


def _spread(items: Sequence[Item], n: int) -> list[Item]:
    """Return n items, as far apart in the list as can be; fewer where there are fewer."""
    n = min(n, len(items))
    return [items[(i * len(items)) // n] for i in range(n)]


def _all_nouns(item: Item, items: Sequence[Item]) -> set[str]:
    same = (item.group, item.scene)
    return {noun for one in items if (one.group, one.scene) == same for noun in one.nouns}


def _things(item: Item) -> list[dict[str, str]]:
    return [
        {"noun": noun, "picture": _embedded(item.folder / f"concept{k}.png")}
        for k, noun in zip(item.subset, item.nouns, strict=True)
    ]


def _embedded(path: Path) -> str:
    """Return a picture as an address that holds it, without a word of how it was made."""
    small = open_image(path)[0].convert("RGB")
    is_large = max(small.size) > SMALL
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return inlined(small, quality=QUALITY if is_large else 0)
