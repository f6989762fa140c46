"""Tiny random studios: a pipeline of each family with a random adapter in it."""

from __future__ import annotations

import functools

from lora_scene.creating.studio import AdapterChoice, Studio, assemble_studio
from tests import tiny
from tests.adapters import made

HANDLES = ("<bear>", "<bowl>")


@functools.cache
def studio(family: str = "sd1", n_vectors: int = 1) -> Studio:
    """Return a shared studio; tests must leave it as it was."""
    pipeline = tiny.pipeline(family)
    adapter = made.adapter(pipeline, family, handles=HANDLES, n_vectors=n_vectors)
    return assemble_studio(pipeline, [AdapterChoice(adapter)], name="tiny")


QUIET = "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"  # diffusers
