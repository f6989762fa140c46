"""Pictures from prompts with handles, each of which can be made again from its own file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_scene.creating.control import Control, steered
from lora_scene.creating.encoding import check_prompt, encode_prompts
from lora_scene.creating.picture_files import Record, save_image, save_picture
from lora_scene.creating.prompt_lines import PromptLine
from lora_scene.creating.requests import Request, prompt_of, record_of
from lora_scene.creating.sampling import (
    Pixels,
    Tick,
    check_size,
    decode,
    denoise,
    start_noise,
)
from lora_scene.creating.sheets import contact_sheet
from lora_scene.creating.strength import strengthened
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError

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
    lines: Sequence[PromptLine],
    *,
    seeds: Sequence[int] = (0,),
    weights: Sequence[float] = (1.0,),
    default: Request | None = None,
    with_base: bool = False,
) -> list[Request]:
    """Cross prompts, seeds and weights; what a prompt's line sets is not crossed.

    Args:
        lines: The prompts.
        seeds: For prompts that set none.
        weights: For prompts that set none.
        default: Whatever else a line leaves open.
        with_base: Whether the bare base draws each prompt and seed too, before the adapters.
    """
    default = default or Request("")
    requests = []
    for line in lines:
        request = _with_line(default, line)
        for seed in seeds if line.seed is None else (line.seed,):
            seeded = replace(request, seed=seed)
            if with_base:
                requests.append(replace(seeded, weight=0.0, is_base=True))
            requests += [
                replace(seeded, weight=weight)
                for weight in (weights if line.weight is None else (line.weight,))
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
    requests = [replace(one, control=one.control.resolved(studio)) for one in requests]
    for request in requests:
        check_size(studio, request.size)
        check_prompt(studio, prompt_of(studio, request))
        check_prompt(studio, request.negative)
        if not request.is_base:
            request.control.check_named(studio, request.prompt)
    for batch in batches(requests, batch_size):
        chosen = [requests[index] for index in batch]
        drawn = _draw_batch(studio, chosen, tick)
        for index, request, (pixels, told) in zip(batch, chosen, drawn, strict=True):
            yield index, Picture(pixels, request, {**record_of(studio, request), **told})


def generate(
    studio: Studio,
    requests: Sequence[Request],
    *,
    out: Path | str,
    batch_size: int = 1,
    with_grid: bool = False,
    tick: Tick | None = None,
) -> list[Picture]:
    """Draw pictures into a folder, each written as soon as it is done.

    Args:
        studio: The base and its adapters.
        requests: What to draw; see `plan`.
        out: The folder; pictures of the same names in it are replaced.
        batch_size: How many are drawn at once.
        with_grid: Whether a labelled sheet of all is written too, as `grid.png`.
        tick: Called after every step.

    Raises:
        CreationError: See `draw`; or the folder cannot be written to.
    """
    out = Path(out)
    pictures: dict[int, Picture] = {}
    for index, picture in draw(studio, requests, batch_size=batch_size, tick=tick):
        path = out / f"{index:03}_{slug(picture.request)}.png"
        save_picture(path, picture.pixels, picture.record)
        pictures[index] = replace(picture, path=path)
    ordered = [pictures[index] for index in sorted(pictures)]
    if with_grid:
        save_image(out / GRID, grid_sheet(ordered))
    return ordered


def grid_sheet(pictures: Sequence[Picture]) -> Any:
    """Lay pictures out: prompts and seeds down, weights across; seeds across at one weight."""
    weights = list(dict.fromkeys(_weight_label(picture.request) for picture in pictures))
    prompts = list(dict.fromkeys(picture.request.prompt for picture in pictures))
    seeds = list(dict.fromkeys(picture.request.seed for picture in pictures))
    cells = {
        (p.request.prompt, p.request.seed, _weight_label(p.request)): p.pixels for p in pictures
    }
    if len(weights) == 1:
        return contact_sheet(
            [[cells.get((p, s, weights[0])) for s in seeds] for p in prompts],
            columns=[f"seed {seed}" for seed in seeds],
            rows=prompts,
        )
    rows = [(p, s) for p in prompts for s in seeds if any((p, s, w) in cells for w in weights)]
    return contact_sheet(
        [[cells.get((p, s, w)) for w in weights] for p, s in rows],
        columns=weights,
        rows=[f"{prompt}\nseed {seed}" for prompt, seed in rows],
    )


def slug(request: Request) -> str:
    """Return a file's name for a request, such as `a_photo_of_bear_s7_w0.7`."""
    words = re.sub(r"[^a-z0-9]+", "_", request.prompt.lower()).strip("_")[:SLUG_LENGTH].strip("_")
    tail = "base" if request.is_base else f"w{request.weight:g}"
    return f"{words}_s{request.seed}" + ("" if request.weight == 1.0 else f"_{tail}")


def _draw_batch(
    studio: Studio, chosen: Sequence[Request], tick: Tick | None
) -> Iterator[tuple[Pixels, dict[str, Any]]]:
    """Draw requests that share all settings; give the pixels, and what was measured of places."""
    first = chosen[0]
    control = Control() if first.is_base else first.control
    prompts = [prompt_of(studio, request) for request in chosen]
    with studio.weighted(first.weight), strengthened(studio, dict(control.strengths)):
        text = encode_prompts(studio, prompts, [request.negative for request in chosen])
        seeds = [request.seed for request in chosen]
        start = start_noise(studio, seeds, check_size(studio, first.size))
        rows, columns = start.eps.shape[-2:]
        with steered(studio, prompts, control, text=text, latents=(rows, columns)) as guides:
            z = denoise(studio, text, start, sampling=first.sampling, guides=guides, tick=tick)
    for index, pixels in enumerate(decode(studio, z)):
        yield pixels, {"inside": guides[0].told(index)} if guides else {}


def _weight_label(request: Request) -> str:
    if request.is_base:
        return "base, class nouns"
    alone = " (handles alone)" if request.weight == 0 else ""
    return f"weight {request.weight:g}{alone}"


def _with_line(default: Request, line: PromptLine) -> Request:
    size = default.size
    if line.width or line.height:
        width, height = size or (None, None)
        width, height = line.width or width, line.height or height
        size = (width or height or 0, height or width or 0)
    sampling = default.sampling
    return replace(
        default,
        prompt=line.prompt,
        negative=default.negative if line.negative is None else line.negative,
        size=size,
        sampling=replace(
            sampling,
            n_steps=sampling.n_steps if line.steps is None else line.steps,
            guidance=sampling.guidance if line.guidance is None else line.guidance,
            scheduler=line.scheduler or sampling.scheduler,
        ),
    )
