"""The page as a whole, on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_scene.errors import LoraSceneError
from lora_scene.extras import optional
from lora_scene.faults import as_file_error, sentence
from lora_scene.file_groups import clean_up, scratch_folder
from lora_scene.folder_lock import locked

MOST_UPLOAD = "512mb"  # of a file; photos are refused above 64 megapixels whatever their size
UNSTORED = 507  # HTTP's status of a server that cannot keep what it was sent
HOST = "127.0.0.1"
BEAT = 2.5  # seconds between two looks at what other tabs and the training did


@contextmanager
def serving(out: Path, *, base: str | None = None, port: int | None = None) -> Iterator[str]:
    """Serve the page while the context lasts; give its address.

    Args:
        out: The folder of all works; one page a folder.
        base: The base model that is offered first.
        port: Where; None takes the first free one from 7860 on.

    Raises:
        FileError: Another page serves the folder, or it cannot be written.
        LoraSceneError: Gradio is missing, or the port is taken.
    """
    clean_up(out)
    with locked(out), scratch_folder(out.absolute()) as uploads:  # until what was sent is read
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        for name in ("no_proxy", "NO_PROXY"):  # Gradio asks its own server how it is
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
        built, trainings = _build(out, base)
        try:
            yield _launch(built, out, port, _failing_uploads(uploads))
        finally:
            trainings.close()
            built.close(verbose=False)


def _failing_uploads(uploads: Path) -> Callable[..., Any]:
    """Return what answers an upload that the disk does not take; other errors stay Gradio's."""
    from starlette.responses import PlainTextResponse

    def answer(request: Any, error: OSError) -> Any:
        if not request.url.path.endswith("/upload"):
            raise error
        for path in uploads.glob("tmp*"):  # an upload that broke off
            path.unlink(missing_ok=True)
        return PlainTextResponse(sentence(as_file_error(error, uploads.parent)), UNSTORED)

    return answer


def _launch(built: Any, out: Path, port: int | None, failing: Callable[..., Any]) -> str:
    from lora_scene.page import look

    try:
        _, address, _ = built.launch(
            server_name=HOST,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            ssr_mode=False,
            show_error=False,
            footer_links=[],
            allowed_paths=[str(out.absolute())],
            max_file_size=MOST_UPLOAD,
            run_history=False,
            enable_monitoring=False,
            _frontend=False,  # or it gives up where its own first answer takes 3 seconds
            theme=look.theme(),
            css=look.style(),
            js=look.script(),
            app_kwargs={"exception_handlers": {OSError: failing}},
        )
    except OSError as error:
        raise LoraSceneError(
            "the page cannot be served", where=f"port {port}", got=error, hint="another --port"
        ) from error
    return str(address)


def _build(out: Path, base: str | None) -> tuple[Any, Any]:
    """Build the page; return it, and the trainings."""
    gr: Any = optional("gradio", error=LoraSceneError, where="the page")
    from lora_scene.learning.machine import fitting_recipe
    from lora_scene.page import look
    from lora_scene.page.desk import Desk, Work
    from lora_scene.page.photo_step import PhotoStep
    from lora_scene.page.pictures_step import PicturesStep
    from lora_scene.page.share_step import ShareStep
    from lora_scene.page.stage import Stage, catch_warnings
    from lora_scene.page.things_step import ThingsStep
    from lora_scene.page.train_step import TrainStep
    from lora_scene.page.trainings import Trainings
    from lora_scene.recipe import load_recipe

    catch_warnings()
    recipe = load_recipe(fitting_recipe(base))
    desk = Desk(out)
    trainings = Trainings(lambda: [Work(desk.out / name) for name in desk.names()], desk.touch)
    with gr.Blocks(title=look.TITLE, analytics_enabled=False) as built:
        stage = Stage(desk)
        with gr.Tabs() as stage.walk:
            with gr.Tab("1 Photo", id=0):
                photo = PhotoStep(stage)
            with gr.Tab("2 Things", id=1):
                things = ThingsStep(stage, recipe)
            with gr.Tab("3 Train", id=2) as training:
                train = TrainStep(stage, trainings, recipe, base)
            with gr.Tab("4 Pictures", id=3):
                pictures = PicturesStep(stage)
            with gr.Tab("5 Share", id=4):
                share = ShareStep(stage)
        stage.steps = [photo, things, train, pictures, share]
        for step in (photo, things, train, pictures, share):
            step.wire()
        stage.wire()
        train.wire_to(training)
        _beat(gr, stage, train)
        _open(built, stage)
    built.queue(default_concurrency_limit=4)
    return built, trainings


def _open(built: Any, stage: Any) -> None:
    """Show the desk, and make the fields of all steps be there before a step can be opened.

    Gradio fills what it hid in tabs and accordions twice as they open, a while apart; what was
    typed between would be undone.
    """
    read = {field: None for event in built.fns.values() for field in event.inputs}
    fields = [
        field for field in read if field.visible is True and field.get_block_name() != "state"
    ]
    each = f"() => Array({len(fields)}).fill({{ __type__: 'update', visible: true }})"
    shown = built.load(stage.shown, outputs=stage.outputs, show_progress="hidden")
    there = shown.then(None, None, fields, js=each)
    there.then(None, js="() => { document.body.dataset.open = ''; }")


def _beat(gr: Any, stage: Any, train: Any) -> None:
    """Let every tab look, now and then, at what others and the training did.

    A look changes two hidden texts at most: to update all components costs a browser much.
    """
    from lora_scene.page import look as words
    from lora_scene.page.stage import shown_of

    version, news = (gr.Textbox("", elem_classes="news", container=False) for _ in range(2))

    def look() -> tuple[str, str]:
        try:
            told = repr(train.signature())
        except (LoraSceneError, OSError) as error:
            told = sentence(error)
        return str(stage.desk.version), told

    def show() -> dict[Any, Any]:
        shown, fault = shown_of(train)
        return {**shown, stage.said: words.said(fault)} if fault else shown

    def refresh(seen: int) -> dict[Any, Any]:
        return {stage.seen: seen} if seen == stage.desk.version else stage.shown()

    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    gr.Timer(BEAT).tick(look, outputs=[version, news], show_progress="hidden", queue=False)
    version.change(refresh, [stage.seen], stage.outputs, **quiet)
    news.change(show, None, [*train.outputs, stage.said], **quiet)
