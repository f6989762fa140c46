"""Draws for the page: one base stays loaded between two clicks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_scene.creating.completion import Growth, complete, complete_record, grown, spread
from lora_scene.creating.editing import Region, edit, edit_record
from lora_scene.creating.generation import GRID, GRID_WEIGHTS, generate, grid_sheet, plan
from lora_scene.creating.picture_files import read_record, save_image, save_numbered
from lora_scene.creating.prompts import PromptLine
from lora_scene.creating.records import differences, parse_record
from lora_scene.creating.requests import Request
from lora_scene.creating.studio import AdapterChoice, Cast, Studio, read_cast
from lora_scene.page.stage import remark
from lora_scene.scenes.pictures import Mask, Pixels

SPREAD = 4  # pixels around a hole that are filled too, as `lora-scene complete` does


class Painter:
    """Keeps the last studio; another choice of adapters or base, or a new training, opens anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Any = None
        self._studio: Studio | None = None

    def draw(
        self,
        choices: Sequence[AdapterChoice],
        request: Request,
        *,
        out: Path,
        n_pictures: int,
        is_grid: bool,
        tick: Any = None,
    ) -> list[Path]:
        """Draw a request from its seed on, each picture with its record; return the files."""
        cast = read_cast(choices)
        seeds = [request.seed + n for n in range(n_pictures)]
        weights = GRID_WEIGHTS if is_grid else (1.0,)
        lines = [PromptLine(request.prompt)]
        requests = _looked_at(
            cast, plan(cast, lines, seeds=seeds, weights=weights, default=request)
        )
        with self._lock:
            studio = self._open(cast, choices)
            pictures = generate(studio, requests, out=out, tick=tick)
        files = [picture.path for picture in pictures if picture.path is not None]
        return [*files, save_image(out / GRID, grid_sheet(pictures))] if is_grid else files

    def again(self, choices: Sequence[AdapterChoice], picture: Path, *, out: Path) -> list[Path]:
        """Make a picture anew, from what it says itself."""
        told = parse_record(read_record(picture))
        cast = read_cast(choices, rename=told.renames)
        with self._lock:
            studio = self._open(cast, choices)
            for notice in differences(studio, told):
                remark(notice)
            made = generate(studio, _looked_at(cast, [told.request]), out=out)
        return [one.path for one in made if one.path is not None]

    def edit(
        self, choices: Sequence[AdapterChoice], photo: Pixels, mask: Mask, asked: Request, out: Path
    ) -> Path:
        """Redraw a region of a photo."""
        cast = read_cast(choices)
        (request,) = _looked_at(cast, [asked])
        with self._lock:
            studio = self._open(cast, choices)
            regions = [Region(mask, request)]
            drawn = edit(studio, photo, regions)
            record = edit_record(studio, photo, regions, feather=0.03)
        return save_numbered(out / "edited.png", drawn, record)

    def complete(
        self,
        choices: Sequence[AdapterChoice],
        photo: Pixels,
        hole: Mask | None,
        asked: Request,
        out: Path,
        *,
        growth: int = 0,
    ) -> Path:
        """Fill a hole in a photo, or grow its canvas on all sides."""
        cast = read_cast(choices)
        (request,) = _looked_at(cast, [asked])
        canvas = photo
        if hole is None:
            canvas, hole = grown(photo, Growth(*[growth] * 4))
        else:
            hole = spread(hole, SPREAD)
        with self._lock:
            studio = self._open(cast, choices)
            drawn = complete(studio, canvas, hole, request)
            record = complete_record(studio, photo, hole, request)
        return save_numbered(out / "completed.png", drawn, record)

    def _open(self, cast: Cast, choices: Sequence[AdapterChoice]) -> Studio:
        key = tuple((one.name, one.fingerprint, one.choice.weight) for one in cast.members)
        if self._studio is None or key != self._key:
            self._studio = None  # its memory is needed for the next
            self._studio = cast.studio()
            self._key = key
            for notice in self._studio.notices:
                remark(notice)
        return self._studio


def _looked_at(cast: Cast, requests: Sequence[Request]) -> list[Request]:
    """Check what needs no base; tell what a person should know of the prompts."""
    resolved = [request.resolved(cast) for request in requests]
    for prompt in dict.fromkeys(request.prompt for request in resolved):
        for note in cast.notes_on(prompt):
            remark(note)
    return resolved
