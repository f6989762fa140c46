"""A scene taken apart: one picture a concept, and its background alone.

Things that are entangled in the photo, a dog and its shirt, come apart because union sampling
taught each handle without the other (Break-A-Scene, section 4.3). Where they still cling to each
other, naming the other things in the negative prompt pushes them away; colours suffer from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_scene.creating.generation import Picture, generate
from lora_scene.creating.picture_files import save_image
from lora_scene.creating.requests import Request
from lora_scene.creating.sampling import Pixels, Tick
from lora_scene.creating.sheets import contact_sheet
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.union import PROMPT_TEMPLATE, prompt_for

SHEET = "parts.png"


@dataclass(frozen=True)
class Part:
    """One part of a scene.

    Attributes:
        label: For people, such as `<bear> teddy bear`.
        handles: What its pictures show.
        requests: One per seed.
    """

    label: str
    handles: tuple[str, ...]
    requests: tuple[Request, ...]


def plan_parts(
    studio: Studio,
    *,
    seeds: Sequence[int] = (0,),
    default: Request | None = None,
    template: str = PROMPT_TEMPLATE,
    is_apart: bool = False,
) -> list[Part]:
    """Plan the pictures of a scene's parts: each thing, the background, then all together.

    Args:
        studio: The base and its adapters.
        seeds: One picture of each part a seed.
        default: Whatever the plan leaves open: size, solver, weight, control.
        template: The prompt, with {} for the handles.
        is_apart: Whether the other things are named in the negative prompt.

    Raises:
        CreationError: No adapter is loaded, or the template has no {}.
    """
    handles = tuple(studio.nouns)
    if not handles:
        raise CreationError("nothing to take apart: no adapter is loaded")
    if "{}" not in template:
        raise CreationError("no place for the handles", where=template, expected="{} in it")
    alone = [(handle,) for handle in (*studio.things, *_backgrounds(studio))]
    groups = alone + ([handles] if len(handles) > 1 else [])
    return [
        _part(studio, group, seeds, default or Request(""), template, is_apart) for group in groups
    ]


def decompose(
    studio: Studio,
    parts: Sequence[Part],
    *,
    out: Path | str,
    photo: Pixels | None = None,
    batch_size: int = 1,
    tick: Tick | None = None,
) -> list[Picture]:
    """Draw the parts of a scene, and lay them out beside each other as `parts.png`.

    Args:
        studio: The base and its adapters.
        parts: See `plan_parts`.
        out: The folder.
        photo: (H, W, 3) uint8, shown first if given.
        batch_size: How many are drawn at once.
        tick: Called after every step.
    """
    requests = [request for part in parts for request in part.requests]
    pictures = generate(studio, requests, out=out, batch_size=batch_size, tick=tick)
    n_seeds = len(parts[0].requests)
    columns = [pictures[start : start + n_seeds] for start in range(0, len(pictures), n_seeds)]
    cells: list[list[Pixels | None]] = [
        [column[row].pixels for column in columns] for row in range(n_seeds)
    ]
    labels = [part.label for part in parts]
    if photo is not None:
        cells = [[photo if row == 0 else None, *line] for row, line in enumerate(cells)]
        labels = ["the photo", *labels]
    save_image(Path(out) / SHEET, contact_sheet(cells, columns=labels))
    return pictures


def _part(
    studio: Studio,
    group: tuple[str, ...],
    seeds: Sequence[int],
    default: Request,
    template: str,
    is_apart: bool,
) -> Part:
    others = [handle for handle in studio.things if handle not in group]
    negative = ", ".join([default.negative] * bool(default.negative) + others * is_apart)
    label = " and ".join(group) if len(group) > 1 else f"{group[0]} {studio.nouns[group[0]]}"
    own = replace(
        default,
        prompt=prompt_for(group, None, template),
        negative=negative,
        control=default.control.resolved(studio).only(group),
    )
    requests = tuple(replace(own, seed=seed) for seed in seeds)
    return Part(label, group, requests)


def _backgrounds(studio: Studio) -> list[str]:
    return [handle for handle in studio.nouns if handle not in studio.things]
