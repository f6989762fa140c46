"""A run as one page that needs nothing else: `run.html`, or several runs side by side."""

from __future__ import annotations

import datetime
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.adapters.gallery import prompt_in
from lora_scene.backbones.sources import public_name
from lora_scene.files import check_file, write_text
from lora_scene.learning.outcome import public
from lora_scene.learning.run_charts import colour_of, draw_charts
from lora_scene.learning.run_record import RunRecord, read_run, seconds_between
from lora_scene.learning.runs import ASKED, PAGE, PATIENCE
from lora_scene.pages import fill_page, inlined, inlined_file
from lora_scene.recipe import dump_recipe, flat_settings

THUMBNAIL = 320  # pixels of a picture's longer side
QUALITY = 82  # of WebP
MOST_STOPS = 40  # of a slider; of more, some are left out
_BASE = re.compile(r'^((?:model|config) = ")(.+)"', re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """What a slider shows at one stop.

    Attributes:
        step: Over both phases.
        pictures: (`data:` address, words below) each.
    """

    step: int
    pictures: tuple[tuple[str, str], ...]


def write_run_page(out: Path | str, *more: Path | str, to: Path | None = None) -> Path:
    """Write the page of a run, or of several side by side.

    Args:
        out: A run's folder.
        more: Others, to be compared with it.
        to: The file; None takes `run.html` of the first run.

    Returns:
        The file.

    Raises:
        TrainingError: A folder holds no run.
        FileError: What lies there is somebody else's, or it cannot be written.
    """
    runs = [read_run(folder) for folder in (out, *more)]
    names = _names(runs)
    place = check_file(to or Path(out) / PAGE)
    page = fill_page(
        "learning",
        "run_page.html",
        title=", ".join(names) if len(runs) < 4 else f"{len(runs)} runs",
        colours=[colour_of(n) for n in range(len(runs))],
        now=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        is_running=any(run.is_running and not run.summary for run in runs),
        charts=[
            (chart.title, inlined_file(chart.svg.encode(), "svg+xml"))
            for chart in draw_charts(runs)
        ],
        table=_compared(runs, names) if more else [],
        runs=[_shown(run) | {"name": name} for run, name in zip(runs, names, strict=True)],
    )
    return write_text(place, page)


def _shown(run: RunRecord) -> dict[str, Any]:
    """Return what the template shows of a run."""
    return {
        "state": _state(run),
        "facts": _facts(run),
        "masks": _picture(run.masks) if run.masks else "",
        "maps": _frames(run.maps, lambda k, path: _handle(run, k)),
        "samples": _frames(run.samples, lambda n, path: prompt_in(path)),
        "notices": [_without_places(run, text) for text in run.notices],
        "recipe": _recipe(run),
        "versions": dict(run.began.versions),
        "log": [
            (time, kind, _without_places(run, words))
            for time, kind, words in map(_told, run.events)
        ],
    }


def _recipe(run: RunRecord) -> str:
    """Return the recipe's text; one of another version as it is, but for the places it tells."""
    return dump_recipe(public(run.recipe)) if run.recipe else _BASE.sub(_last_part, run.recipe_toml)


def _last_part(line: re.Match[str]) -> str:
    return line[1] + public_name(line[2]) + '"'


def _without_places(run: RunRecord, text: str) -> str:
    """Return a text in which what lies on this machine has the last part of its path alone."""
    base = run.recipe.base if run.recipe else None
    names = {str(place): _name(place) for place in (run.folder, run.folder.absolute())}
    names |= {run.began.scene: _name(run.began.scene)}
    names |= {place: public_name(place) for place in (base.model, base.config)} if base else {}
    for place in sorted((p for p in names if re.search(r"[\\/].", p)), key=len, reverse=True):
        text = text.replace(place, names[place])
    return text


def _name(place: Path | str) -> str:
    return Path(place).resolve().name


def _state(run: RunRecord) -> str:
    done = run.place(run.steps[-1]) if run.steps else 0
    place = f"step {done} of {run.n_wanted}" if run.n_wanted else f"step {done}"
    ended = run.summary.ended if run.summary else ""
    if ended == ASKED:
        return f"ended after {place}, as asked"
    if ended == PATIENCE:
        return f"ended after {place}, for nothing moved any more"
    if run.summary:
        return f"finished, {done} steps"
    return f"{'running' if run.is_running else 'stopped'}: {place}"


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    began, facts = run.began, []
    if run.handles:
        pairs = [f"{h} {noun}" for h, noun in zip_longest(run.handles, began.nouns, fillvalue="")]
        facts.append(("learns", ", ".join(pair.strip() for pair in pairs)))
    if began.scene:
        facts.append(("scene", _name(began.scene)))
    if began.base:
        facts.append(("base", public_name(began.base)))
    if began.begun:
        facts.append(("begins from", began.begun))
    if run.recipe is not None:
        facts.append(("recipe", f"{run.recipe.name}, seed {run.recipe.run.seed}"))
    if began.device:
        facts.append(("machine", f"{began.device}, {began.dtype}, {began.resolution} px"))
    if (peak := _peak(run)) > 0:
        facts.append(("memory", f"{peak / 1e9:.2f} GB at its peak"))
    if run.steps:
        spent = _seconds(run)
        each = spent / len(run.steps)
        facts.append(("steps", f"{len(run.steps)}, {spent:.0f} s, {each:.2f} s each"))
    if began.time:
        passed = seconds_between(began.time, run.events[-1]["time"])
        facts.append(("since", f"{began.time}; last heard of {passed:.0f} s later"))
    return facts


def _peak(run: RunRecord) -> int:
    told = [int(line.get("peak_bytes") or 0) for line in run.events]
    return max([*told, run.summary.peak_bytes if run.summary else 0])


def _frames(stops: Mapping[int, Mapping[int, Path]], words: Any) -> list[Shown]:
    """Return a slider's frames."""
    steps = list(stops)
    if len(steps) > MOST_STOPS:
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, MOST_STOPS).round().astype(int)]
    return [
        Shown(step, tuple((_picture(p), words(n, p)) for n, p in sorted(stops[step].items())))
        for step in steps
    ]


