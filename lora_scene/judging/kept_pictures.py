"""What a judgement has drawn so far, kept so that the same one goes on where it was interrupted.

A picture's file says how it was made, and where its handles' attention lay. A batch is taken up
whole or drawn anew, for what is drawn together may round together: so the result is the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.creating.generation import slug
from lora_scene.creating.picture_files import picture_bytes, read_record
from lora_scene.creating.records import record_of
from lora_scene.creating.rendering import checked
from lora_scene.creating.requests import Request
from lora_scene.creating.studio import Studio
from lora_scene.errors import FileError, LoraSceneWarning
from lora_scene.file_groups import remove_ours
from lora_scene.files import write_bytes
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.ownership import is_ours

UNFINISHED = "unfinished"  # the folder's name, within that of the result
ATTENTION = "attention"  # in a record: the maps' shape, and their values in base64
FLOATS = "<f4"  # of the maps


class KeptPictures:
    """Pictures in a folder, found again by all that makes them and those beside them.

    Args:
        folder: Where they lie; it is made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()
        self._can_write = True

    def find(self, studio: Studio, batch: Sequence[Request]) -> list[Drawn]:
        """Return a batch as it was drawn from the same base and adapters, or nothing."""
        found = []
        for (path, record), asked in zip(_files(self._folder, studio, batch), batch, strict=False):
            kept = _read(path, record)
            if kept is None:
                return []
            self._used.add(path)
            found.append(Drawn(asked, kept[0], studio.handles_in(asked.prompt), kept[1]))
        return found

    def keep(self, studio: Studio, drawn: Sequence[Drawn]) -> None:
        """Write a batch; where that cannot be, say so once, and keep no more."""
        files = _files(self._folder, studio, [one.asked for one in drawn])
        for (path, record), one in zip(files, drawn, strict=False):
            if not self._can_write:
                return
            values = base64.b64encode(one.maps.astype(FLOATS).tobytes()).decode("ascii")
            told = {**record, ATTENTION: [list(one.maps.shape), values]}
            try:
                write_bytes(path, picture_bytes(path, one.pixels, told), root=self._folder.parent)
                self._used.add(path)
            except FileError as error:
                self._can_write = False
                said = f"what is drawn from here on is lost if this is interrupted: {error}"
                warnings.warn(said, LoraSceneWarning, stacklevel=2)

    def forget(self) -> None:
        """Delete what was found and kept here, once there is a result.

        Raises:
            FileError: The system refused it.
        """
        remove_ours(self._folder, [path for path in sorted(self._used) if is_ours(path)])


def _files(
    folder: Path, studio: Studio, batch: Sequence[Request]
) -> list[tuple[Path, dict[str, Any]]]:
    """Return each picture's file and record; none of a base in few bits, which has no hash."""
    if not studio.base_hash:
        return []
    records = [record_of(studio, checked(studio, one)) for one in batch]
    base = (studio.pipeline.unet, studio.pipeline.vae, studio.pipeline.scheduler)
    told = json.dumps([records, [dict(part.config) for part in base]], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    names = [f"{slug(one)}_{digest}_{n}.png" for n, one in enumerate(batch)]
    return [(folder / name, record) for name, record in zip(names, records, strict=True)]


def _read(path: Path, record: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return a picture and its maps; None where it is not there, or is not as it was written."""
    if not is_ours(path):
        return None
    told = read_record(path)
    shape, values = told.pop(ATTENTION, (None, None))
    if values is None or told != json.loads(json.dumps(record)):
        return None
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return pixels, np.frombuffer(base64.b64decode(values), FLOATS).reshape(shape).copy()
