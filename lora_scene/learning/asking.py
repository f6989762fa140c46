"""Asking a running training: a file in its folder, which it takes up after its step.

It works from another process, or another machine on the same file system. What is asked for before
the first step waits for it.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from lora_scene.errors import FileError, TrainingError, did_you_mean
from lora_scene.file_groups import remove_ours
from lora_scene.files import write_json
from lora_scene.folder_lock import holder

WISHES = {
    "sample": "draw the sample pictures now",
    "save": "keep a snapshot of the adapter now",
    "stop": "end well now, and keep the adapter as finished",
}
TRAINING = "training"  # what its folder is held for
GLANCE = 0.1  # seconds between two looks at whether it was taken up


def ask(out: Path | str, wish: str, *, wait: float = 0.0) -> bool:
    """Ask the training that runs in a folder for something.

    Args:
        out: Its result folder.
        wish: One of `WISHES`.
        wait: Seconds to wait until it is done.

    Returns:
        Whether it was done meanwhile.

    Raises:
        TrainingError: No training runs there, or it ended before it took the wish up.
        FileError: The folder cannot be written.
    """
    out, path = Path(out), ask_path(Path(out), wish)
    if not is_training(out):
        raise TrainingError(
            "no training runs in this folder",
            where=out,
            hint="ask while `lora-scene train` runs with this --out",
        )
    when = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    write_json(path, {"wish": wish, "asked": when}, root=out)
    until = time.monotonic() + wait
    while path.exists():
        if not is_training(out):
            if not path.exists():
                break
            remove_ours(out, [path])
            raise TrainingError("the training ended before it took the wish up", where=out)
        if time.monotonic() >= until:
            return False
        time.sleep(GLANCE)
    return True


def is_training(out: Path) -> bool:
    """Tell whether a process trains into a folder; it may be held for something else."""
    return holder(out).get("purpose") == TRAINING


def ask_path(out: Path, wish: str) -> Path:
    """Return the file of a wish.

    Raises:
        TrainingError: There is no such wish.
    """
    if wish not in WISHES:
        raise TrainingError(
            "nothing that a training can be asked for",
            got=wish,
            expected=", ".join(WISHES),
            hint=did_you_mean(wish, WISHES),
        )
    return out / f"ask-{wish}.json"


def asked(out: Path) -> set[str]:
    """Return what was asked for; a look costs microseconds."""
    return {wish for wish in WISHES if ask_path(out, wish).exists()}


def answered(out: Path, wishes: set[str]) -> None:
    """Forget wishes, for they are done, or of a run that is over.

    Raises:
        FileError: A file is somebody else's, and would ask again and again.
    """
    paths = [ask_path(out, wish) for wish in sorted(wishes)]
    try:
        remove_ours(out, paths)
    except OSError as error:
        raise FileError("a wish cannot be taken back", where=out, got=error) from error