def _picture(path: Path) -> str:
    """Return a picture as a `data:` address; of one that just went nothing."""
    try:
        return _kept_picture(path, path.stat().st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=512)
def _kept_picture(path: Path, changed: int) -> str:
    """Return what a page shows of a picture, kept, for a page is rewritten often.

    Maps and masks are small, checked files of ours, and go in as they are.
    """
    if path.suffix == ".jpg":
        return inlined_file(path.read_bytes(), "jpeg")
    with Image.open(path) as picture:
        image = picture.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return inlined(image, quality=QUALITY)


def _handle(run: RunRecord, k: int) -> str:
    return run.handles[k] if k < len(run.handles) else f"concept {k}"


def _told(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return an event's time, kind and content in words."""
    rest = {k: v for k, v in line.items() if k not in ("time", "event", "written_by", "versions")}
    words = rest.get("text") or ", ".join(f"{key} {value}" for key, value in rest.items())
    return str(line.get("time", ""))[:19], str(line.get("event", "")), str(words)


def _names(runs: Sequence[RunRecord]) -> list[str]:
    """Return what to call runs: their folders' names, with the one above where two are equal."""
    names = [run.name for run in runs]
    return [
        f"{run.folder.absolute().parent.name}/{name}" if names.count(name) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def _compared(runs: Sequence[RunRecord], names: Sequence[str]) -> list[list[str]]:
    """Return a table: what runs came to, then the settings in which they differ."""
    rows = [["", *names], ["state", *(_state(run) for run in runs)]]
    rows.append(["seconds", *(f"{_seconds(run):.0f}" for run in runs)])
    rows.append(["peak memory, GB", *(f"{_peak(run) / 1e9:.2f}" for run in runs)])
    rows.append(["held loss, last", *(_last(run, "loss") for run in runs)])
    rows.append(["attention IoU, last", *(_last(run, "ious") for run in runs)])
    settings = [_settings(_recipe(run)) for run in runs]
    for key in dict.fromkeys(key for own in settings for key in own):
        values = [own.get(key, "–") for own in settings]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return rows


def _seconds(run: RunRecord) -> float:
    return float(sum(line.get("seconds") or 0 for line in run.steps))


def _last(run: RunRecord, key: str) -> str:
    """Return the last look's value, the mean of several, in words."""
    if not run.looks:
        return "–"
    value = run.looks[-1].get(key)
    values = list(value.values()) if isinstance(value, dict) else [value]
    there = [one for one in values if one is not None]
    return f"{np.mean(there):.3f}" if there else "–"


def _settings(text: str) -> dict[str, str]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    return {key: str(one) for key, one in flat_settings(table).items() if key != "description"}
