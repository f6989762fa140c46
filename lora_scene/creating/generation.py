"""Pictures from prompts with handles, each of which can be made again from its own file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from lora_scene.creating.names import Names
from lora_scene.creating.picture_files import Record, save_numbered
from lora_scene.creating.prompts import PromptLine
from lora_scene.creating.records import record_of
from lora_scene.creating.rendering import checked, render
from lora_scene.creating.requests import Amounts, Request
from lora_scene.creating.sampling import Tick
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.pictures import Pixels
from lora_scene.sheets import contact_sheet

GRID_WEIGHTS = (0.0, 0.7, 1.0)  # the handles' rows alone, the usual compromise, all of the LoRA
GRID = "grid.png"
SLUG_LENGTH = 48  # characters of the prompt in a file's name


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and how it was made.

    Attributes:
        pixels: (H, W, 3) uint8.
        request: What was asked for.
        record: Everything that makes it again.
        path: Where it was written, or None.
    """

    pixels: Pixels
    request: Request
    record: Record
    path: Path | None = None


def plan(
    names: Names,
    lines: Sequence[PromptLine],
    *,
    seeds: Sequence[int] = (0,),
    weights: Sequence[float] = (1.0,),
    default: Request | None = None,
    with_base: bool = False,
) -> list[Request]:
    """Cross prompts, seeds and weights; what a prompt's line sets is not crossed.

    Args:
        names: The handles.
        lines: The prompts; each is asked the default's control of the handles that it names.
        seeds: For prompts that set none.
        weights: For prompts that set none.
        default: Whatever else a line leaves open.
        with_base: Whether the bare base draws each prompt and seed too, before the adapters.

    Raises:
        CreationError: A prompt names an unknown handle, or none a handle that is controlled.
    """
    default = default or Request("")
    requests = []
    controls = default.control.shared_out(names, [line.prompt for line in lines])
    for line, control in zip(lines, controls, strict=True):
        request = replace(default, control=control).with_settings(line.settings)
        request = replace(request, prompt=line.prompt)
        for seed in [line.settings["seed"]] if "seed" in line.settings else seeds:
            seeded = replace(request, seed=seed)
            if with_base:
                requests.append(replace(seeded, weight=0.0, is_base=True))
            requests += [
                replace(seeded, weight=weight)
                for weight in ([request.weight] if "weight" in line.settings else weights)
            ]
    return requests


def batches(requests: Sequence[Request], batch_size: int) -> list[list[int]]:
    """Group the requests' indices into batches; only prompts and seeds may differ in one."""
    groups: dict[Any, list[int]] = {}
    for index, request in enumerate(requests):
        key = (
            request.size,
            request.sampling,
            request.weight,
            request.control,
            request.is_base,
        )
        groups.setdefault(key, []).append(index)
    return [
        group[start : start + batch_size]
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]


def draw(
    studio: Studio,
    requests: Sequence[Request],
    *,
    batch_size: int = 1,
    tick: Tick | None = None,
) -> Iterator[tuple[int, Picture]]:
    """Draw pictures; each is given out with its place among the requests when it is done.

    A picture's noise comes from its own seed, whatever batch it is in. On the CPU the same
    request gives the same bytes; batches of another size may round differently.

    Raises:
        CreationError: A prompt names an unknown handle or is too long, or a size does not divide;
            looked at for all requests before the first is drawn.
    """
    if batch_size < 1:
        raise CreationError("an empty batch", where="batch", expected="at least 1", got=batch_size)
    requests = [checked(studio, request) for request in requests]
    for batch in batches(requests, batch_size):
        chosen = [requests[index] for index in batch]
        done = render(studio, chosen, tick=tick)
        for index, request, pixels, inside in zip(
            batch, chosen, done.pixels, done.inside, strict=True
        ):
            record = {**record_of(studio, request), **({"inside": inside} if inside else {})}
            yield index, Picture(pixels, request, record)


def generate(
    studio: Studio,
    requests: Sequence[Request],
    *,
    out: Path | str,
    batch_size: int = 1,
    tick: Tick | None = None,
) -> list[Picture]:
    """Draw pictures into a folder, each written as soon as it is done.

    Args:
        studio: The base and its adapters.
        requests: What to draw; see `plan`.
        out: The folder; other pictures of the same names in it stay, see `save_numbered`.
        batch_size: How many are drawn at once.
        tick: Called after every step.

    Raises:
        CreationError: See `draw`.
        FileError: The folder cannot be written to.
    """
    pictures: dict[int, Picture] = {}
    for index, picture in draw(studio, requests, batch_size=batch_size, tick=tick):
        path = Path(out) / f"{index:03}_{slug(picture.request)}.png"
        pictures[index] = replace(picture, path=save_numbered(path, picture.pixels, picture.record))
    return [pictures[index] for index in sorted(pictures)]


def grid_sheet(pictures: Sequence[Picture]) -> Image:
    """Lay pictures out: prompts and seeds down, weights across; seeds across at one weight.

    A prompt with several settings, as lines of a file have them, has a row for each.
    """
    asked = [picture.request for picture in pictures]
    weights = {_weighing(request): _weight_label(request) for request in asked}
    seeds = list(dict.fromkeys(request.seed for request in asked))
    kinds = list(dict.fromkeys(map(_kind, asked)))
    labels = {kind: _kind_label(kind, kinds) for kind in kinds}
    cells = {
        (_kind(request), request.seed, _weighing(request)): picture.pixels
        for request, picture in zip(asked, pictures, strict=True)
    }
    if len(weights) == 1:
        return contact_sheet(
            [[cells.get((kind, s, w)) for s in seeds for w in weights] for kind in kinds],
            columns=[f"seed {seed}" for seed in seeds],
            rows=list(labels.values()),
        )
    rows = [(k, s) for k in kinds for s in seeds if any((k, s, w) in cells for w in weights)]
    return contact_sheet(
        [[cells.get((kind, s, w)) for w in weights] for kind, s in rows],
        columns=list(weights.values()),
        rows=[f"{labels[kind]}\nseed {seed}" for kind, seed in rows],
    )


def slug(request: Request) -> str:
    """Return a file's name for a request, such as `a_photo_of_bear_s7_w0.7`."""
    words = re.sub(r"[^a-z0-9]+", "_", request.prompt.lower()).strip("_")[:SLUG_LENGTH].strip("_")
    tail = "base" if request.is_base else f"w{_told_weight(request)}"
    return f"{words}_s{request.seed}" + ("" if request.weight == 1.0 else f"_{tail}")


def _weighing(request: Request) -> tuple[bool, float | Amounts]:
    """Return what a column of a sheet shares."""
    return request.is_base, request.weight


def _kind(request: Request) -> Request:
    """Return what a row of a sheet shares, whatever seed and weight."""
    return replace(request, seed=0, weight=1.0, is_base=False)


def _kind_label(kind: Request, kinds: Sequence[Request]) -> str:
    """Return a row's prompt, and what tells it from other rows of that prompt."""
    own = kind.record()
    alike = [one.record() for one in kinds if one.prompt == kind.prompt]
    differs = [key for key in own if any(other.get(key) != own[key] for other in alike)]
    return "\n".join([kind.prompt, *(f"{key} {own[key]}" for key in differs)])


def _weight_label(request: Request) -> str:
    if request.is_base:
        return "base, class nouns"
    alone = " (handles alone)" if request.weight == 0 else ""
    return f"weight {_told_weight(request)}{alone}"


def _told_weight(request: Request) -> str:
    weight = request.weight
    return "-".join(f"{w:g}" for _, w in weight) if isinstance(weight, tuple) else f"{weight:g}"
