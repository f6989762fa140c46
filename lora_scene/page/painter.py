"""Draws for the page: one base stays loaded between two clicks."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.completion import Growth, complete, complete_record, grown
from lora_scene.creating.editing import Region, edit, edit_record
from lora_scene.creating.generation import GRID, GRID_WEIGHTS, generate, grid_sheet, plan
from lora_scene.creating.picture_files import read_record, save_image, save_numbered
from lora_scene.creating.prompts import PromptLine
from lora_scene.creating.records import VERB, PictureTold, differences, parse_record, picture_hash
from lora_scene.creating.requests import Request
from lora_scene.creating.studio import Cast, Studio, read_cast
from lora_scene.creating.windows import FEATHER
from lora_scene.errors import CreationError, LoraSceneError
from lora_scene.page.stage import remark
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.pictures import Mask, Pixels, open_image

HASH = re.compile("[0-9a-f]{64}")
INPUTS = "inputs"  # beside the pictures: the photos and masks that they were made from
WHOLE = {"verb": VERB, "width": 0, "height": 0, "weight": 1.0}  # left out by older parts


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

    def again(self, adapters: Sequence[Path], picture: Path, *, out: Path) -> list[Path]:
        """Make a picture anew, from what it says itself, with those of the adapters that drew it.

        Raises:
            CreationError: It tells of no adapter that is here, or its photo is not there any more.
        """
        record = read_record(picture)
        region = next(iter(record.get("regions", ())), None)
        told = parse_record(record if region is None else {**record, **WHOLE, **region})
        choices = _drawn_by(told, adapters)
        cast = read_cast(choices, rename=told.renames)
        with self._lock:
            for notice in differences(self._open(cast, choices), told):
                remark(notice)
            if region is None:
                requests = _looked_at(cast, [told.request])
                made = generate(self._open(cast, choices), requests, out=out)
                return [one.path for one in made if one.path is not None]
        photo = kept_input(out, record.get("photo"))
        sampling = replace(told.request.sampling, strength=region["strength"])
        request = replace(told.request, sampling=sampling)
        is_edit = record["verb"] == "edit"
        marked = region.get("mask") if is_edit else record.get("hole")
        mask = kept_input(out, marked) / np.float32(255)
        draw = self.edit if is_edit else self.complete
        return [draw(choices, photo, mask, request, out)]

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
            record = edit_record(studio, photo, regions, feather=FEATHER)
        keep_inputs(out, photo, mask)
        return save_numbered(out / "edited.png", drawn, record)

    def complete(
        self, choices: Sequence[AdapterChoice], photo: Pixels, hole: Mask, asked: Request, out: Path
    ) -> Path:
        """Fill a hole in a photo; one larger than the photo grows its canvas on all sides."""
        cast = read_cast(choices)
        (request,) = _looked_at(cast, [asked])
        growth = (len(hole) - len(photo)) // 2
        with self._lock:
            studio = self._open(cast, choices)
            drawn = complete(studio, grown(photo, Growth(*[growth] * 4))[0], hole, request)
            record = complete_record(studio, photo, hole, request)
        keep_inputs(out, photo, hole)
        return save_numbered(out / "completed.png", drawn, record)

    def _open(self, cast: Cast, choices: Sequence[AdapterChoice]) -> Studio:
        key = tuple(
            (one.name, one.fingerprint, one.choice.weight, dict(one.renamed))
            for one in cast.members
        )
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
    for note in cast.notes_on_all(resolved):
        remark(note)
    return resolved


def _drawn_by(told: PictureTold, adapters: Sequence[Path]) -> list[AdapterChoice]:
    """Return the adapters that a record names, as it weighs them."""
    here = {}
    for path in adapters:
        with suppress(LoraSceneError, OSError):  # one that is damaged tells that in its own work
            here[fingerprint(read_adapter(path))] = path
    missing = [one for one in told.adapters if one.fingerprint not in here]
    if missing:
        raise CreationError(
            "no work has the adapter that drew it", expected=", ".join(map(str, missing))
        )
    return [AdapterChoice(here[one.fingerprint], one.weight) for one in told.adapters]


def keep_inputs(out: Path, photo: Pixels, mask: Mask) -> None:
    """Keep what a picture was made from, by the hashes that its record names it with."""
    for values, pixels in ((photo, photo), (mask, (mask * 255).astype(np.uint8))):
        path = out / INPUTS / f"{picture_hash(values)}.png"
        if not path.exists():
            write_picture(path, Image.fromarray(pixels))


def kept_input(out: Path, name: object) -> Any:
    """Return a photo (H, W, 3), or a mask (H, W) in 0..255, by the hash that a record tells."""
    path = out / INPUTS / f"{name}.png"
    if HASH.fullmatch(str(name)) is None or not path.is_file():
        raise CreationError("what it was made from is not there any more", where=path.name)
    return np.asarray(open_image(path)[0])
