"""Step 2: click on things, and their masks appear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from lora_scene.backbones.training_size import usual_canvas
from lora_scene.errors import SceneError
from lora_scene.page import look
from lora_scene.page.brush import Brush
from lora_scene.page.desk import Work
from lora_scene.page.draft import Draft, Mode
from lora_scene.page.pointing import as_source, canvas
from lora_scene.page.stage import Stage, Updates
from lora_scene.recipe import Recipe
from lora_scene.scenes.coverage import covered
from lora_scene.scenes.mask_prompts import Box
from lora_scene.scenes.masks import report_on
from lora_scene.scenes.overlay import draw_masks
from lora_scene.scenes.segmenters.catalog import CATALOG, open_segmenter
from lora_scene.scenes.segmenters.segmenter import Segmenter

TRAIN = 2  # the step that follows
MODES = [("New thing", "new"), ("Add to it", "add"), ("Take away", "take")]


class ThingsStep:
    """Takes clicks, boxes, words and brushes."""

    def __init__(self, stage: Stage, recipe: Recipe) -> None:
        self._desk, self._stage, self._recipe = stage.desk, stage, recipe
        self._segmenters: dict[str, Segmenter] = {}
        self._brushed: tuple[Work, int, int | None] | None = None  # what the brush changes
        self._drawn: tuple[Draft | None, str] = (None, "")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.canvas = canvas("The photo: click on things", "No photo yet", "canvas")
                look.hint(
                    "Click on a thing, or drag a box around it. By keys: arrows move a cross, "
                    "Enter clicks, B sets the corners of a box."
                )
                self.photo = gr.Radio(label="Photo", choices=[], visible=False)
            with gr.Column(scale=2, min_width=280):
                self.mode = gr.Radio(MODES, value="new", label="A click means", elem_id="mode")
                self.things = gr.Radio(label="Things", choices=[], elem_id="things", type="index")
                with gr.Row():
                    self.noun = gr.Textbox("", label="What it is", max_lines=1, elem_id="noun")
                    self.handle = gr.Textbox("", label="Handle", max_lines=1, elem_id="handle")
                with gr.Row():
                    self.rename = gr.Button("Rename", size="sm", min_width=80)
                    self.delete = gr.Button("Delete", size="sm", min_width=80)
                    self.undo = gr.Button("Undo", size="sm", min_width=80)
                self.report = gr.HTML("", elem_id="report")
                self.go = gr.Button("Next: train", variant="primary", elem_id="to-train")
                with gr.Accordion("Find by words, and other segmenters", open=False):
                    self.words = gr.Textbox("", label="Words", placeholder="a red cup", max_lines=1)
                    self.segmenter = gr.Dropdown(
                        [(f"{name}: {entry.about}", name) for name, entry in CATALOG.items()],
                        value="grabcut",
                        label="Segmenter",
                    )
                    self.find = gr.Button("Find", size="sm")
                self.background = gr.Checkbox(label="Learn the background too", value=False)
        with gr.Accordion("Touch up with a brush", open=False):
            self.brush = Brush("Green belongs to the chosen thing, red does not", takes=True)
            with gr.Row():
                self.load = gr.Button("Bring its mask here", elem_id="load-mask")
                self.keep = gr.Button("Keep as painted", elem_id="keep-mask")

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.canvas, self.photo, self.things, self.handle, self.noun, self.undo,
                self.report, self.background, self.go, self.brush.editor]  # fmt: skip

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on, shown = self._stage.on, [self.mode, self.segmenter]
        on(self.canvas.point, self._point, shown)
        on(self.canvas.box, self._box, shown)
        on(self.find.click, self._find, [self.words, self.segmenter])
        on(self.words.submit, self._find, [self.words, self.segmenter])
        on(self.things.input, lambda k: self._choose(thing=k), [self.things])
        on(self.photo.input, lambda n: self._choose(photo=n), [self.photo])
        on(self.rename.click, self._rename, [self.handle, self.noun])
        on(self.handle.submit, self._rename, [self.handle, self.noun])
        on(self.noun.submit, self._rename, [self.handle, self.noun])
        on(self.delete.click, self._delete)
        on(self.undo.click, self._desk.undo)
        on(self.background.input, lambda on: self._choose(has_background=on), [self.background])
        on(self.load.click, self._load)
        on(self.keep.click, self._keep, [self.brush.editor])
        self.go.click(lambda: gr.update(selected=TRAIN), outputs=self._stage.walk)

    def shown(self) -> Updates:
        """Return what the step shows."""
        draft = self._desk.draft
        if not draft.photos:
            return {self.canvas: "", self.go: gr.update(interactive=False)}
        view = draft.view()
        labels = [
            f"{thing.handle}  {thing.noun}, {100 * covered(view, k):.1f} %"
            for k, thing in enumerate(draft.things)
        ]
        chosen = draft.chosen
        names = [(f"{n + 1}: {name}", n) for n, name in enumerate(draft.names)]
        return {
            self.canvas: self._draw(draft),
            self.photo: gr.update(choices=names, value=draft.photo, visible=len(names) > 1),
            self.things: gr.update(
                choices=labels, value=None if draft.thing is None else labels[draft.thing]
            ),
            self.handle: chosen.handle.strip("<>") if chosen else "",
            self.noun: chosen.noun if chosen else "",
            self.undo: gr.update(interactive=self._desk.can_undo),
            self.report: self._report(draft),
            self.background: draft.has_background,
            self.go: gr.update(interactive=bool(draft.things)),
        }

    def _draw(self, draft: Draft) -> str:
        if self._drawn[0] is not draft:
            picture = draw_masks(draft.view(), [thing.handle for thing in draft.things])
            self._drawn = (draft, as_source(picture))
        return self._drawn[1]

    def _report(self, draft: Draft) -> str:
        if not draft.things:
            return look.facts(["Click on the first thing in the photo."])
        scene = draft.scene(self._desk.need().name)
        report = report_on(
            scene, usual_canvas(self._recipe), resize=self._recipe.masked_loss.resize
        )
        return look.facts([], [*report.warnings, *filter(None, [report.refusal])])

    def _open(self, name: str) -> Segmenter:
        if name not in self._segmenters:
            self._segmenters[name] = open_segmenter(name)
        return self._segmenters[name]

    def _point(self, mode: Mode, segmenter: str, event: gr.EventData) -> None:
        draft = self._desk.draft
        height, width = draft.photos[draft.photo].shape[:2]
        x = min(event.x * width, width - 1)
        y = min(event.y * height, height - 1)
        self._desk.change(draft.pointed(x, y, mode, self._open(segmenter)))

    def _box(self, mode: Mode, segmenter: str, event: gr.EventData) -> None:
        draft = self._desk.draft
        height, width = draft.photos[draft.photo].shape[:2]
        box = Box(
            event.left * width, event.top * height, event.right * width, event.bottom * height
        )
        self._desk.change(draft.boxed(box, mode, self._open(segmenter)))

    def _find(self, words: str, segmenter: str) -> Updates:
        self._desk.need()
        self._desk.change(self._desk.draft.worded(words, self._open(segmenter)))
        return {}

    def _choose(self, **chosen: Any) -> None:
        self._desk.change(replace(self._desk.draft, **chosen))

    def _rename(self, handle: str, noun: str) -> None:
        draft = self._desk.draft
        if draft.thing is not None:
            self._desk.change(draft.renamed(draft.thing, handle, noun))

    def _delete(self) -> None:
        draft = self._desk.draft
        if draft.thing is not None:
            self._desk.change(draft.without(draft.thing))

    @property
    def _at_hand(self) -> tuple[Work, int, int | None]:
        """Return the work, and the numbers of its photo and thing at hand."""
        return self._desk.need(), self._desk.draft.photo, self._desk.draft.thing

    def _load(self) -> Updates:
        self._brushed, draft = self._at_hand, self._desk.draft
        chosen = draft.chosen
        found = chosen.found.get(draft.photo) if chosen else None
        mask = found.shown if found else None
        return {self.brush.editor: self.brush.value(draft.photos[draft.photo], mask)}

    def _keep(self, value: Any) -> Updates:
        if self._brushed not in (None, self._at_hand):
            hint = "choose it again, or bring the photo here again"
            raise SceneError("what is painted is of another thing or photo", hint=hint)
        draft = self._desk.draft
        found = draft.chosen.found.get(draft.photo) if draft.chosen else None
        nothing = np.zeros(draft.photos[draft.photo].shape[:2], dtype=np.float32)
        mask = self.brush.changed(value, found.shown if found else nothing)
        self._desk.change(draft.touched(mask))
        return self._load()
