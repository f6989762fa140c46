"""Step 3: a recipe, a queue, and what the training says of itself."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lora_scene.backbones.prompt_room import report_on_prompts
from lora_scene.backbones.training_size import usual_canvas
from lora_scene.errors import SceneError
from lora_scene.faults import sentence
from lora_scene.learning.asking import WISHES, ask, is_training
from lora_scene.learning.run_charts import draw_losses
from lora_scene.learning.run_record import read_run
from lora_scene.learning.runs import CHECKPOINT, SNAPSHOTS, SUMMARY
from lora_scene.page import look
from lora_scene.page.asked import counted, every_of, memory_told, overrides, table_of
from lora_scene.page.course import Progress, first_and_last_samples, latest_maps, progress_of
from lora_scene.page.desk import Work
from lora_scene.page.stage import Stage, Updates, remark
from lora_scene.page.trainings import Trainings, asked_recipe, order_of
from lora_scene.recipe import Recipe, load_recipe, recipe_names
from lora_scene.scenes.masks import report_on
from lora_scene.size import Size

PICTURES = 3  # the step that follows
ALONE: dict[str, Any] = {  # long work, one at a time: libraries do not stand two first imports
    "show_progress": "minimal", "concurrency_limit": 1, "concurrency_id": "long",
}  # fmt: skip
NOTE = "(...asked) => { window.weighed = JSON.stringify(asked); return asked; }"
IF_SAME = "(told, ...asked) => JSON.stringify(asked) === window.weighed ? told : ''"
HEADS = ["setting", "value"]
MOST_DRAWN = 50  # times that curves are drawn while a training goes on


class TrainStep:
    """Asks for trainings, and shows the one of the work at hand."""

    def __init__(
        self, stage: Stage, trainings: Trainings, settings: Recipe, base: str | None
    ) -> None:
        self._desk, self._stage, self._trainings = stage.desk, stage, trainings
        self._plotted: tuple[str, str] = ("", "")
        self._weighed: Any = None  # what was learnt when the memory was estimated last
        with gr.Row(equal_height=False):
            self._ask(settings, base)
            self._show()

    @property
    def _asked(self) -> list[Any]:
        return [self.recipe, self.base, self.steps1, self.steps2, self.every, self.seed,
                self.settings]  # fmt: skip

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.estimate, self.status, *self.wishes, self.pause, self.resume, self.start,
                self.plot, self.maps, self.samples, self.go]  # fmt: skip

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on = self._stage.on
        on(self.start.click, self._start, self._asked)
        on(self.resume.click, self._resume)
        on(self.pause.click, self._pause)
        for wish, button in zip(("sample", "stop"), self.wishes, strict=True):
            on(button.click, functools.partial(self._wish, wish))
        self.go.click(lambda: gr.update(selected=PICTURES), outputs=self._stage.walk)

    def wire_to(self, tab: Any) -> None:
        """Estimate the memory as the step is seen; what is changed afterwards wipes that out."""
        asked, told = self._asked, [self.estimate]
        picked = self.recipe.change(None, [self.recipe], asked[1:], js=self._picked())
        weighing = [
            picked.then(self._weigh, asked, told, js=NOTE, **ALONE),
            self.weigh.click(self._weigh, asked, told, js=NOTE, **ALONE),
            tab.select(self._weigh, asked, told, js=NOTE, **ALONE),
        ]
        fields = (self.steps1, self.steps2, self.every, self.settings)
        changes = (self.base.change, *(field.input for field in fields))
        for changed in changes:  # a text's `input` is of keys alone, and leaves out what is pasted
            changed(None, None, told, js="() => ''")
        for weighed in weighing:  # Gradio's `cancels` would let its thread go on beside the next
            weighed.then(None, [*told, *asked], told, js=IF_SAME)

    def shown(self) -> Updates:
        """Return what the step shows."""
        work = self._desk.work
        state = progress_of(work) if work else Progress("none")
        place = self._trainings.place(work) if work else 0
        busy = state.state in ("waiting", "running")
        rows = first_and_last_samples(work) if work else {}
        maps = latest_maps(work) if work else []
        hears = work is not None and state.state == "running" and is_training(work.adapter)
        stale = {self.estimate: ""} if self._weighed != self._learnt else {}
        return {
            **stale,
            **dict.fromkeys(self.wishes, gr.update(visible=hears)),
            self.status: _status(state, place, self._trainings.fault),
            self.start: gr.update(interactive=work is not None and not busy),
            self.pause: gr.update(visible=busy),
            self.resume: gr.update(visible=state.state in ("paused", "failed")),
            self.plot: self._plot(work, state) if work else "",
            self.maps: look.pictures("Where the model looks for each handle", {"": maps}),
            self.samples: look.pictures("Sample pictures", rows),
            self.go: gr.update(interactive=state.state == "finished"),
        }

    def signature(self) -> tuple[Any, ...]:
        """Return what changes when there is something new to show."""
        work = self._desk.work
        if work is None:
            return ()
        state = progress_of(work)
        n_pictures = sum(1 for _ in work.adapter.glob("[ms]a*/*"))  # maps and samples
        return (
            work.name,
            state.state,
            state.phase,
            state.step,
            n_pictures,
            is_training(work.adapter),
        )

    def _plot(self, work: Work, state: Progress) -> str:
        """Return the losses' curves; a training has them drawn `MOST_DRAWN` times at most."""
        told = (work.name, state.state, state.phase, int(state.done * MOST_DRAWN))
        key = repr(told) if state.losses else ""
        if self._plotted[0] != key:
            chart = draw_losses(read_run(work.adapter)) if key else None
            self._plotted = (key, look.curve_figure(chart.title, chart.svg) if chart else "")
        return self._plotted[1]

    def _ask(self, settings: Recipe, base: str | None) -> None:
        with gr.Column(scale=2, min_width=280):
            self.base = gr.Textbox(
                label="Base model",
                value=base or settings.base.model,
                info="mini, a folder, a .safetensors file or a hub id",
                max_lines=1,
                elem_id="base",
            )
            self.recipe = gr.Dropdown(
                _recipes(), value=settings.name, label="Recipe", elem_id="recipe"
            )
            self.estimate = gr.HTML("", elem_id="estimate")
            steps = (settings.phase1.steps, settings.phase2.steps)
            self.steps1 = _slider("Steps for the handles", 2000, steps[0], "steps1")
            self.steps2 = _slider("Steps for handles and adapter", 4000, steps[1], "steps2")
            every = "Steps between sample pictures; 0 draws none"
            self.every = _slider(every, 2000, every_of(settings), "every")
            self.seed = gr.Number(settings.run.seed, precision=0, label="Seed")
            self._ask_more(settings)
            with gr.Row():
                self.start = gr.Button("Start", variant="primary", elem_id="start")
                self.weigh = gr.Button("Estimate memory", elem_id="weigh")

    def _ask_more(self, settings: Recipe) -> None:
        with gr.Accordion("More: all other settings", open=False):
            self.settings = gr.Dataframe(
                table_of(settings),
                headers=HEADS,
                interactive=True,
                static_columns=[0],
                max_height=320,
                wrap=True,
                show_label=False,
                buttons=[],
                elem_id="settings",
            )

    def _show(self) -> None:
        with gr.Column(scale=3, min_width=300):
            self.status = gr.HTML("", elem_id="status")
            with gr.Row():
                self.wishes = [_hidden("Sample now", "sample"), _hidden("Stop and keep", "stop")]
                self.pause, self.resume = _hidden("Pause", "pause"), _hidden("Resume", "resume")
            self.plot = gr.HTML("", elem_id="losses")
            self.maps = gr.HTML("", elem_id="maps")
            self.samples = gr.HTML("", elem_id="samples")
            self.go = gr.Button("Next: pictures", variant="primary", elem_id="to-pictures")

    def _start(
        self, recipe: str, base: str, steps1: int, steps2: int, every: int, seed: int, table: Any
    ) -> None:
        settings = [*overrides(recipe, table), *counted(recipe, steps1, steps2, every)]
        settings += [f"run.seed={int(seed or 0)}"]
        earlier, base = self._desk.need(), base.strip()
        self._refuse_unlearnable(asked_recipe(recipe, base, settings))
        if _has_learnt(earlier):
            remark(f"{self._desk.branch().name} begins; {earlier.name} keeps its training")
        self._trainings.ask(self._desk.write_scene(), recipe, base, settings)

    def _resume(self) -> None:
        work = self._desk.need()
        order = order_of(work)
        if order is None:
            return
        if not _has_learnt(work):  # it begins anew, with what was mended since
            self._refuse_unlearnable(asked_recipe(order.recipe, order.base, order.settings))
            self._desk.write_scene()
        self._trainings.ask(work, order.recipe, order.base, order.settings)

    def _refuse_unlearnable(self, recipe: Recipe) -> None:
        """Refuse now, as a `SceneError`, what the training would refuse minutes later."""
        scene = self._desk.draft.scene(self._desk.need().name)
        report = report_on(scene, usual_canvas(recipe), resize=recipe.masked_loss.resize)
        refusals = [*filter(None, [report.refusal]), *report_on_prompts(scene, recipe).refusals]
        if refusals:
            hint = "show more of it in step 2, shorten its noun there, or delete it"
            raise SceneError(refusals[0], hint=hint)

    def _pause(self) -> None:
        self._trainings.pause(self._desk.need())

    def _wish(self, wish: str) -> None:
        work = self._desk.need()
        ask(work.adapter, wish)
        remark(f"{work.name} will {WISHES[wish]}, after its step")

    def _picked(self) -> str:
        """Return what fills the fields from a recipe in the browser, where nobody waits for it."""
        values = {}
        for name in recipe_names():
            told = load_recipe(name)
            steps = (told.phase1.steps, told.phase2.steps, every_of(told))
            table = self.settings.postprocess(table_of(told)).model_dump()
            values[name] = (told.base.model, *steps, told.run.seed, table)
        return f"name => window.picked(name, {json.dumps(self.recipe.value)}, {json.dumps(values)})"

    @property
    def _learnt(self) -> tuple[int, tuple[Size, ...]]:
        """Return how many things are learnt, and the photos' sizes."""
        draft = self._desk.draft
        n_concepts = max(len(draft.things) + draft.has_background, 1)
        return n_concepts, tuple(Size(one.shape[1], one.shape[0]) for one in draft.photos)

    def _weigh(
        self, recipe: str, base: str, steps1: int, steps2: int, every: int, seed: int, table: Any
    ) -> str:
        self._weighed = self._learnt
        try:
            settings = (*overrides(recipe, table), *counted(recipe, steps1, steps2, every))
            return memory_told(recipe, base.strip(), settings, *self._weighed)
        except Exception as error:  # whatever it is, the page says it and goes on
            return look.said(sentence(error))


