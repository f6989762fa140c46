"""What may be written where: plain files of ours, or nothing yet, behind no symbolic link."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path, PurePath

from lora_scene.errors import FileError, LoraSceneError
from lora_scene.faults import told_plainly
from lora_scene.folder_lock import process_record
from lora_scene.ownership import is_ours

PART = re.compile(r"\.lora_scene-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.part")
LONGEST_NAME = 255  # bytes, of every usual file system
IS_WINDOWS = os.name == "nt"
# Windows opens a device under these names, whatever the suffix.
RESERVED_STEMS = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def refuse_foreign(
    path: Path, root: Path, *, inputs: Iterable[Path] = (), force: bool = False
) -> None:
    """Refuse to write a file that is not ours to replace.

    Args:
        path: The file.
        root: The folder below which no link is followed.
        inputs: Files that are read.
        force: Whether files of others may be replaced, but for `inputs`.

    Raises:
        FileError: A link, a device, a folder, an input, or somebody else's file.
    """
    refuse_links(path.parent, root)
    refuse_names(path)
    with told_plainly(path):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no plain file")
    if kind != "a file":
        raise FileError(f"{kind} stands here", where=path, expected="a file, or nothing")
    if any(path.samefile(source) for source in inputs if source.exists()):
        raise FileError("this is what is read", where=path, hint="choose another name")
    if not status.st_mode & stat.S_IWUSR:
        raise FileError("the file is write-protected", where=path, hint="choose another name")
    if not force and not is_ours(path):
        raise FileError(
            "a file that this program did not write, or that was edited since, stands here",
            where=path,
            hint="choose another place, or move it away",
        )


def refuse_links(folder: Path, root: Path) -> None:
    """Refuse a folder that is a link or no folder, or lies behind one below `root`.

    Raises:
        FileError: It is.
    """
    places = [folder, *folder.parents]
    for place in reversed([p for p in places if p != root and p.is_relative_to(root)]):
        if place.is_symlink():
            raise FileError(
                "a symbolic link, which is not followed",
                where=place,
                got=f"it points to {os.readlink(place)}",
                hint="choose another place, or remove the link",
            )
        refuse_no_folder(place)


def refuse_no_folder(folder: Path) -> None:
    """Refuse a place of files that is something else than a folder, or nothing.

    Raises:
        FileError: It is.
    """
    refuse_names(folder)
    with told_plainly(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            raise FileError("not a folder", where=folder, hint="choose another place")
    if folder.parts and folder.parts[0].startswith("~") and not Path(folder.parts[0]).exists():
        what = "no such user's home" if folder.parts[0] != "~" else "a ~ that no shell has replaced"
        raise FileError(what, where=folder, hint="write the path out, or ~ without quotes")


def is_utf8(path: PurePath) -> bool:
    """Tell whether all of a path's names are UTF-8: no library opens weights below another."""
    text = str(path)
    return text == text.encode("utf-8", "replace").decode("utf-8")


def refuse_unread_names(path: PurePath, error: type[LoraSceneError]) -> None:
    """Refuse to read weights below a name that is no UTF-8.

    Raises:
        LoraSceneError: Of the kind `error`: a part of the path is such a name.
    """
    if not is_utf8(path):
        raise error(
            "weights cannot be read below a name that is no UTF-8",
            where=path,
            hint="rename it, or go into that folder and give the path from there",
        )


def refuse_names(path: PurePath) -> None:
    """Refuse weights below a name that is no UTF-8, which their library would not open.

    And on Windows names that it changes in silence or takes for something else: it drops dots and
    blanks at a name's end, so that what was written is not found again; after a colon it writes
    into a stream that no folder shows.

    Raises:
        FileError: A part of the path is such a name.
    """
    if path.suffix == ".safetensors" and not is_utf8(path):
        what, hint = "weights cannot lie under a name that is no UTF-8", "choose another place"
        raise FileError(what, where=path, hint=hint)
    for name in path.relative_to(path.anchor).parts if IS_WINDOWS else ():
        is_device = name.split(".")[0].rstrip().casefold() in RESERVED_STEMS
        is_cut = name != ".." and name.endswith((".", " "))
        if is_device or is_cut or set(name) & set('<>:"|?*'):
            raise FileError(
                "a name that Windows does not hold",
                where=path,
                expected='no dot or blank at the end, none of < > : " | ? *, no device as CON',
                got=repr(name),
            )


def probe(folder: Path) -> None:
    """Make and delete a file where `folder` is, or where it will be made.

    Raises:
        FileError: It cannot be written.
    """
    refuse_no_folder(folder)
    with told_plainly(folder):
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.parts):
            raise OSError(errno.ENAMETOOLONG, "")
        existing = folder
        while not os.path.lexists(existing):
            existing = existing.parent
        if not existing.is_dir():
            raise FileError("not a folder", where=existing, hint="choose another place")
        part = new_part(existing)
        create(part)
        part.unlink()


def new_part(folder: Path) -> Path:
    """Return a name for something unfinished in a folder, which tells whose it is."""
    host, pid, start = process_record()
    return folder / f".lora_scene-{host}-{pid}-{start}-{secrets.token_hex(4)}.part"


def create(path: Path) -> None:
    """Make an empty file where nothing is, not even a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(path, flags, 0o666))


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows flushes no folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
