"""One writer a folder at a time.

The lock is the system's own on an open file, so that it ends with its holder however that ends.
The file tells who holds it; where a file system has no locks, that record decides.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import platform
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lora_scene.errors import FileError, LoraSceneWarning
from lora_scene.faults import told_plainly

LOCK = ".lora_scene.lock"
NUMBERS = ".lora_scene.numbers.lock"  # of who only adds files under names that are free
WAIT = 20.0  # seconds that a short writer lets another one end
_SILENCE = 0.5  # seconds of them in which nothing is said
_LOOK = 0.05  # seconds from one try to the next
_FAR = 1 << 30  # bytes: Windows hides locked bytes from readers, so none of the record's is
_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_SAME_START = 60.0  # seconds that a clock may have been set by since a process began

_held: dict[Path, int] = {}  # lock to the thread that holds it


@contextmanager
def locked(
    folder: Path, *, wait: float = 0.0, name: str = LOCK, purpose: str = ""
) -> Iterator[None]:
    """Hold a folder, which is made if need be; within its thread it may be held again.

    Args:
        folder: The folder.
        wait: Seconds that another one's writing may go on before it is an error; soon there is a
            warning.
        name: Of the lock: those of two names do not keep each other out.
        purpose: What it is held for, for `holder`.

    Raises:
        FileError: Another process or thread writes into it, or it cannot be written.
    """
    key = Path(os.path.abspath(folder), name)
    if _held.get(key) == threading.get_ident():
        yield
        return
    with told_plainly(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder / name, wait, purpose)
    _held[key] = threading.get_ident()
    try:
        yield
    finally:
        del _held[key]
        _release(key, handle)
        if is_new:
            with suppress(OSError):  # what was written there stays
                folder.rmdir()


def holder(folder: Path) -> dict[str, Any]:
    """Return who holds a folder, and why: host, name, pid, start, since, purpose; empty if none."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return {}
    try:
        record = _record(handle)
    finally:
        os.close(handle)
    return record if _is_held(record) else {}


def process_record() -> tuple[str, int, int]:
    """Return host (a hash of its name), process id and start, seconds since the epoch."""
    import psutil

    host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return host, os.getpid(), int(psutil.Process().create_time())


def is_running(host: str, pid: int, start: float) -> bool:
    """Tell whether a process may still run; of another host nobody can say that it does not."""
    import psutil

    if host != process_record()[0]:
        return True
    try:
        return bool(abs(psutil.Process(pid).create_time() - start) <= _SAME_START)
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True


def _acquire(path: Path, wait: float, purpose: str) -> int:
    begun, is_told = time.monotonic(), False
    while True:
        try:
            return _try(path, purpose)
        except FileError as error:
            waited = time.monotonic() - begun
            if waited > wait:
                raise
            if waited > _SILENCE and not is_told:
                who = f"{path.parent}: {error.got or 'another process'} writes into this folder"
                text = f"{who}; waiting up to {wait:g} s for it to end"
                warnings.warn(text, LoraSceneWarning, stacklevel=4)
                is_told = True
        time.sleep(_LOOK)


def _try(path: Path, purpose: str) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        handle = os.open(path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FileError("no plain file", where=path, hint="move it away")
            is_free = _lock(handle, path) or not _is_held(_record(handle))
            if not is_free:
                raise _held_error(path.parent, _record(handle))
            if _is_same(handle, path):  # or its last holder deleted it meanwhile
                _write_record(handle, purpose)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> bool:
    """Take the system's lock; False where there are none, and the record has to decide."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise _held_error(path.parent, _record(handle)) from error
        return False
    return True


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _record(handle: int) -> dict[str, Any]:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        record = json.loads(os.read(handle, 4096))
        known = {name: record[name] for name in ("host", "name", "pid", "start", "since")}
        return {**known, "purpose": record.get("purpose", "")}
    except (ValueError, KeyError, TypeError, OSError):
        return {}


def _is_held(record: dict[str, Any]) -> bool:
    return bool(record) and is_running(record["host"], record["pid"], record["start"])


def _write_record(handle: int, purpose: str) -> None:
    host, pid, start = process_record()
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    record = {"host": host, "name": platform.node(), "pid": pid, "start": start, "since": since}
    record["purpose"] = purpose
    os.lseek(handle, 0, os.SEEK_SET)
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(record).encode())


def _release(path: Path, handle: int) -> None:
    is_windows = sys.platform == "win32"  # which deletes no open file
    with suppress(OSError):  # the folder went meanwhile; the lock ends with the handle all the same
        if not is_windows and _is_same(handle, path):
            path.unlink()
    os.close(handle)
    if is_windows:
        with suppress(OSError):
            path.unlink()


def _held_error(folder: Path, record: dict[str, Any]) -> FileError:
    who = "process {pid} on {name}, since {since}".format(**record) if record else None
    return FileError(
        "another process writes into this folder",
        where=folder,
        got=who,
        hint="wait for it, or choose another folder",
    )
