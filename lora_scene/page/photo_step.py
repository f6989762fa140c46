"""Step 1: photos in, or the demo's scene, or earlier work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from lora_scene.page import look
from lora_scene.page.pointing import as_source
from lora_scene.page.stage import Stage, Updates
from lora_scene.scenes.framing import resize_pixels

THINGS = 1  # the step that follows
MUCH = 100_000  # pixels, from which they are told in millions
MOST_SHOWN = 640  # pixels of a photo's longer side here


class PhotoStep:
    """Takes photos; an upload's own file is deleted as soon as it is read."""

    def __init__(self, stage: Stage) -> None:
        self._desk, self._stage = stage.desk, stage
        with gr.Row():
            with gr.Column(scale=3):
                self.files = gr.File(
                    label="Drop one or several photos of the same things",
                    file_count="multiple",
                    type="filepath",
                    height=180,
                    elem_id="photos",
                )
                look.hint(
                    "Photos stay on this machine, in the folder "
                    f"{self._desk.out}; where they were taken is left out."
                )
                with gr.Row():
                    self.demo = gr.Button("Take the demo scene", elem_id="demo")
                    self.go = gr.Button("Next: things", variant="primary", interactive=False)
                self.works = gr.Dropdown(
                    label="Earlier work", choices=[], elem_id="works", visible=False
                )
            with gr.Column(scale=2):
                self.picture = gr.HTML(look.way(), elem_id="photo-now")
                self.facts = gr.HTML("", elem_id="photo-facts")

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.files, self.works, self.picture, self.facts, self.go]

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on = self._stage.on
        on(self.files.upload, self._take, [self.files], lead_to=THINGS, clears=[self.files])
        on(self.demo.click, self._take_demo, lead_to=THINGS)
        on(self.works.input, self._open, [self.works])
        self.go.click(lambda: gr.update(selected=THINGS), outputs=self._stage.walk)

    def shown(self) -> Updates:
        """Return what the step shows."""
        desk = self._desk
        name = desk.work.name if desk.work else None
        lines = [
            f"{name}: {_told(*pixels.shape[:2])}"
            for name, pixels in zip(desk.draft.names, desk.draft.photos, strict=True)
        ]
        return {
            self.works: gr.update(choices=desk.names(), value=name, visible=bool(name)),
            self.picture: _small(desk.draft.photos[0]) if lines else look.way(),
            self.facts: look.facts(lines),
            self.go: gr.update(interactive=bool(lines)),
        }

    def _take(self, files: Sequence[str] | None) -> None:
        paths = [Path(file) for file in files or []]
        try:
            self._desk.begin(paths)
        finally:
            for path in paths:  # it may tell where it was taken
                with suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()

    def _take_demo(self) -> None:
        with resources.as_file(resources.files("lora_scene.scenes") / "demo") as folder:
            self._desk.begin_scene(folder, "demo")

    def _open(self, name: str | None) -> None:
        if name and (self._desk.work is None or name != self._desk.work.name):
            self._desk.open(name)


def _told(height: int, width: int) -> str:
    shape = "square" if height == width else "upright" if height > width else "wide"
    millions = f", {height * width / 1e6:.1f} megapixels" if height * width >= MUCH else ""
    return f"{width} x {height} pixels{millions}, {shape}"


def _small(pixels: Any) -> str:
    from PIL import Image

    scale = min(MOST_SHOWN / max(pixels.shape[:2]), 1.0)
    shape = tuple(max(round(side * scale), 1) for side in pixels.shape[:2])
    source = as_source(Image.fromarray(resize_pixels(pixels, shape)))
    return f'<figure class="canvas"><img src="{source}" alt="The first photo"></figure>'
