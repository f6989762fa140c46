"""Step 5: files for every interface, checked; the card; a hub."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_scene.adapters.card_checks import refuse_other_licence
from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.gallery import last_samples
from lora_scene.adapters.hub import publish
from lora_scene.adapters.layouts import LAYOUTS
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.adapters.staging import stage_adapter, staged_files
from lora_scene.adapters.verification import Check, verify_path
from lora_scene.adapters.whole_model import base_of
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import AdapterError
from lora_scene.file_groups import scratch_folder
from lora_scene.learning.runs import SUMMARY
from lora_scene.page import look
from lora_scene.page.desk import Work
from lora_scene.page.stage import Stage, Updates, remark


class ShareStep:
    """Exports, verifies, shows the card, publishes; nothing leaves before `Publish` is clicked."""

    def __init__(self, stage: Stage) -> None:
        self._desk, self._stage = stage.desk, stage
        self._told: Work | None = None  # the work of which the fields below tell
        self._looked: tuple[Work, Title, str] | None = None  # what was shown before an upload
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                self.name = gr.Textbox("", label="Name of the files", max_lines=1, elem_id="name")
                self.author = gr.Textbox("", label="Author", max_lines=1)
                self.licence = gr.Textbox("", label="License", placeholder="SPDX id", max_lines=1)
                self.layouts = gr.CheckboxGroup(
                    list(LAYOUTS), value=list(LAYOUTS), label="For", elem_id="layouts"
                )
                self.export = gr.Button("Export", variant="primary", elem_id="export")
                self.verify = gr.Button("Verify", elem_id="verify")
                self.checks = gr.HTML("", elem_id="checks")
                self.files = gr.File(
                    label="Files",
                    file_count="multiple",
                    interactive=False,
                    elem_id="files",
                    visible=False,
                )
            with gr.Column(scale=3, min_width=300):
                with gr.Accordion("The card", open=True):
                    self.preview = gr.Button("Preview the card", size="sm", elem_id="preview")
                    self.card = gr.Markdown("", elem_id="card", max_height=480)
                with gr.Accordion("Publish on a hub", open=False):
                    self.repo = gr.Textbox(
                        "", label="Repository", placeholder="USER/NAME", max_lines=1
                    )
                    self.private = gr.Checkbox(label="Private", value=True)
                    self.dry = gr.Button("Show what would be uploaded", elem_id="dry-run")
                    self.push = gr.Button("Publish", interactive=False, elem_id="push")
                    self.uploads = gr.HTML("", elem_id="uploads")

    @property
    def outputs(self) -> Sequence[Any]:
        """Return what changes."""
        return [self.export, self.verify, self.files, self.checks, self.card,
                self.uploads, self.push]  # fmt: skip

    def wire(self) -> None:
        """Connect buttons with what they do."""
        on, said = self._stage.on, [self.name, self.author, self.licence]
        on(self.export.click, self._export, [*said, self.layouts], busy=self.checks)
        on(self.verify.click, self._verify, busy=self.checks)
        on(self.preview.click, self._preview, [*said, self.repo], busy=self.card)
        on(self.dry.click, self._dry_run, [*said, self.repo], busy=self.repo)
        on(self.push.click, self._push, [*said, self.repo, self.private], busy=self.repo)

    def shown(self) -> Updates:
        """Return what the step shows."""
        work = self._desk.work
        ready = work is not None and (work.adapter / SUMMARY).is_file()
        files = sorted(p for p in work.exported.rglob("*") if p.is_file()) if work else []
        files = [path for path in files if not path.name.startswith(".")]
        others = {self.checks: "", self.card: "", self.uploads: ""} if work != self._told else {}
        return {
            **others,
            self.push: gr.update(interactive=self._looked is not None and self._looked[0] == work),
            self.export: gr.update(interactive=ready),
            self.verify: gr.update(interactive=bool(files)),
            self.files: gr.update(value=[str(path) for path in files] or None, visible=bool(files)),
        }

    def _title(self, name: str, author: str, licence: str) -> Title:
        today = datetime.datetime.now(datetime.UTC).date()
        return Title(name.strip() or self._desk.need().name, author.strip(), licence.strip(), today)

    def _begin(self) -> Work:
        """Return the work at hand, of which what follows will tell."""
        self._told = self._desk.need()
        return self._told

    def _export(self, name: str, author: str, licence: str, layouts: Sequence[Any]) -> Updates:
        work = self._begin()
        refuse_other_licence(work.adapter, licence.strip())
        adapter = read_adapter(work.adapter)
        done = export_adapter(
            adapter,
            work.exported,
            title=self._title(name, author, licence),
            layouts=list(layouts),
            dtype="fp16",
            samples=last_samples(work.adapter, adapter),
        )
        for note in done.notes:
            remark(note)
        self._desk.touch()
        return {self.checks: look.facts([f"{len(done.files)} files in {work.exported}"])}

    def _verify(self) -> Updates:
        work = self._begin()
        adapter = read_adapter(work.adapter)
        source = base_of(adapter, work.adapter)
        checks = verify_path(work.exported, lambda: load_pipeline(source), reference=adapter)
        good = [_told(check) for check in checks if not check.problems]
        bad = [f"{_told(c)}: {'; '.join(c.problems)}" for c in checks if c.problems]
        return {self.checks: look.facts(good, bad)}

    def _preview(self, name: str, author: str, licence: str, repo: str) -> Updates:
        work = self._begin()
        adapter = read_adapter(work.adapter)
        title = self._title(name, author, licence)
        facts = CardFacts(title.name, repo.strip(), title.license, (), work.name)
        return {self.card: _body(write_card(adapter, facts))}

    def _dry_run(self, name: str, author: str, licence: str, repo: str) -> Updates:
        asked = (self._begin(), self._title(name, author, licence), repo.strip())
        with scratch_folder(self._desk.out) as stage:
            _stage_files(stage, *asked)
            lines = [f"{size / 1e6:.3f} MB  {path}" for path, size in staged_files(stage).items()]
        self._looked = asked
        return {self.uploads: look.facts([*lines, f"would be uploaded to {asked[2]}; nothing was"])}

    def _push(self, name: str, author: str, licence: str, repo: str, private: bool) -> Updates:
        asked = (self._desk.need(), self._title(name, author, licence), repo.strip())
        if asked != self._looked:
            hint = "click on `Show what would be uploaded` again"
            raise AdapterError("this is not what was shown", hint=hint)
        with scratch_folder(self._desk.out) as stage:
            _stage_files(stage, *asked)
            published = publish(stage, repo.strip(), private=private)
        self._looked = None
        done = f"done: {len(published.files)} files, {published.url}"
        return {self.uploads: look.facts([done])}


def _stage_files(stage: Path, work: Work, title: Title, repo: str) -> None:
    stage_adapter(work.adapter, stage, title=title, repo_id=repo, dtype="fp16")


def _told(check: Check) -> str:
    what = "rows" if check.layout == "embedding" else "modules"
    return f"{check.path.name}: {check.n_matched} of {check.n_expected} {what} matched"


def _body(card: str) -> str:
    """Return a card without the table of metadata that stands above it."""
    _, mark, rest = card.removeprefix("---\n").partition("\n---\n")
    return rest if mark else card
