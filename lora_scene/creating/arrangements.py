"""A scene's concepts, taken apart or arranged anew.

`plan_parts`: one picture a concept, and its background alone. Things that are entangled in the
photo, a dog and its shirt, come apart because union sampling taught each handle without the other
(Break-A-Scene, section 4.3). Where they still cling to each other, naming the other things in the
negative prompt pushes them away; colours suffer from it.

`plan_variations`: other orders, other places, other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from lora_scene.creating.encoding import left_out
from lora_scene.creating.names import Names
from lora_scene.creating.requests import Place, Request
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.union import PROMPT_TEMPLATE, prompt_for
from lora_scene.sheets import contact_sheet

PARTS_SHEET, VARIATIONS_SHEET = "parts.png", "variations.png"
N_COLUMNS = 5
MIN_SHARE = 0.8  # of a column's or a row's width that a box takes


@dataclass(frozen=True)
class Part:
    """One part of a scene.

    Attributes:
        label: For people, such as `<bear> teddy bear`.
        requests: One per seed.
    """

    label: str
    requests: tuple[Request, ...]


def plan_parts(
    names: Names,
    *,
    seeds: Sequence[int] = (0,),
    default: Request | None = None,
    template: str = PROMPT_TEMPLATE,
    is_apart: bool = False,
) -> list[Part]:
    """Plan the pictures of a scene's parts: each thing, the background, then all together.

    Args:
        names: The handles.
        seeds: One picture of each part a seed.
        default: Whatever the plan leaves open: solver, weight, control, and the size, which is
            otherwise that at which the photo was learnt.
        template: The prompt, with {} for the handles.
        is_apart: Whether the other things are named in the negative prompt.

    Raises:
        CreationError: No adapter is loaded, or the template has no {}.
    """
    handles = tuple(names.nouns)
    if not handles:
        raise CreationError("nothing to take apart: no adapter is loaded")
    _check_template(template)
    backgrounds = [handle for handle in handles if handle not in names.things]
    alone = [(handle,) for handle in (*names.things, *backgrounds)]
    groups = alone + ([handles] if len(handles) > 1 else [])
    default = _in_photos_shape(names, default)
    return [_part(names, group, seeds, default, template, is_apart) for group in groups]


def fitting_parts(studio: Studio, parts: Sequence[Part]) -> list[Part]:
    """Leave out the parts whose handles do not fit into one prompt; told by a warning."""
    too_long = left_out(studio, [request.prompt for part in parts for request in part.requests])
    return [part for part in parts if part.requests[0].prompt not in too_long]


def plan_variations(
    names: Names,
    n: int,
    *,
    handles: Sequence[str] = (),
    template: str = PROMPT_TEMPLATE,
    default: Request | None = None,
    is_placed: bool = False,
) -> list[Request]:
    """Plan n pictures that show the same concepts, arranged anew in each.

    The seed of picture i is the default's plus i; it decides the order in which the prompt names
    the concepts, the noise, and the boxes. So a picture's arrangement does not depend on how many
    others are drawn.

    Args:
        names: The handles.
        n: How many.
        handles: What to show; all by default. The background is named last.
        template: The prompt, with {} for the handles.
        default: Whatever the plan leaves open, as in `plan_parts`, and the first seed.
        is_placed: Whether each thing is placed in a box of its own, drawn at random.

    Raises:
        CreationError: Nothing to show, an unknown handle, a template without {}, places both
            given and drawn, or something asked of a handle that is not shown.
    """
    chosen = list(dict.fromkeys(map(names.find_handle, handles))) or list(names.nouns)
    if not chosen:
        raise CreationError("nothing to arrange: no adapter is loaded")
    _check_template(template)
    default = _in_photos_shape(names, default)
    if is_placed and default.control.places:
        raise CreationError(
            "places are given, and drawn at random too",
            where=", ".join(place.handle for place in default.control.places),
            hint="--at or --place, not both",
        )
    default.control.shared_out(names, [prompt_for(chosen, None, template)])
    seeds = range(default.seed, default.seed + n)
    return [_arranged(names, chosen, template, replace(default, seed=s), is_placed) for s in seeds]


def parts_sheet(
    parts: Sequence[Part], drawn: Sequence[Pixels], photo: Pixels | None = None
) -> Image:
    """Lay the parts out beside each other, a seed a row, the photo first if it is given.

    Args:
        parts: See `plan_parts`.
        drawn: (H, W, 3) uint8, of each part's requests in turn.
        photo: (H, W, 3) uint8.
    """
    n_seeds = len(parts[0].requests)
    columns = [drawn[start : start + n_seeds] for start in range(0, len(drawn), n_seeds)]
    cells: list[list[Pixels | None]] = [
        [column[row] for column in columns] for row in range(n_seeds)
    ]
    labels = [part.label for part in parts]
    if photo is not None:
        cells = [[photo if row == 0 else None, *line] for row, line in enumerate(cells)]
        labels = ["the photo", *labels]
    return contact_sheet(cells, columns=labels, like=drawn[0])


def variations_sheet(drawn: Sequence[Pixels], photo: Pixels | None = None) -> Image:
    """Lay pictures (H, W, 3) uint8 out in rows, the photo first if it is given."""
    cells: list[Pixels | None] = [*([] if photo is None else [photo]), *drawn]
    rows = [cells[start : start + N_COLUMNS] for start in range(0, len(cells), N_COLUMNS)]
    return contact_sheet(rows, like=drawn[0])


def random_places(handles: Sequence[str], rng: np.random.Generator) -> tuple[Place, ...]:
    """Give each handle a box of its own: columns side by side, each at a random height.

    Args:
        handles: K handles; the first stands leftmost.
        rng: Draws widths, heights and places.
    """
    places = []
    for index, handle in enumerate(handles):
        width = rng.uniform(MIN_SHARE, 1.0) / len(handles)
        height = rng.uniform(0.4, 0.7) if len(handles) > 1 else rng.uniform(0.5, 0.8)
        left = index / len(handles) + rng.uniform(0, 1 / len(handles) - width)
        top = rng.uniform(0, 1 - height)
        edges = [round(float(edge), 3) for edge in (left, top, left + width, top + height)]
        places.append(Place(handle, (edges[0], edges[1], edges[2], edges[3])))
    return tuple(places)


def _part(
    names: Names,
    group: tuple[str, ...],
    seeds: Sequence[int],
    default: Request,
    template: str,
    is_apart: bool,
) -> Part:
    others = [handle for handle in names.things if handle not in group]
    negative = ", ".join([default.negative] * bool(default.negative) + others * is_apart)
    label = " and ".join(group) if len(group) > 1 else f"{group[0]} {names.nouns[group[0]]}"
    own = replace(
        default,
        prompt=prompt_for(group, None, template),
        negative=negative,
        control=default.control.only(group),
    )
    requests = tuple(replace(own, seed=seed) for seed in seeds)
    return Part(label, requests)


def _arranged(
    names: Names, chosen: Sequence[str], template: str, request: Request, is_placed: bool
) -> Request:
    """Return a request for one arrangement, drawn from the request's own seed."""
    rng = np.random.default_rng(request.seed)
    things = [handle for handle in chosen if handle in names.things]
    things = [things[index] for index in rng.permutation(len(things))]
    behind = [handle for handle in chosen if handle not in names.things]
    control = request.control
    if is_placed:
        control = replace(control, places=random_places(things, rng))
    prompt = prompt_for([*things, *behind], None, template)
    return replace(request, prompt=prompt, control=control)


def _in_photos_shape(names: Names, default: Request | None) -> Request:
    default = default or Request("")
    size, control = default.size or names.photo_size, default.control.resolved(names)
    return replace(default, size=size, control=control)


def _check_template(template: str) -> None:
    if "{}" not in template:
        raise CreationError("no place for the handles", where=template, expected="{} in it")
