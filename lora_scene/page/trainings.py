"""Trainings in processes of their own, one at a time; who waits is in the folders, not in memory.

A work's `order.json` says what was asked for; once it runs, also which process it is. So the page
finds everything again after a reload, a crash or a restart; the trainings do not even notice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from lora_scene.documents import parse_json, read_text
from lora_scene.errors import LoraSceneError, TrainingError
from lora_scene.faults import sentence
from lora_scene.files import write_json
from lora_scene.folder_lock import is_running, process_record
from lora_scene.forms import build
from lora_scene.page.desk import Work
from lora_scene.recipe import Recipe, load_recipe, quoted

ORDER, LOG = "order.json", "training.log"
GLANCE = 0.25  # seconds between two looks at who runs
NOBODY = -1  # the process of a training that could not be started


@dataclass(frozen=True)
class Order:
    """What a training was asked for, and its process once it runs.

    Attributes:
        recipe: A recipe's name or file.
        base: The base model, as `--base` takes it.
        settings: What `--set` takes.
        asked: When, seconds since the epoch; the queue's order.
        steps: Steps of both phases.
        pid: Of the process; 0 while it waits, `NOBODY` where none could be started.
        started: When that began.
        code: The process's exit code; None while it runs, or where nobody saw it end.
    """

    recipe: str
    base: str
    settings: tuple[str, ...] = ()
    asked: float = 0.0
    steps: tuple[int, ...] = ()
    pid: int = 0
    started: float = 0.0
    code: int | None = None

    @property
    def waits(self) -> bool:
        """Tell whether it has not begun."""
        return self.pid == 0

    @property
    def runs(self) -> bool:
        """Tell whether its process is there."""
        return (
            self.pid > 0
            and self.code is None
            and is_running(process_record()[0], self.pid, self.started)
        )

    def command(self, work: Work) -> list[str]:
        """Return the command line that trains it."""
        words = ["train", str(work.scene), "--out", str(work.adapter), "--recipe", self.recipe]
        words += ["--base", self.base] if self.base else []
        words += [word for setting in self.settings for word in ("--set", setting)]
        return [sys.executable, "-m", "lora_scene", *words]


class Trainings:
    """Starts what waits, one after the other.

    Args:
        works: Gives all works.
        changed: Called when something began or ended.

    Attributes:
        fault: What keeps the next from beginning, such as a full disk; empty for nothing.
    """

    def __init__(self, works: Callable[[], Sequence[Work]], changed: Callable[[], None]) -> None:
        self._works = works
        self._changed = changed
        self.fault = ""
        self._lock = threading.RLock()
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._stopping: set[tuple[int, float]] = set()  # processes that were asked to stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Start no more trainings; one that runs goes on."""
        self._ended.set()
        self._thread.join()

    def ask(self, work: Work, recipe: str, base: str, settings: Sequence[str]) -> None:
        """Let a work be trained as soon as no other is; an interrupted run goes on.

        Raises:
            RecipeError: All that is wrong with the settings.
            TrainingError: It is being trained, or waits.
        """
        with self._lock:
            old = order_of(work)
            if old is not None and (old.waits or old.runs):
                raise TrainingError("this work is in the queue already", where=work.name)
            steps = tuple(phase.steps for phase in asked_recipe(recipe, base, settings).phases)
            _write(work, Order(recipe, base, tuple(settings), time.time(), steps))
        self._changed()

    def pause(self, work: Work) -> None:
        """Ask a training to stop between two steps, or take it out of the queue."""
        with self._lock:
            order = order_of(work)
            if order is None:
                return
            if order.waits:
                (work.folder / ORDER).unlink()
            elif order.runs and (order.pid, order.started) not in self._stopping:
                self._stopping.add((order.pid, order.started))  # a second signal ends it at once
                if os.name == "nt":
                    _break(order.pid)
                else:
                    os.kill(order.pid, signal.SIGTERM)  # a shell's `&` lets SIGINT be ignored
        self._changed()

    def place(self, work: Work) -> int:
        """Return how many trainings come before a work that waits."""
        mine = order_of(work)
        orders = [order for _, order in self._orders()]
        return sum(
            order.runs or (order.waits and mine is not None and order.asked < mine.asked)
            for order in orders
        )

    def _orders(self) -> list[tuple[Work, Order]]:
        """Return all that was asked for; where it cannot be read, its own work tells."""
        found = []
        for work in self._works():
            with contextlib.suppress(LoraSceneError, OSError):
                order = order_of(work)
                found += [(work, order)] if order is not None else []
        return found

    def _watch(self) -> None:
        while not self._ended.wait(GLANCE):
            fault = ""
            with self._lock:
                try:
                    self._reap()
                    self._begin_next()
                except (LoraSceneError, OSError) as error:  # tried again
                    fault = sentence(error)
            if fault != self.fault:
                self.fault = fault
                self._changed()

    def _begin_next(self) -> None:
        orders = self._orders()
        waiting = sorted((o.asked, w.name) for w, o in orders if o.waits)
        if not waiting or any(order.runs for _, order in orders):
            return
        work, order = next(pair for pair in orders if pair[0].name == waiting[0][1])
        _write(work, order)  # where that fails, who runs could not be noted: it would begin again
        try:
            self._start(work, order)
        except OSError as error:
            _fail(work, order, error)
            self._changed()

    def _start(self, work: Work, order: Order) -> None:
        options: dict[str, Any] = (
            {"creationflags": 0x200} if os.name == "nt" else {"start_new_session": True}
        )
        own = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "1000"}
        n_threads = (psutil.cpu_count(logical=False) or 2) - 1  # a core is the page's and browser's
        with (work.folder / LOG).open("wb") as log:
            child = subprocess.Popen(
                order.command(work),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": str(max(n_threads, 1)), **os.environ, **own},
                **options,
            )
        self._children[work.folder] = child
        _write(work, replace(order, pid=child.pid, started=psutil.Process(child.pid).create_time()))
        self._changed()

    def _reap(self) -> None:
        """Take note of processes that ended."""
        for folder, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[folder]
                work = Work(folder)
                order = order_of(work)
                if order is not None:
                    _write(work, replace(order, code=code))
                self._changed()


def _fail(work: Work, order: Order, error: OSError) -> None:
    """Note that a training could not be started, and why, as its own process would."""
    (work.folder / LOG).write_text(f"error: {sentence(error)}\n", encoding="utf-8")
    _write(work, replace(order, pid=NOBODY, code=1))


def _break(pid: int) -> None:
    """Ask a process to stop as Ctrl-Break would; where no console joins it to us, end it."""
    try:
        os.kill(pid, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
    except OSError:
        psutil.Process(pid).terminate()


def asked_recipe(recipe: str, base: str, settings: Sequence[str]) -> Recipe:
    """Return what a training follows.

    Raises:
        RecipeError: All that is wrong with the settings.
    """
    return load_recipe(recipe, [*settings, *([f"base.model={quoted(base)}"] if base else [])])


def order_of(work: Work) -> Order | None:
    """Return what a work's training was asked for, if it was."""
    path = work.folder / ORDER
    if not path.is_file():
        return None
    problems: list[LoraSceneError] = []
    table, place = parse_json(read_text(path, TrainingError), path, TrainingError), f"{path}: "
    order = build(Order, table, problems, error=TrainingError, where=place, ignores_unknown=True)
    if problems:
        raise TrainingError.collect(problems, f"{path} is damaged")
    return order


def _write(work: Work, order: Order) -> None:
    write_json(work.folder / ORDER, asdict(order))