def _has_learnt(work: Work) -> bool:
    """Tell whether a work's folder holds anything of a training to go on from, or to keep."""
    return any((work.adapter / kept).exists() for kept in (SUMMARY, CHECKPOINT, SNAPSHOTS))


def _recipes() -> list[tuple[str, str]]:
    return [(load_recipe(name).description, name) for name in recipe_names()]


def _slider(label: str, most: int, value: int, elem_id: str) -> Any:
    return gr.Slider(0, most, value, step=1, label=label, elem_id=elem_id)


def _hidden(label: str, elem_id: str) -> Any:
    return gr.Button(label, size="sm", min_width=90, elem_id=elem_id, visible=False)


def _status(state: Progress, place: int, hindrance: str) -> str:
    words = {
        "none": "Not trained yet.",
        "waiting": f"Waits in the queue: {place} before it.",
        "running": "Loading the base." if not state.phase else
        f"Phase {state.phase}, step {state.step}. {_left(state.seconds_left)}",
        "paused": "Paused. Resume goes on where it stopped.",
        "finished": "Finished.",
        "failed": "It stopped. Nothing is lost: mend it, and resume.",
    }  # fmt: skip
    text = words[state.state]
    bar = ""
    if state.state not in ("none", "waiting"):
        percent = f"{100 * state.done:.0f}"
        bar = (
            f'<div class="bar" role="progressbar" aria-label="Training" aria-valuemin="0" '
            f'aria-valuemax="100" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
        )
    fault = {"failed": state.error, "waiting": hindrance}.get(state.state, "")
    told = look.said(fault, state.notes)
    return f'<div class="progress" data-state="{state.state}">{bar}<p>{text}</p></div>{told}'


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"About {f'{minutes} min ' if minutes else ''}{rest} s left."
