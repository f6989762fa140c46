"""Tiny random studios: a pipeline of each family with a random adapter in it."""

from __future__ import annotations

import functools
from typing import Any

from lora_scene.creating.choices import AdapterChoice, Adapters
from lora_scene.creating.studio import Studio, read_cast
from tests import tiny
from tests.adapters import made

HANDLES = ("<bear>", "<bowl>")


def assemble_studio(pipeline: Any, adapters: Adapters = (), *, name: str = "pipeline") -> Studio:
    """Load adapters into a pipeline that is already there."""
    return read_cast(adapters).assembled(pipeline, name=name)


@functools.cache
def studio(family: str = "sd1", n_vectors: int = 1) -> Studio:
    """Return a shared studio; tests must leave it as it was."""
    pipeline = tiny.pipeline(family)
    adapter = made.adapter(pipeline, family, handles=HANDLES, n_vectors=n_vectors)
    return assemble_studio(pipeline, [AdapterChoice(adapter)], name="tiny")


QUIET = "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"  # diffusers
