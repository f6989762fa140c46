"""Step 4: prompts with handles to click, pictures, regions, edits."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from lora_scene.adapters.folder import read_adapter
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.completion import Growth, grown, spread
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.errors import CreationError
from lora_scene.learning.runs import SUMMARY
from lora_scene.page import look
from lora_scene.page.brush import Brush
from lora_scene.page.desk import Work
from lora_scene.page.painter import Painter
from lora_scene.page.pointing import canvas, sheet
from lora_scene.page.shelf import Shelf, newest
from lora_scene.page.stage import Stage, Updates, remark
from lora_scene.scenes.pictures import Mask, Pixels

CHIP = """element.addEventListener('click', ({ target }) => {
  const handle = target.closest('button')?.dataset.handle;
  const prompt = document.querySelector('#prompt textarea');
  if (!handle || !prompt) return;
  prompt.value = `${prompt.value.trim() || 'a photo of'} ${handle}`;
  prompt.dispatchEvent(new Event('input', { bubbles: true }));
});"""
SHARE = 4  # the step that follows
SPREAD = 4  # pixels around a hole that are filled too, as `lora-scene complete` does


class PicturesStep:
    """Draws with the work's adapter, and with those of other works."""

    def __init__(self, stage: Stage) -> None:
        self._desk, self._stage, self._painter = stage.desk, stage, Painter()
        self._places: dict[tuple[str, str], Place] = {}  # by work and handle
        self._weights: dict[tuple[str, str], float] = {}  # by work and adapter or handle
        self._others: dict[str, list[str]] = {}  # by work, whose adapters draw with its own
        with gr.Row(equal_height=False):
            self._ask()
            self._show()
        self._change()

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.chips, self.prompt, self.others, self.weights, self.placed, self.sheet,
                self.shelf.gallery, self.draw, self.shelf.again, self.go,
                self.brush.editor]  # fmt: skip

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on = self._stage.on
        asked = [self.prompt, self.seed, self.steps, self.negative]
        drawn, gallery = [*asked, self.count, self.grid], self.shelf.gallery
        on(self.draw.click, self._draw, drawn, busy=gallery)
        on(self.prompt.submit, self._draw, drawn, busy=gallery)
        on(self.sheet.box, self._place, [self.placed])
        on(self.unplace.click, self._places.clear)
        on(self.others.input, self._take, [self.others])
        on(self.weights.input, self._weigh, [self.weights])
        on(self.shelf.again.click, self._make_again, [self.shelf.picked], busy=gallery)
        on(self.own.click, self._bring)
        change = [self.brush.editor, *asked]
        on(self.edit.click, self._edit, change, busy=gallery)
        on(self.fill.click, self._fill, change, busy=gallery)
        on(self.grow.click, self._grow, [self.margin, *change], busy=gallery)
        self.shelf.wire()
        self.go.click(lambda: gr.update(selected=SHARE), outputs=self._stage.walk)

    def shown(self) -> Updates:
        """Return what the step shows."""
        work = self._desk.work
        handles = _handles(work) if work else []
        trained = [name for name in self._trained() if work is None or name != work.name]
        taken = self._others.get(work.name, []) if work else []
        rows = self._rows() if handles else []
        placed = {h: p.box for (name, h), p in self._places.items() if work and name == work.name}
        return {
            **self.shelf.shown(),
            self.chips: _chips(handles),
            self.prompt: gr.update(placeholder=_usual(handles) if handles else ""),
            self.others: gr.update(choices=trained, value=taken),
            self.weights: gr.update(value=rows, row_limits=(len(rows), len(rows))),
            self.placed: gr.update(choices=handles),
            self.sheet: sheet({handle: placed.get(handle) for handle in handles}),
            self.draw: gr.update(interactive=bool(handles)),
            self.go: gr.update(interactive=bool(handles)),
        }

    def _ask(self) -> None:
        with gr.Column(scale=2, min_width=280):
            self.chips = gr.HTML("", js_on_load=CHIP, elem_id="chips")
            self.prompt = gr.Textbox("", label="Prompt", lines=2, elem_id="prompt")
            with gr.Row():
                self.seed = gr.Number(0, precision=0, label="First seed")
                self.count = gr.Slider(1, 8, 2, step=1, label="Pictures", elem_id="count")
            self.steps = gr.Slider(
                1, 100, Sampling().n_steps, step=1, label="Steps", elem_id="steps"
            )
            self.grid = gr.Checkbox(label="A grid of weights 0, 0.7 and 1", value=False)
            with gr.Accordion("Weights, other adapters, what not to show", open=False):
                self.others = gr.Dropdown([], multiselect=True, label="With other works' adapters")
                self.weights = gr.Dataframe(
                    [], headers=["adapter or handle", "weight"], interactive=True,
                    static_columns=[0], show_label=False, elem_id="weights", buttons=[],
                )  # fmt: skip
                self.negative = gr.Textbox("", label="Not in the picture", max_lines=1)
            with gr.Accordion("A region for a thing", open=False):
                self.placed = gr.Radio([], label="Drag a box for", elem_id="placed")
                self.sheet = canvas("The picture to come: drag a box", "", "regions")
                self.unplace = gr.Button("Remove all regions", size="sm", elem_id="unplace")
            self.draw = gr.Button("Draw", variant="primary", elem_id="draw")

    def _show(self) -> None:
        with gr.Column(scale=3, min_width=300):
            self.shelf = Shelf(self._desk)
            self.go = gr.Button("Next: share", variant="primary", elem_id="to-share")

    def _change(self) -> None:
        with gr.Accordion("Edit or complete a photo", open=False):
            self.brush = Brush("Paint what should change", can_upload=True)
            with gr.Row():
                self.own = gr.Button("Bring the work's photo", elem_id="own-photo")
                self.edit = gr.Button("Redraw what is painted", elem_id="redraw")
                self.fill = gr.Button("Fill what is painted", elem_id="fill")
            with gr.Row():
                self.margin = gr.Slider(8, 512, 64, step=8, label="Grow by, pixels")
                self.grow = gr.Button("Grow the canvas", elem_id="grow")

    def _trained(self) -> list[str]:
        names = self._desk.names()
        return [name for name in names if (self._desk.find(name).adapter / SUMMARY).is_file()]

    def _works(self) -> list[Work]:
        """Return the work at hand and those that draw with it."""
        work = self._desk.need()
        return [work, *(self._desk.find(name) for name in self._others.get(work.name, []))]

    def _choices(self) -> list[AdapterChoice]:
        return [AdapterChoice(one.adapter, self._weight(one.name)) for one in self._works()]

    def _weight(self, name: str) -> float:
        return self._weights.get((self._desk.need().name, name), 1.0)

    def _rows(self) -> list[list[Any]]:
        works = self._works()
        named = [*(one.name for one in works), *(h for one in works for h in _handles(one))]
        return [[name, self._weight(name)] for name in dict.fromkeys(named)]

    def _take(self, others: Sequence[str]) -> None:
        self._others[self._desk.need().name] = list(others)
        self._desk.touch()

    def _weigh(self, table: Any) -> None:
        work = self._desk.need().name
        self._weights |= {(work, name): weight for name, weight in _numbers(table).items()}
        self._desk.touch()

    def _request(self, prompt: str, seed: int, steps: int, negative: str) -> Request:
        handles = [handle for one in self._works() for handle in _handles(one)]
        prompt = prompt.strip() or _usual(handles)
        work, said = self._desk.need().name, prompt.casefold()
        named = [handle for handle in handles if handle.casefold() in said]
        places = tuple(p for (name, h), p in self._places.items() if name == work and h in named)
        strengths = {handle: self._weight(handle) for handle in named}
        control = Control(
            places=places, strengths=tuple((h, w) for h, w in strengths.items() if w != 1.0)
        )
        return Request(
            prompt, seed=int(seed or 0), negative=negative, sampling=Sampling(int(steps)),
            control=control,
        )  # fmt: skip

    def _draw(
        self, prompt: str, seed: int, steps: int, negative: str, count: int, grid: bool
    ) -> None:
        request, out = self._request(prompt, seed, steps, negative), self._desk.need().pictures
        self._painter.draw(self._choices(), request, out=out, n_pictures=int(count), is_grid=grid)
        self._desk.touch()

    def _make_again(self, picked: str | None) -> None:
        path = self.shelf.need(picked)
        before = newest(path.parent)
        adapters = [self._desk.find(one).adapter for one in self._trained()]
        if set(self._painter.again(adapters, path, out=path.parent)) <= set(before):
            remark(f"{path.name} came out the same, byte for byte")
        self._desk.touch()

    def _place(self, handle: str | None, event: gr.EventData) -> Updates:
        work = self._desk.need()
        handles = _handles(work)
        if not handles:
            raise CreationError("no thing is learnt yet", hint="train first")
        handle = handle if handle in handles else handles[0]
        box = (event.left, event.top, event.right, event.bottom)
        self._places[work.name, handle] = Place(handle, box)
        free = [h for h in handles if (work.name, h) not in self._places]
        return {self.placed: gr.update(choices=handles, value=free[0] if free else handle)}

    def _bring(self) -> Updates:
        self._desk.need()
        return {self.brush.editor: self.brush.value(self._desk.draft.view().pixels)}

    def _painted(self, value: Any) -> tuple[Pixels, Mask]:
        """Return an editor's photo (H, W, 3), and what is painted on it (H, W), 0 or 1."""
        photo = self.brush.photo(value)
        return photo, self.brush.read(value, photo.shape).astype(np.float32)

    def _edit(self, value: Any, *asked: Any) -> None:
        self._redraw(self._painter.edit, *self._painted(value), asked)

    def _fill(self, value: Any, *asked: Any) -> None:
        photo, hole = self._painted(value)
        self._redraw(self._painter.complete, photo, spread(hole, SPREAD), asked)

    def _grow(self, margin: int, value: Any, *asked: Any) -> None:
        photo = self.brush.photo(value)
        hole = grown(photo, Growth(*[int(margin)] * 4))[1]
        self._redraw(self._painter.complete, photo, hole, asked)

    def _redraw(
        self, draw: Callable[..., Path], photo: Pixels, mask: Mask, asked: Sequence[Any]
    ) -> None:
        draw(self._choices(), photo, mask, self._request(*asked), self._desk.need().pictures)
        self._desk.touch()


def _handles(work: Work) -> list[str]:
    """Return the handles of a work's adapter, none where there is no finished one."""
    return list(read_adapter(work.adapter).handles) if (work.adapter / SUMMARY).is_file() else []


def _chips(handles: Sequence[str]) -> str:
    if not handles:
        return look.facts(["Handles to click stand here once a training is finished."])
    chips = "".join(
        f'<button type="button" data-handle="{html.escape(h)}">{html.escape(h)}</button>'
        for h in handles
    )
    return f'<div class="chips" role="group" aria-label="Handles">{chips}</div>'


def _numbers(table: Any) -> Mapping[str, float]:
    """Read the weights that were typed.

    Raises:
        CreationError: One is no number.
    """
    rows = table.values.tolist() if isinstance(table, pd.DataFrame) else table
    found = {}
    for row in rows or []:
        name, value = (str(cell).strip() for cell in row[:2])
        if not name or value in ("", "None", "nan"):
            continue
        try:
            found[name] = float(value)
        except ValueError as error:
            raise CreationError("not a number", where=name, got=value) from error
    return found


def _usual(handles: Sequence[str]) -> str:
    """Return the prompt that is drawn where none is written."""
    return f"a photo of {' and '.join(handles[:2])}"
