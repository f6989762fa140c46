"""The machine's errors as sentences: what failed, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lora_scene.errors import FileError, LoraSceneError, OutOfMemoryError

UNFINISHED = ".lora_scene-"  # how the names of unfinished files begin
_ELSEWHERE = "choose another place"
_FULL = "free some space there, or choose another place"
REASONS = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the quota of this account is used up", _FULL),
    errno.EFBIG: ("larger than a file may become here", _FULL),
    errno.EROFS: ("the disk is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", "change its permissions, or choose another place"),
    errno.EPERM: ("the system does not permit it", _ELSEWHERE),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", _ELSEWHERE),
    errno.EISDIR: ("a folder, where a file was expected", None),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EEXIST: ("something else stands there", _ELSEWHERE),
    errno.ENOTEMPTY: ("the folder is not empty", _ELSEWHERE),
    errno.ELOOP: ("a symbolic link where none is followed", "name what it points to"),
    errno.EMFILE: ("too many files are open", "raise `ulimit -n`"),
    errno.EIO: ("the disk failed", "look at the disk, and try again"),
}
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")  # how safetensors words the system's errors
_LONG_ON_WINDOWS = 248  # characters of a path: from here on a folder is "not found" there
_GROUP = re.compile(rf"{re.escape(UNFINISHED)}[\w-]+\.part[/\\](new[/\\])?")
_MEMORY = (  # how libraries word the host's end: torch, oneDNN, Python's threads, the loader
    "DefaultCPUAllocator", "not enough memory", "could not create a primitive",
    "could not create a memory", "can't start new thread", "failed to map segment",
    "bad_alloc", "Cannot allocate memory", "ThreadPoolBuildError",
)  # fmt: skip
_LEAST_MEMORY = 1 << 26  # bytes; where no more is left, an unknown fault is taken for its want


def as_file_error(error: Exception, where: object = None) -> FileError:
    """Say what an error of the system means; an error of ours stays as it is.

    Args:
        error: An `OSError`, or one of safetensors' that tells of one.
        where: The path, where the error names none or an unfinished one.
    """
    if isinstance(error, FileError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _RUST_NUMBER.search(str(error))):
        number = int(found[1])
    named = getattr(error, "filename", None)
    path = where if named is None or UNFINISHED in str(named) else named
    if number == errno.ENOENT and os.name == "nt":
        is_long = len(os.path.abspath(str(named or where or ""))) >= _LONG_ON_WINDOWS
        number = errno.ENAMETOOLONG if is_long else number
    if path is not None:  # of a file in an unfinished group, say where it was to go
        path = _GROUP.sub("", str(path))
    if number in REASONS:
        what, hint = REASONS[number]
        return FileError(what, where=path, hint=hint)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FileError("the system refused it", where=path, got=reason)


@contextmanager
def told_plainly(where: object = None) -> Iterator[None]:
    """Turn an error of the system into a `FileError` about `where`.

    Raises:
        FileError: The system refused something.
    """
    try:
        yield
    except LoraSceneError:
        raise
    except Exception as error:
        if not tells_of_the_system(error):
            raise
        raise as_file_error(error, where) from error


def tells_of_the_system(error: Exception) -> bool:
    """Tell whether an error is one of the system's, or a library's words for one."""
    return isinstance(error, OSError) or _RUST_NUMBER.search(str(error)) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the memory of a machine or device ran out, here or in what an error came from.

    Libraries wrap it, and then speak of damaged files. Does not import torch.
    """
    link: BaseException | None = error
    seen: list[BaseException] = []  # an error may be the cause of its own cause
    while link is not None and link not in seen and not isinstance(link, OutOfMemoryError):
        if _tells_of_memory(link):
            return True
        seen.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False


def _tells_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, LoraSceneError):
        return False
    is_named = type(error).__name__ == "OutOfMemoryError" and isinstance(error, RuntimeError)
    return is_named or any(words in str(error) for words in _MEMORY)


def _is_exhausted() -> bool:
    try:
        bytearray(_LEAST_MEMORY)
    except MemoryError:
        return True
    return False


def sentence(error: BaseException, *, hint: str | None = None, saves_memory: str = "") -> str:
    """Say in words what stopped the work.

    Args:
        error: What was raised.
        hint: What to do where the fault is this program's own.
        saves_memory: What would take less memory, the largest gain first.
    """
    is_ours = isinstance(error, LoraSceneError)
    # before the words of what it led to, such as a damaged file
    if is_out_of_memory(error) or (not is_ours and _is_exhausted()):
        others = "close other programs, or take a machine with more memory"
        how = f"try in this order: {saves_memory}; {others}" if saves_memory else others
        return str(LoraSceneError("the memory ran out", hint=how))
    if is_ours:
        return str(error)
    if isinstance(error, Exception) and tells_of_the_system(error):
        return str(as_file_error(error))
    return str(
        LoraSceneError(
            "a fault of this program; please report it",
            got=f"{type(error).__name__}: {error}",
            hint=hint,
        )
    )
