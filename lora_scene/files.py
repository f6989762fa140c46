"""The one writer: aside, flushed, renamed, and never over what this program did not write.

What is not finished lies in entries named `.lora_scene-<host>-<pid>-<start>-<random>.part`, beside
the target. Those of a process that was killed are taken back by the next one that writes there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_scene.errors import FileError, LoraSceneError
from lora_scene.faults import told_plainly
from lora_scene.file_groups import clean_up
from lora_scene.ownership import seal_json, seal_text
from lora_scene.targets import create, flush, flush_folder, new_part, probe, refuse_foreign
from lora_scene.written import note_written


def check_target(
    folder: Path | str,
    names: Iterable[str] = (),
    *,
    inputs: Iterable[Path] = (),
    force: bool = False,
) -> Path:
    """Find what would stop the writing of files before the work for them is done.

    Debris of killed processes is taken back.

    Args:
        folder: Where the files will go; it need not exist.
        names: The files, relative to it.
        inputs: Files that are read: never replaced, whoever wrote them.
        force: Whether files of others may be replaced, but for `inputs`.

    Returns:
        The folder.

    Raises:
        FileError: All that stands in the way.
    """
    if not str(folder):
        raise FileError("an empty path", expected="a folder", hint="the current folder is `.`")
    folder = Path(folder)
    problems: list[LoraSceneError] = []
    probe(folder)
    clean_up(folder)
    for name in names:
        try:
            refuse_foreign(folder / name, folder, inputs=inputs, force=force)
        except FileError as error:
            problems.append(error)
    if problems:
        raise FileError.collect(problems, f"{folder} cannot be written")
    return folder


def check_file(path: Path | str, *, inputs: Iterable[Path] = (), force: bool = False) -> Path:
    """Do as `check_target` for one file, and return it.

    Raises:
        FileError: What stands in the way.
    """
    if not str(path) or not Path(path).name:
        raise FileError("no file's name", where=path or None, expected="a file")
    path = Path(path)
    check_target(path.parent, [path.name], inputs=inputs, force=force)
    return path


@contextmanager
def writing(path: Path, *, root: Path | None = None, force: bool = False) -> Iterator[Path]:
    """Give an empty file to write to; it becomes `path` when all went well.

    Args:
        path: The file; its folders are made if need be.
        root: The folder below which no link is followed; that of the file if None.
        force: Whether a file of others may be replaced.

    Raises:
        FileError: `path` is not ours to replace, or cannot be written.
    """
    root = root or path.parent
    with told_plainly(path):
        refuse_foreign(path, root, force=force)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = new_part(path.parent)
        create(aside)
        try:
            yield aside
            flush(aside)
            refuse_foreign(path, root, force=force)
            os.replace(aside, path)
            note_written(path)
            flush_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, root: Path | None = None, force: bool = False) -> Path:
    """Write a file whose bytes carry a mark of ours; see `writing`.

    Raises:
        FileError: See `writing`.
    """
    with writing(path, root=root, force=force) as aside:
        aside.write_bytes(data)
    return path


def write_text(path: Path, text: str, *, root: Path | None = None, force: bool = False) -> Path:
    """Write a `.toml`, `.md` or `.html` with the line that tells it is ours and unchanged.

    Bytes of a file's name that are no UTF-8, which texts hold as surrogates, get their codes.

    Raises:
        FileError: See `writing`.
    """
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8")
    data = seal_text(plain, path.suffix.lower()).encode("utf-8")
    return write_bytes(path, data, root=root, force=force)


def write_json(
    path: Path,
    value: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    root: Path | None = None,
    force: bool = False,
) -> Path:
    """Write a `.json` of one object, or a `.jsonl` of several, with the key that tells it is ours.

    Raises:
        FileError: See `writing`.
    """
    if isinstance(value, Mapping):
        data = json_bytes(value)
    else:
        lines = (json.dumps(seal_json(item)) + "\n" for item in value)
        data = "".join(lines).encode("utf-8")
    return write_bytes(path, data, root=root, force=force)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return the `.json` of an object with the key that tells it is ours."""
    text = json.dumps(seal_json(value), indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # which is how JSON escapes a surrogate
