"""What was drawn of a work: the picture that is shown large is the one that is saved."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from lora_scene.creating.picture_files import read_record
from lora_scene.errors import CreationError
from lora_scene.page.desk import Desk
from lora_scene.page.stage import Updates

SAVE = "Save with its record"


class Shelf:
    """The pictures of the work at hand, and what is done with one of them.

    Attributes:
        gallery: All of them.
        save: Gives the picked one.
        again: Is for making the picked one anew.
        picked: Its file, as a text, one for each tab; None while none is shown large.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.gallery = gr.Gallery(
            label="Pictures, the latest first", show_label=False, columns=3, height="auto",
            object_fit="contain", elem_id="pictures", preview=False, buttons=["fullscreen"],
        )  # fmt: skip
        with gr.Row():
            self.save = gr.DownloadButton(SAVE, size="sm", interactive=False, elem_id="save")
            self.again = gr.Button("Make it again", size="sm", elem_id="again")
        self.picked = gr.State(None)

    def wire(self) -> None:
        """Let the picked one follow what is shown large."""
        told = [self.picked, self.save, self.gallery]
        self.gallery.select(self._pick, outputs=told)
        self.gallery.preview_close(self._put_back, outputs=told)
        self.gallery.change(self._put_back, outputs=told)  # it keeps a number, now of another

    def shown(self) -> Updates:
        """Return what it shows."""
        files = newest(self._desk.work.pictures) if self._desk.work else []
        return {
            self.gallery: [(path, path.stem.replace("_", " ")) for path in files] or None,
            self.again: gr.update(interactive=bool(files)),
        }

    def need(self, picked: str | None) -> Path:
        """Return the picked one.

        Raises:
            CreationError: None is, or it is another work's, or gone.
        """
        path = Path(picked or "")
        if path not in newest(self._desk.need().pictures):
            raise CreationError("no picture is chosen", hint="click on one")
        return path

    def _pick(self, event: gr.SelectData) -> Updates:
        """Take a picture by its name: its number is another's where one was drawn meanwhile."""
        work, name = self._desk.work, event.value["image"]["orig_name"]
        files = newest(work.pictures) if work else []
        path = next((path for path in files if path.name == name), None)
        if path is None:
            return self._put_back()
        label = SAVE if _has_record(path) else "Save"
        return {
            self.picked: str(path),
            self.save: gr.update(value=path, label=label, interactive=True),
        }

    def _put_back(self) -> Updates:
        return {
            self.picked: None,
            self.save: gr.update(value=None, label=SAVE, interactive=False),
            self.gallery: gr.Gallery(selected_index=None),  # an `update` would drop the None
        }


def newest(folder: Path) -> list[Path]:
    """Return a folder's pictures, the latest first."""
    return sorted(folder.glob("*.png"), key=lambda path: (-path.stat().st_mtime_ns, path.name))


def _has_record(path: Path) -> bool:
    try:
        return bool(read_record(path))
    except CreationError:
        return False
