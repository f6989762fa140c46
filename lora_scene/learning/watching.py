"""A run watched: wishes answered, snapshots kept, held draws looked at, its page rewritten.

Nothing here touches what is trained or drawn: a watched run ends bit for bit as an unwatched one.
What is kept is decided by steps alone, and made anew where a resumed run finds it missing, so that
a run that was killed keeps the same; only the page, which costs time, comes when there is some.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import save_adapter
from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.learning.asking import answered, asked
from lora_scene.learning.attention_pictures import MASKS, save_maps, save_masks
from lora_scene.learning.devices import peak_bytes
from lora_scene.learning.events import Looked, Notice, Saved
from lora_scene.learning.held import is_cut_held, look
from lora_scene.learning.outcome import installed_versions
from lora_scene.learning.patience import has_no_news
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.runs import ASKED, HELD, PATIENCE, SNAPSHOTS
from lora_scene.learning.step import refuse_not_finite
from lora_scene.recipe import Recipe

if TYPE_CHECKING:
    from lora_scene.learning.job import Job
    from lora_scene.learning.phases import Trainer

LOOKS_IN_PATIENCE = 4  # looks that must all show no gain
PAGE_SHARE = 0.005  # of a run's time may go into rewriting its page
PAGE_SECONDS = 5.0  # between two rewritings, at least


class Watcher:
    """What a run does beside its steps.

    Args:
        job: The run.
        deliver: Returns the adapter as it would be saved now.
    """

    def __init__(self, job: Job, deliver: Callable[[Trainer], Adapter]) -> None:
        self._job = job
        self._run = job.recipe.run
        self._deliver = deliver
        self._log = RunLines(job.out / HELD)
        self._can_look = bool(self._run.watch)
        self._began = self._written = time.monotonic()
        self._spent = self._last = 0.0  # seconds, on the page: altogether, the last time

    def begin(self, trainer: Trainer, number: int, step: int) -> str:
        """Make up for what a killed run left out; return why it ends at once, or nothing."""
        self._log.cut(number, step)
        held = trainer.materials.held
        if self._can_look and is_cut_held(trainer.table, held, self._job.recipe):
            self._can_look = False
            text = "held draws name all things, and the text encoder would cut that prompt: "
            self._job.tell(Notice(f"{text}nothing is looked at on the way"))
        if self._can_look and not (self._job.out / MASKS).exists():
            save_masks(self._job.scene, self._job.out)
        if step or number == 1 or not self._job.recipe.phase1.steps:
            self._keep(trainer, number, step, wishes=set())
        self._rewrite(is_first=not self._spent)
        return self._end(number, step, wishes=set())

    def after(self, trainer: Trainer, number: int, step: int) -> str:
        """Do what is due after a step; return why the run ends here, or nothing."""
        wishes = asked(self._job.out)
        if self._job.interruption.takes_wish():
            wishes |= {"sample", "save"}
        has_news = self._keep(trainer, number, step, wishes)
        reason = self._end(number, step, wishes)
        if wishes:
            answered(self._job.out, wishes)
        self._rewrite(has_news=has_news)
        return reason

    def _keep(self, trainer: Trainer, number: int, step: int, wishes: set[str]) -> bool:
        """Keep a snapshot, sample pictures and a look where they are due; tell whether any was."""
        n_steps = self._job.recipe.phases[number - 1].steps
        stops = evenly(n_steps, self._run.snapshots) if number == 2 else set()
        if "save" in wishes and self._job.recipe.is_full:
            self._job.tell(Notice("no snapshot: it would be a whole model; the last one is kept"))
            wishes = wishes - {"save"}
        is_kept = step in stops or "save" in wishes or ("stop" in wishes and self._run.snapshots)
        if is_kept and step:
            folder = self._job.out / SNAPSHOTS / f"phase{number}-{step:05}"
            refuse_not_finite(trainer.parameters(), number, step)
            save_adapter(self._deliver(trainer), folder)
            self._job.tell(Saved("snapshot", folder))
        if "sample" in wishes or ("stop" in wishes and self._run.sample_every):
            self._sample(trainer, number, step, is_last="stop" in wishes)
        is_due = step in looks_of(self._job.recipe, number) or bool(wishes)
        return self._look(trainer, number, step) if is_due else bool(is_kept)

    def _sample(self, trainer: Trainer, number: int, step: int, *, is_last: bool) -> None:
        """Draw sample pictures out of their turn; a prompt that would be cut is told instead."""
        try:
            trainer.sample(number, step, is_asked=True, is_last=is_last)
        except SceneError as error:
            self._job.tell(Notice(f"no sample pictures: {error}"))

    def _look(self, trainer: Trainer, number: int, step: int) -> bool:
        photos = trainer.materials.held
        is_done = any((line["phase"], line["step"]) == (number, step) for line in self._log.lines())
        if not self._can_look or is_done or not photos:
            return False
        with trainer.as_delivered():
            seen = look(trainer.backbone, trainer.table, photos, self._job.recipe)
        done = sum(trainer.steps_done)
        looked_at = [one for one in self._job.scene.photos if one.source == photos[0].source]
        save_maps(seen.maps, replace(self._job.scene, photos=tuple(looked_at)), self._job.out, done)
        line = {"phase": number, "step": step, "loss": seen.loss, "ious": dict(seen.ious)}
        self._log.append(line)
        peak = peak_bytes(trainer.backbone.device)
        self._job.tell(Looked(number, step, seen.loss, seen.ious, peak))
        return True

    def _end(self, number: int, step: int, wishes: set[str]) -> str:
        """Return why a run ends here, before its last step, and say so; nothing if it does not."""
        recipe = self._job.recipe
        if recipe.is_over(number, step):
            return ""
        reason, why, more = "", "", ""
        if "stop" in wishes:
            reason, why = ASKED, "as asked"
        elif number == 2 and has_no_news(self._log.lines(), recipe):
            reason, why = PATIENCE, "for nothing moved any more"
            more = "; run.patience=0 goes on with it"
        if reason:
            where = f"step {step} of {recipe.phases[number - 1].steps} of phase {number}"
            self._job.tell(Notice(f"ended after {where}, {why}; the adapter is kept{more}"))
        return reason

    def _rewrite(self, *, is_first: bool = False, has_news: bool = False) -> None:
        """Rewrite the page, if it costs no more than its share of the run's time."""
        now = time.monotonic()
        is_time = has_news or now - self._written >= PAGE_SECONDS
        is_cheap = self._spent + self._last <= PAGE_SHARE * (now - self._began)
        if not self._run.watch or not (is_first or (is_time and is_cheap)):
            return
        try:
            write_run_page(self._job.out)
        except LoraSceneError as error:  # a page is not worth a run
            self._job.tell(Notice(f"the run's page is not written: {error}"))
        self._written = time.monotonic()
        self._last = self._written - now
        self._spent += self._last


