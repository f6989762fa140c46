"""What every tab sees: one piece of work at a time, each in a folder of its own below the page's.

out/bear/
├── draft/      the photos as they were read, without EXIF data; what was shown in them
├── scene/      what a training learns from
├── adapter/    the training's folder
├── pictures/   what was drawn
└── exported/   files for interfaces
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.files import check_target
from lora_scene.page.draft import Draft, draft_of
from lora_scene.page.draft_files import is_draft, read_draft, write_draft
from lora_scene.scenes.pictures import read_photo
from lora_scene.scenes.scene import load_scene
from lora_scene.scenes.scene_folder import save_scene
from lora_scene.targets import RESERVED_STEMS

MOST_NAME = 40  # characters of a folder's name
MOST_STEPS_BACK = 50


@dataclass(frozen=True)
class Work:
    """A piece of work: where its parts lie."""

    folder: Path

    @property
    def name(self) -> str:
        """Return what the page calls it."""
        return self.folder.name

    @property
    def scene(self) -> Path:
        """Return the folder that a training learns from."""
        return self.folder / "scene"

    @property
    def adapter(self) -> Path:
        """Return the training's folder."""
        return self.folder / "adapter"

    @property
    def pictures(self) -> Path:
        """Return the folder of what was drawn."""
        return self.folder / "pictures"

    @property
    def exported(self) -> Path:
        """Return the folder of files for interfaces."""
        return self.folder / "exported"


class Desk:
    """The work at hand, shared by all tabs; take `lock` around whatever changes it.

    Args:
        out: The page's folder.

    Attributes:
        version: Grows with every change, so that other tabs notice.
        work: The work at hand, or None before the first photo.
        draft: What was shown of its things.
    """

    def __init__(self, out: Path) -> None:
        self.out = check_target(out)
        self.lock = threading.RLock()
        self.version = 0
        self.work: Work | None = None
        self.draft = Draft()
        self._history: list[Draft] = []
        for name in self.names():
            with contextlib.suppress(LoraSceneError, OSError):  # told when it is opened anew
                self.open(name)
                break

    def names(self) -> list[str]:
        """Return the names of all works, the latest first."""
        drafts = [path for path in self.out.glob("*/draft") if is_draft(path)]
        return [d.parent.name for d in sorted(drafts, key=lambda d: -d.stat().st_mtime)]

    def find(self, name: str) -> Work:
        """Return a work by its name; none outside the page's folder can be named.

        Raises:
            SceneError: There is none.
        """
        if name not in self.names():
            raise SceneError("no such work", where=name, expected=", ".join(self.names()))
        return Work(self.out / name)

    def need(self) -> Work:
        """Return the work at hand.

        Raises:
            SceneError: There is none yet.
        """
        if self.work is None:
            raise SceneError("no photo yet", hint="drop one in the first step")
        return self.work

    def open(self, name: str) -> None:
        """Take up an earlier work."""
        work = self.find(name)
        now = time.time_ns()  # files' own clock ticks too seldom to tell two of a moment apart
        os.utime(work.folder / "draft", ns=(now, now))  # the latest in use comes first
        self._lay_out(work, read_draft(work.folder / "draft"))

    def begin(self, files: Sequence[Path], name: str | None = None) -> None:
        """Begin a work with photos.

        Raises:
            SceneError: A photo cannot be read; all are looked at.
        """
        read, problems = [], []
        for file in files:
            try:
                read.append(read_photo(file).pixels)
            except SceneError as error:
                problems.append(_without_folder(error, file))
        if problems or not read:
            raise SceneError.collect(problems or [SceneError("no photo")], "these photos")
        work = Work(self.out / self._free_name(name or files[0].stem))
        self._begin(work, Draft(tuple(read), tuple(file.name for file in files)))

    def begin_scene(self, folder: Path, name: str) -> None:
        """Begin a work with a scene's photos and masks."""
        scene = load_scene(folder)
        self._begin(Work(self.out / self._free_name(name)), draft_of(scene))

    def branch(self) -> Work:
        """Go on in a new work with the same photos and things; the one before stays as it is."""
        work = Work(self.out / self._free_name(re.sub(r"-\d+$", "", self.need().name)))
        self._begin(work, self.draft)
        return work

    def change(self, draft: Draft) -> None:
        """Replace the draft, and keep it; `undo` brings the one before back."""
        folder = self.need().folder / "draft"
        write_draft(folder, draft)
        if draft.things != self.draft.things:
            self._history = [*self._history, self.draft][-MOST_STEPS_BACK:]
        self.draft = draft
        self.touch()

    def undo(self) -> None:
        """Bring the draft before the last change back, if there is one."""
        if self._history:
            *history, draft = self._history
            write_draft(self.need().folder / "draft", draft)
            self._history, self.draft = history, draft
            self.touch()

    @property
    def can_undo(self) -> bool:
        """Tell whether there is a step back."""
        return bool(self._history)

    def touch(self) -> None:
        """Let other tabs know that something changed."""
        self.version += 1

    def write_scene(self) -> Work:
        """Write the scene that a training will learn from; return the work."""
        work = self.need()
        save_scene(work.scene, self.draft.scene(work.name))
        return work

    def _begin(self, work: Work, draft: Draft) -> None:
        write_draft(work.folder / "draft", draft)
        self._lay_out(work, draft)

    def _lay_out(self, work: Work, draft: Draft) -> None:
        self.work, self.draft, self._history = work, draft, []
        self.touch()

    def _free_name(self, stem: str) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:MOST_NAME].strip("-")
        plain = plain or "photo"
        names = (plain, *(f"{plain}-{n}" for n in range(2, 100_000)))
        free = (name for name in names if name not in RESERVED_STEMS)
        return next(name for name in free if not (self.out / name).exists())


def _without_folder(error: SceneError, file: Path) -> SceneError:
    """Call a photo by its name alone: where an upload lies for a moment helps nobody."""
    return SceneError(
        error.what, where=file.name, expected=error.expected, got=error.got, hint=error.hint
    )
