"""New arrangements of a photo's concepts: other orders, other places, other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_scene.creating.generation import Picture, generate
from lora_scene.creating.picture_files import save_image
from lora_scene.creating.placing import Place
from lora_scene.creating.requests import Request
from lora_scene.creating.sampling import Pixels, Tick
from lora_scene.creating.sheets import contact_sheet
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.union import PROMPT_TEMPLATE, prompt_for

SHEET = "variations.png"
N_COLUMNS = 5
MIN_SHARE = 0.8  # of a column's or a row's width that a box takes


def plan_variations(
    studio: Studio,
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
        studio: The base and its adapters.
        n: How many.
        handles: What to show; all by default. The background is named last.
        template: The prompt, with {} for the handles.
        default: Whatever the plan leaves open: seed, size, solver, weight.
        is_placed: Whether each thing is placed in a box of its own, drawn at random.

    Raises:
        CreationError: Nothing to show, an unknown handle, or a template without {}.
    """
    chosen = [studio.find_handle(handle) for handle in handles] or list(studio.nouns)
    if not chosen:
        raise CreationError("nothing to arrange: no adapter is loaded")
    if "{}" not in template:
        raise CreationError("no place for the handles", where=template, expected="{} in it")
    default = default or Request("")
    seeds = range(default.seed, default.seed + n)
    return [_arranged(studio, chosen, template, replace(default, seed=s), is_placed) for s in seeds]


def vary(
    studio: Studio,
    requests: Sequence[Request],
    *,
    out: Path | str,
    photo: Pixels | None = None,
    batch_size: int = 1,
    tick: Tick | None = None,
) -> list[Picture]:
    """Draw planned variations, and lay them out in rows as `variations.png`, the photo first."""
    pictures = generate(studio, requests, out=out, batch_size=batch_size, tick=tick)
    cells: list[Pixels | None] = [photo] if photo is not None else []
    cells += [picture.pixels for picture in pictures]
    rows = [cells[start : start + N_COLUMNS] for start in range(0, len(cells), N_COLUMNS)]
    save_image(Path(out) / SHEET, contact_sheet(rows))
    return pictures


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


def _arranged(
    studio: Studio, chosen: Sequence[str], template: str, request: Request, is_placed: bool
) -> Request:
    """Return a request for one arrangement, drawn from the request's own seed."""
    rng = np.random.default_rng(request.seed)
    things = [handle for handle in chosen if handle in studio.things]
    things = [things[index] for index in rng.permutation(len(things))]
    behind = [handle for handle in chosen if handle not in studio.things]
    control = request.control
    if is_placed:
        control = replace(control, places=random_places(things, rng))
    prompt = prompt_for([*things, *behind], None, template)
    return replace(request, prompt=prompt, control=control)
