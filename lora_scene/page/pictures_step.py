"""Step 4: prompts with handles to click, pictures, regions, edits."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
from PIL import Image

from lora_scene.adapters.folder import read_adapter
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.creating.studio import AdapterChoice
from lora_scene.errors import CreationError
from lora_scene.learning.runs import SUMMARY
from lora_scene.page import look
from lora_scene.page.brush import Brush
from lora_scene.page.canvas import as_source, canvas
from lora_scene.page.desk import Work
from lora_scene.page.painter import Painter
from lora_scene.page.stage import Stage, Updates
from lora_scene.scenes.overlay import COLOURS
from lora_scene.scenes.pictures import Mask, Pixels

CHIP = "element.addEventListener('click', (event) => { const chip = event.target.closest('button');"
CHIP += " if (chip) trigger('chip', { handle: chip.dataset.handle }); });"
SIDE = 512  # pixels of the sheet that regions are drawn on
SHARE = 4  # the step that follows


class PicturesStep:
    """Draws with the work's adapter, and with those of other works."""

    def __init__(self, stage: Stage) -> None:
        self._desk, self._stage, self._painter = stage.desk, stage, Painter()
        self._places: dict[tuple[str, str], Place] = {}  # by work and handle
        with gr.Row(equal_height=False):
            self._ask()
            self._show()
        self._change()
        self.picked = gr.State(None)

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.chips, self.prompt, self.others, self.weights, self.placed, self.sheet,
                self.gallery, self.draw, self.save, self.again, self.go, self.brush.editor,
                self.picked]  # fmt: skip

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on = self._stage.on
        asked = [self.prompt, self.seed, self.count, self.steps, self.grid, self.others,
                 self.weights, self.negative]  # fmt: skip
        self.chips.chip(self._add_handle, [self.prompt], [self.prompt], show_progress="hidden")
        on(self.draw.click, self._draw, asked, busy=self.gallery)
        on(self.prompt.submit, self._draw, asked, busy=self.gallery)
        on(self.sheet.box, self._place, [self.placed])
        on(self.unplace.click, self._places.clear)
        on(self.again.click, self._make_again, [self.picked, self.others, self.weights],
           busy=self.gallery)  # fmt: skip
        on(self.own.click, self._bring)
        change = [self.brush.editor, *asked]
        on(self.edit.click, self._edit, change, busy=self.gallery)
        on(self.fill.click, self._fill, change, busy=self.gallery)
        on(self.grow.click, self._grow, [self.margin, *change], busy=self.gallery)
        self.gallery.select(self._pick, outputs=[self.picked, self.save])
        self.go.click(lambda: gr.update(selected=SHARE), outputs=self._stage.walk)

    def shown(self) -> Updates:
        """Return what the step shows."""
        work = self._desk.work
        handles = _handles(work) if work else []
        others = [name for name in self._desk.names() if work is None or name != work.name]
        trained = [n for n in others if (self._desk.out / n / "adapter" / SUMMARY).is_file()]
        files = _newest(work.pictures) if work else []
        placed = [p for (name, _), p in self._places.items() if work and name == work.name]
        return {
            self.chips: _chips(handles),
            self.others: gr.update(choices=trained),
            self.placed: gr.update(choices=handles),
            self.sheet: _sheet(placed),
            self.gallery: files or None,
            self.draw: gr.update(interactive=bool(handles)),
            self.again: gr.update(interactive=bool(files)),
            self.go: gr.update(interactive=bool(handles)),
        }

    def _ask(self) -> None:
        with gr.Column(scale=2, min_width=280):
            self.chips = gr.HTML("", js_on_load=CHIP, elem_id="chips")
            self.prompt = gr.Textbox("", label="Prompt", lines=2, elem_id="prompt")
            with gr.Row():
                self.seed = gr.Number(0, precision=0, minimum=0, label="First seed")
                self.count = gr.Slider(1, 8, 2, step=1, label="Pictures", elem_id="count")
            self.steps = gr.Slider(
                1, 100, Sampling().n_steps, step=1, label="Steps", elem_id="steps"
            )
            self.grid = gr.Checkbox(label="A grid of weights 0, 0.7 and 1", value=False)
            with gr.Accordion("Weights, other adapters, what not to show", open=False):
                self.others = gr.Dropdown([], multiselect=True, label="With other works' adapters")
                self.weights = gr.Dataframe(
                    [], headers=["adapter or handle", "weight"], interactive=True,
                    static_columns=[0], show_label=False, elem_id="weights",
                )  # fmt: skip
                self.negative = gr.Textbox("", label="Not in the picture", max_lines=1)
            with gr.Accordion("A region for a thing", open=False):
                self.placed = gr.Radio([], label="Drag a box for", elem_id="placed")
                self.sheet = canvas("The picture to come: drag a box", "", "regions")
                self.unplace = gr.Button("No regions", size="sm")
            self.draw = gr.Button("Draw", variant="primary", elem_id="draw")

    def _show(self) -> None:
        with gr.Column(scale=3, min_width=300):
            self.gallery = gr.Gallery(
                label="Pictures, the latest first", columns=3, height="auto", object_fit="contain",
                elem_id="pictures", preview=False,
            )  # fmt: skip
            with gr.Row():
                self.save = gr.DownloadButton(
                    "Save with its record", size="sm", interactive=False, elem_id="save"
                )
                self.again = gr.Button("Make it again", size="sm", elem_id="again")
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

    def _add_handle(self, prompt: str, event: gr.EventData) -> str:
        text = prompt.strip() or "a photo of"
        return f"{text} {event.handle}"

    def _pick(self, event: gr.SelectData) -> tuple[Any, Any]:
        work = self._desk.need()
        files = _newest(work.pictures)
        if not 0 <= event.index < len(files):
            return None, gr.update(interactive=False)
        return files[event.index].name, gr.update(value=files[event.index], interactive=True)

    def _choices(self, others: Sequence[str] | None, table: Any) -> list[AdapterChoice]:
        work = self._desk.need()
        weights = _numbers(table)
        works = [work, *(self._desk.find(name) for name in others or [])]
        return [AdapterChoice(one.adapter, weights.get(one.name, 1.0)) for one in works]

    def _request(self, prompt: str, seed: int, steps: int, table: Any, negative: str) -> Request:
        weights = _numbers(table)
        strengths = tuple((k, v) for k, v in weights.items() if k.startswith("<") and v != 1.0)
        work = self._desk.need().name
        places = tuple(p for (name, h), p in self._places.items() if name == work and h in prompt)
        return Request(
            prompt,
            seed=int(seed or 0),
            negative=negative,
            sampling=Sampling(int(steps)),
            control=Control(places=places, strengths=strengths),
        )

    def _draw(self, prompt: str, seed: int, count: int, steps: int, grid: bool,
              others: Sequence[str], table: Any, negative: str) -> Updates:  # fmt: skip
        work = self._desk.need()
        prompt = prompt.strip() or f"a photo of {' and '.join(_handles(work)[:2])}"
        request = self._request(prompt, seed, steps, table, negative)
        choices = self._choices(others, table)
        self._painter.draw(choices, request, out=work.pictures, n_pictures=int(count), is_grid=grid)
        self._desk.touch()
        return {self.prompt: prompt, self.weights: _rows(choices, self._names(choices), table)}

    def _names(self, choices: Sequence[AdapterChoice]) -> list[str]:
        handles = [read_adapter(Path(str(choice.source))).handles for choice in choices]
        return [handle for one in handles for handle in one]

    def _make_again(self, name: str | None, others: Sequence[str], table: Any) -> Updates:
        work = self._desk.need()
        if name is None:
            raise CreationError("no picture is chosen", hint="click on one")
        path = next(p for p in _newest(work.pictures) if p.name == name)
        self._painter.again(self._choices(others, table), path, out=work.pictures)
        self._desk.touch()
        return {}

    def _place(self, handle: str | None, event: gr.EventData) -> None:
        if handle is None:
            raise CreationError("no thing is chosen for the region", hint="choose a handle above")
        box = (event.left, event.top, event.right, event.bottom)
        self._places[self._desk.need().name, handle] = Place(handle, box)

    def _bring(self) -> Updates:
        draft = self._desk.draft
        self._desk.need()
        return {self.brush.editor: self.brush.value(draft.photos[draft.photo])}

    def _painted(self, value: Any) -> tuple[Pixels, Mask]:
        """Return an editor's photo (H, W, 3), and what is painted on it (H, W), 0 or 1."""
        photo = _background(value)
        return photo, self.brush.read(value, photo.shape).astype(np.float32)

    def _edit(self, value: Any, prompt: str, seed: int, count: int, steps: int, grid: bool,
              others: Sequence[str], table: Any, negative: str) -> None:  # fmt: skip
        photo, mask = self._painted(value)
        request = self._request(prompt, seed, steps, table, negative)
        choices = self._choices(others, table)
        self._painter.edit(choices, photo, mask, request, self._desk.need().pictures)
        self._desk.touch()

    def _fill(self, value: Any, prompt: str, seed: int, count: int, steps: int, grid: bool,
              others: Sequence[str], table: Any, negative: str) -> None:  # fmt: skip
        photo, hole = self._painted(value)
        request = self._request(prompt, seed, steps, table, negative)
        choices = self._choices(others, table)
        self._painter.complete(choices, photo, hole, request, self._desk.need().pictures)
        self._desk.touch()

    def _grow(self, margin: int, value: Any, prompt: str, seed: int, count: int, steps: int,
              grid: bool, others: Sequence[str], table: Any, negative: str) -> None:  # fmt: skip
        photo = _background(value)
        request = self._request(prompt, seed, steps, table, negative)
        choices, out = self._choices(others, table), self._desk.need().pictures
        self._painter.complete(choices, photo, None, request, out, growth=int(margin))
        self._desk.touch()


def _sheet(places: Sequence[Place]) -> str:
    sheet = np.full((SIDE, SIDE, 3), 236, dtype=np.uint8)
    for k, place in enumerate(places):
        left, top, right, bottom = (round(side * SIDE) for side in place.box)
        sheet[top:bottom, left:right] = COLOURS[k % len(COLOURS)]
    return as_source(Image.fromarray(sheet))


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


def _newest(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"), key=lambda path: (-path.stat().st_mtime_ns, path.name))


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


def _rows(choices: Sequence[AdapterChoice], handles: Sequence[str], table: Any) -> list[list[Any]]:
    weights = _numbers(table)
    names = [*(Path(str(choice.source)).parent.name for choice in choices), *handles]
    return [[name, weights.get(name, 1.0)] for name in names]


def _background(value: Any) -> Any:
    """Return the photo under a brush, (H, W, 3) uint8."""
    photo = (value or {}).get("background")
    if photo is None:
        raise CreationError("no photo is there", hint="bring the work's photo, or upload one")
    return np.ascontiguousarray(np.asarray(photo)[..., :3])
