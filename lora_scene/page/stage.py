"""What the steps share: the desk, and the way from a click to what the page shows then."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import gradio as gr

from lora_scene.errors import LoraSceneError, LoraSceneWarning
from lora_scene.faults import sentence
from lora_scene.page import look
from lora_scene.page.desk import Desk

Updates = Mapping[Any, Any]  # component to what becomes of it
TYPED = (gr.Textbox, gr.Number, gr.Slider, gr.Dataframe)  # no answer of the server sets one
ONCE = ("click", "submit")  # while one is at work; a choice or a place of the photo always counts
_remarks: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("remarks", default=None)


class PageStep(Protocol):
    """One step of the journey, built into the page."""

    @property
    def outputs(self) -> Sequence[Any]:
        """Return the components that `shown` may update."""

    def shown(self) -> Updates:
        """Return what the step shows of the desk."""


class Stage:
    """Holds what all steps show to the desk's state.

    Args:
        desk: The work at hand.

    Attributes:
        said: Where faults and remarks are told.
        seen: The desk's version that a tab shows.
        offers: What is meant for fields that are typed in; the browser spares those just written.
        walk: The tabs of the steps.
        masthead: The head of the page.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.masthead = gr.HTML(look.masthead())
        self.said = gr.HTML("", elem_id="said")
        self.seen = gr.State(-1)
        self.offers = gr.Textbox("", elem_classes="news", container=False)
        self.walk: Any = None
        self.steps: list[PageStep] = []

    @property
    def outputs(self) -> list[Any]:
        """Return all that a click can change."""
        own = [self.masthead, self.said, self.seen, self.offers, self.walk]
        shown = [component for step in self.steps for component in step.outputs]
        return [*own, *(component for component in shown if not isinstance(component, TYPED))]

    def shown(self) -> dict[Any, Any]:
        """Return what all steps show now."""
        updates = {self.masthead: look.masthead(self.desk.work.name if self.desk.work else "")}
        offers, faults = [], []
        for step in self.steps:
            shown, fault = shown_of(step)
            faults += [fault] if fault else []
            fields = [field for field in step.outputs if isinstance(field, TYPED)]
            offered = [_as_sent(field, shown.pop(field, gr.skip())) for field in fields]
            offers += [(field.elem_id, offered, k) for k, field in enumerate(fields)]
            updates |= shown
        updates |= {self.said: look.said("\n".join(dict.fromkeys(faults)))} if faults else {}
        return {**updates, self.offers: json.dumps(offers), self.seen: self.desk.version}

    def wire(self) -> None:
        """Let the browser put what is offered into fields; only there it is known who types."""
        typed = [c for step in self.steps for c in step.outputs if isinstance(c, TYPED)]
        self.offers.change(None, [self.offers], typed, js="offers => window.taken(offers)")

    def on(
        self,
        event: Callable[..., Any],
        work: Callable[..., Updates | None],
        inputs: Sequence[Any] = (),
        *,
        lead_to: int | None = None,
        clears: Sequence[Any] = (),
        busy: Any = None,
    ) -> None:
        """Let an event do work; afterwards all steps are shown anew, faults and remarks told.

        Args:
            event: Such as `button.click`; of a double click the second is dropped.
            work: Gets the inputs; returns what else is to be shown.
            inputs: Components.
            lead_to: The step that follows when all went well.
            clears: Components that are emptied, whether or not all went well.
            busy: What shows that it goes on, for work so long that others should not wait for it.
        """
        is_long, name = busy is not None, getattr(event, "event_name", "")
        handle = self._handler(work, lead_to, clears, is_long)
        if is_long:
            handle = self._with_said_emptied(handle)
        event(
            handle,
            list(inputs),
            self.outputs,
            show_progress="minimal" if is_long else "hidden",
            show_progress_on=busy,  # of all outputs each would count the seconds
            concurrency_limit=1,
            concurrency_id="long" if is_long else "short",
            trigger_mode="once" if is_long or name in ONCE else "multiple",
        )

    def _with_said_emptied(self, handle: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handle)
        def handle_slowly(*args: Any, **named: Any) -> Iterator[dict[Any, Any]]:
            yield {self.said: ""}  # or what was told before would seem to be told of this
            yield handle(*args, **named)

        return handle_slowly

    def _handler(
        self,
        work: Callable[..., Updates | None],
        lead_to: int | None,
        clears: Sequence[Any],
        is_long: bool,
    ) -> Callable[..., Any]:
        @functools.wraps(work)
        def handle(*args: Any, **named: Any) -> dict[Any, Any]:
            remarks: list[str] = []
            token = _remarks.set(remarks)
            try:
                with contextlib.nullcontext() if is_long else self.desk.lock:
                    more = work(*args, **named)
            except Exception as error:  # whatever it is, the page says it and goes on
                if not isinstance(error, (LoraSceneError, OSError)):
                    traceback.print_exc()  # for whoever reads the terminal
                fault = look.said(sentence(error), remarks)
                return {**self.shown(), **dict.fromkeys(clears), self.said: fault}
            finally:
                _remarks.reset(token)
            updates = {**self.shown(), **dict.fromkeys(clears), **(more or {})}
            updates[self.said] = updates.get(self.said, "") + look.said(remarks=remarks)
            if lead_to is not None:
                updates[self.walk] = gr.update(selected=lead_to)
            return updates

        return handle


def shown_of(step: PageStep) -> tuple[dict[Any, Any], str]:
    """Return what a step shows and no fault, or what empties it and what it cannot read.

    So a work whose files are damaged, or gone, keeps nobody from opening another.
    """
    try:
        return dict(step.shown()), ""
    except (LoraSceneError, OSError) as error:
        drawn = (one for one in step.outputs if isinstance(one, (gr.HTML, gr.Gallery, gr.File)))
        return {one: gr.update(value=None) for one in drawn}, sentence(error)


def _as_sent(field: Any, update: Any) -> dict[str, Any]:
    """Return an update of a field as the browser's side takes it."""
    told = dict(update) if isinstance(update, dict) else gr.update(value=update)
    if "value" in told:
        value = field.postprocess(told["value"])
        told["value"] = value.model_dump() if hasattr(value, "model_dump") else value
    return told


def remark(text: str) -> None:
    """Tell a person something beside the result of a click."""
    told = _remarks.get()
    if told is not None:
        told.append(text)


def catch_warnings() -> None:
    """Let the package's warnings become remarks of the click that caused them."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, LoraSceneWarning) and _remarks.get() is not None:
            remark(str(message))
        else:
            shown(message, category, *rest, **named)

    warnings.showwarning = show
    warnings.filterwarnings("always", category=LoraSceneWarning)
