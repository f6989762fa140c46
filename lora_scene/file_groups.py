"""Files that change into a folder together: all of them, or none, whenever the process ends."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from lora_scene.errors import LoraSceneError
from lora_scene.faults import told_plainly
from lora_scene.folder_lock import WAIT, is_running, locked, process_record
from lora_scene.ownership import is_ours
from lora_scene.targets import (
    PART,
    flush,
    flush_folder,
    new_part,
    refuse_foreign,
    refuse_no_folder,
)
from lora_scene.written import note_written

_JOURNAL = "journal.json"  # in a group's folder, while its files change places
_NEW, _OLD = "new", "old"
_OLD_AGE = 86_400.0  # seconds after which what another host left unfinished is debris,
_OLD_EXCHANGE = 60.0  # and where files were changing places, which takes no time


@contextmanager
def written_together(
    folder: Path, *, obsolete: Iterable[str] = (), force: bool = False
) -> Iterator[Path]:
    """Give an empty folder; the files written there change into `folder` all together, or none.

    The folder is held meanwhile: of two writers the second waits, a while.

    Args:
        folder: Where they go; made if need be. What else is in it stays.
        obsolete: Files in `folder` that go when the new ones come; only ours do.
        force: Whether files of others may be replaced.

    Raises:
        FileError: A file is not ours to replace, or the folder cannot be written.
    """
    with told_plainly(folder):
        refuse_no_folder(folder)
    with locked(folder, wait=WAIT), told_plainly(folder):
        part = new_part(folder)
        (part / _NEW).mkdir(parents=True)
        try:
            yield part / _NEW
            _exchange(part, folder, obsolete, force)
        except BaseException:
            if not (part / _JOURNAL).exists():
                shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder in `folder`, which goes in the end; a killed process's goes later.

    Raises:
        FileError: It cannot be made.
    """
    part = new_part(folder)
    with told_plainly(folder):
        part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_ours(folder: Path, names: Iterable[Path]) -> None:
    """Delete files of ours, and the folders at and below `folder` that this leaves empty.

    Raises:
        FileError: The system refused it.
    """
    with told_plainly(folder):
        for path in names:
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if not parent.is_relative_to(folder):
                    break
                _remove_if_empty(parent)


def clean_up(folder: Path) -> None:
    """Take back what killed processes left unfinished in a folder and the folders in it."""
    with suppress(OSError):  # no such folder, or one that may not be read: the writing will tell
        inner = [Path(e) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
        for place in [folder, *(path for path in inner if not PART.fullmatch(path.name))]:
            for path in [Path(entry) for entry in os.scandir(place)]:
                found = PART.fullmatch(path.name)
                if found is None or not _is_debris(path, found[1], int(found[2]), int(found[3])):
                    continue
                expected = (LoraSceneError, OSError, ValueError, KeyError, TypeError)
                with suppress(*expected), locked(place):  # who writes a group holds its folder
                    _take_back(path, place)


def _is_debris(path: Path, host: str, pid: int, start: int) -> bool:
    """Tell whether nobody will finish an entry; of another host, such as a container's, by age."""
    if host == process_record()[0]:
        return not is_running(host, pid, start)
    age = time.time() - path.lstat().st_mtime
    return age > (_OLD_EXCHANGE if (path / _JOURNAL).is_file() else _OLD_AGE)


def _exchange(part: Path, folder: Path, obsolete: Iterable[str], force: bool) -> None:
    """Let new files and old ones change places; on an error all old ones are put back."""
    new = [path for path in sorted((part / _NEW).rglob("*")) if path.is_file()]
    names = [path.relative_to(part / _NEW).as_posix() for path in new]
    gone = [name for name in obsolete if name not in names and is_ours(folder / name)]
    for name in [*names, *gone]:
        refuse_foreign(folder / name, folder, force=force)
    for path in new:
        flush(path)
    draft = part / "draft"
    draft.write_text(json.dumps({"names": names, "gone": gone}), "utf-8")
    flush(draft)
    draft.rename(part / _JOURNAL)
    try:
        for name in [*names, *gone]:
            target = folder / name
            if target.exists():
                (part / _OLD / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(target, part / _OLD / name)
            if name in names:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part / _NEW / name, target)
    except BaseException:
        _take_back(part, folder)
        raise
    (part / _JOURNAL).unlink()
    for name in names:
        note_written(folder / name)
    for place in {(folder / name).parent for name in names}:
        flush_folder(place)


def _take_back(part: Path, folder: Path) -> None:
    """Delete an unfinished entry; a group that was changing places gives back the old files."""
    if part.is_symlink() or not part.is_dir():
        part.unlink(missing_ok=True)
        return
    journal = part / _JOURNAL
    if journal.is_file():
        noted = json.loads(journal.read_text("utf-8"))
        for name in [*noted["names"], *noted["gone"]]:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                continue
            refuse_foreign(folder / name, folder, force=True)
            if (part / _OLD / name).is_file():
                os.replace(part / _OLD / name, folder / name)
            elif name in noted["names"] and not (part / _NEW / name).exists():
                (folder / name).unlink(missing_ok=True)
        journal.unlink()
    shutil.rmtree(part)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # something is in it, and stays
        folder.rmdir()