@contextlib.contextmanager
def page_at_the_end(job: Job) -> Iterator[None]:
    """Rewrite the page once more, however a run ends."""
    try:
        yield
    except BaseException:
        if job.recipe.run.watch:
            with contextlib.suppress(LoraSceneError):  # what ended the run is what is to be told
                write_run_page(job.out)
        raise


def began(job: Job, backbone: Backbone) -> dict[str, Any]:
    """Return what a run is, for its log: written before the first step."""
    return {
        "scene": str(job.scene.source),
        "handles": list(job.scene.handles),
        "nouns": list(job.scene.nouns),
        "base": backbone.name,
        "base_hash": job.base_hash,
        "resolution": backbone.resolution,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": job.device,
        **({"begun": job.begun.told} if job.begun else {}),
        "steps": [phase.steps for phase in job.recipe.phases],
        "versions": installed_versions(),
    }


def looks_of(recipe: Recipe, number: int) -> set[int]:
    """Return the steps of a phase after which held draws are looked at."""
    run, n_steps = recipe.run, recipe.phases[number - 1].steps
    stops = evenly(n_steps, run.watch)
    if number == 2 and run.patience:
        stops |= set(range(0, n_steps + 1, max(1, run.patience // LOOKS_IN_PATIENCE)))
    is_first = number == 1 or not recipe.phase1.steps  # else the phase before ended with a look
    return stops | {0} if is_first else stops - {0}


def evenly(n_steps: int, n: int) -> set[int]:
    """Return `n` steps at equal distances, the last step among them; fewer for a short phase."""
    return {round((i + 1) * n_steps / n) for i in range(n)} - {0}
