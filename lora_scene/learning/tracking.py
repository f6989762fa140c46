"""Trackers, through accelerate: a run's numbers and pictures in TensorBoard, W&B, MLflow...

A tracker listens as everybody does. So it changes nothing of a run, and without one nothing is
imported. None of these libraries comes with this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_scene.errors import InterruptedRunError, TrainingError, did_you_mean
from lora_scene.extras import optional
from lora_scene.learning.events import (
    Event,
    Listener,
    Looked,
    Notice,
    PhaseEnded,
    PhaseStarted,
    Saved,
    StepDone,
)
from lora_scene.recipe import Recipe

TRACKERS = (
    "tensorboard", "wandb", "mlflow", "aim", "clearml", "comet_ml", "dvclive", "swanlab", "trackio",
)  # fmt: skip
PROJECT = "lora_scene"
OPTION = "--log-with"


@contextlib.contextmanager
def tracked(
    names: Sequence[Any], listener: Listener, *, out: Path, recipe: Recipe
) -> Iterator[Listener]:
    """Give a listener that passes everything on, and tells trackers too.

    Args:
        names: Of `TRACKERS`, or accelerate's `GeneralTracker`s.
        listener: Told every event.
        out: The run's folder, from which pictures are read; TensorBoard writes below it.
        recipe: Every setting.

    Raises:
        TrainingError: No such tracker, or its library is not installed.
    """
    for name in names:
        if isinstance(name, str) and name not in TRACKERS:
            expected, hint = ", ".join(TRACKERS), did_you_mean(name, TRACKERS)
            raise TrainingError("no such tracker", where=OPTION, expected=expected, hint=hint)
        if isinstance(name, str):
            optional(name, error=TrainingError, where=f"{OPTION} {name}")
    if not names:
        yield listener
        return
    tracking = _Tracking(dict.fromkeys(names), listener, out, recipe)
    try:
        yield tracking
    finally:
        tracking.finish()


class _Tracking:
    """Passes events on, and tells trackers; one that fails is told of once and left out."""

    def __init__(
        self, wanted: Mapping[Any, None], listener: Listener, out: Path, recipe: Recipe
    ) -> None:
        self._wanted = tuple(wanted)
        self._listener = listener
        self._out = out
        self._recipe = recipe
        self._trackers: list[Any] | None = None
        self._done = 0  # steps over both phases

    def __call__(self, event: Event) -> None:
        """Pass an event on, then tell the trackers."""
        self._listener(event)
        match event:
            case PhaseStarted():
                self._done = self._place(event.phase, event.first_step)
                if self._trackers is None:
                    self._trackers = [self._begin(one) for one in self._wanted]
            case StepDone():
                self._done = self._place(event.phase, event.step)
                self._log(
                    {
                        **{f"loss/{name}": value for name, value in event.losses.items()},
                        **{f"rate/{name}": rate for name, rate in event.rates.items()},
                        "gradient norm": event.norm,
                        "seconds": event.seconds,
                    }
                )
            case Looked():
                fits = {f"held/iou/{h.strip('<>')}": iou for h, iou in event.ious.items()}
                self._log({"held/loss": event.loss, **fits, "memory/GB": event.peak_bytes / 1e9})
                self._show(_maps(self._out, self._done, tuple(event.ious)))
            case Saved("samples"):
                self._show(_samples(self._out, self._done))
            case PhaseEnded():
                self._log({"memory/GB": event.peak_bytes / 1e9})
            case _:
                pass

    def _place(self, phase: int, step: int) -> int:
        return step + (self._recipe.phase1.steps if phase == 2 else 0)

    def _begin(self, wanted: Any) -> Any:
        """Start a tracker where the run starts or goes on."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[wanted] if isinstance(wanted, str) else None
        options: dict[str, Any] = {}
        if kind is not None and kind.requires_logging_directory:
            options["logging_dir"] = str(self._out)
        if wanted == "tensorboard":  # steps that a killed run made after its checkpoint go
            options["purge_step"] = self._done + 1
        try:
            name = wanted if wanted == "tensorboard" else PROJECT
            tracker = wanted if kind is None else kind(name, **options)
            tracker.start()
            tracker.store_init_configuration(_settings(self._recipe))
        except Exception as error:  # libraries and servers fail in ways of their own
            raise TrainingError(
                "the tracker cannot begin", where=f"{OPTION} {wanted}", got=error
            ) from error
        return tracker

    def _log(self, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(dict(values), step=self._done))

    def _show(self, pictures: Mapping[str, Any]) -> None:
        """Show (H, W, 3) uint8 pictures by name."""
        if pictures:
            self._each(lambda tracker: _show(tracker, pictures, self._done))

    def _each(self, act: Any) -> None:
        for tracker in list(self._trackers or ()):
            try:
                act(tracker)
            except InterruptedRunError:
                raise
            except Exception as error:  # a tracker is not worth a run
                assert self._trackers is not None
                self._trackers.remove(tracker)
                text = f"{tracker.name} fails, and is told no more: {error}"
                self._listener(Notice(text))

    def finish(self) -> None:
        """Let every tracker write what it still holds."""
        self._each(lambda tracker: tracker.finish())


def _show(tracker: Any, pictures: Mapping[str, Any], step: int) -> None:
    """Show pictures the way in which each library takes them; some take none."""
    if tracker.name == "tensorboard":
        whole = {name: picture[None] for name, picture in pictures.items()}
        tracker.log_images(whole, step=step, dataformats="NHWC")
    elif tracker.name == "mlflow":
        mlflow = optional("mlflow", error=TrainingError, where=f"{OPTION} mlflow")
        for name, picture in pictures.items():
            mlflow.log_image(picture, key=name.replace("/", " "), step=step)
    elif tracker.name in ("aim", "clearml"):
        tracker.log_images(dict(pictures), step=step)
    elif hasattr(tracker, "log_images"):
        tracker.log_images({name: [picture] for name, picture in pictures.items()}, step=step)


def _maps(out: Path, step: int, handles: Sequence[str]) -> dict[str, Any]:
    from lora_scene.learning.run_record import read_run

    run = read_run(out)
    names = run.handles or handles
    paths = run.maps.get(step, {})
    return {f"attention/{names[k].strip('<>')}": _read(path) for k, path in paths.items()}


def _samples(out: Path, step: int) -> dict[str, Any]:
    from lora_scene.adapters.gallery import stops_of

    return {f"samples/{n}": _read(path) for n, path in stops_of(out).get(step, {}).items()}


def _read(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return every setting by `section.key`, as trackers take it, without this machine's paths."""
    import tomllib

    from lora_scene.learning.outcome import public
    from lora_scene.recipe import dump_recipe, flat_settings

    settings = flat_settings(tomllib.loads(dump_recipe(public(recipe))))
    plain = bool | int | float | str
    return {key: one if isinstance(one, plain) else str(one) for key, one in settings.items()}
