"""Each picture has the handles that it names emphasised, no other; pictures keep their order."""

from __future__ import annotations

import pytest

from benchmarks import emphasis
from lora_scene.creating.requests import Sampling
from lora_scene.judging.plans import Plan
from tests.creating import studios
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)
PLAN = Plan(("a photo of {} on grass",), "edges", (0, 1), Sampling(1, 3.0))


def test_what_a_prompt_names_is_emphasised(monkeypatch) -> None:
    drawn, weighed = [], []
    own, weigh = emphasis.draw_watched, emphasis.weigh

    def draw(studio, asked, **how):
        drawn.extend(asked)
        return own(studio, asked, **how)

    def look(cells, pictures, **how):
        weighed.extend(zip(cells, pictures, strict=True))
        return weigh(cells, pictures, **how)

    monkeypatch.setattr(emphasis, "draw_watched", draw)
    monkeypatch.setattr(emphasis, "weigh", look)
    scene, studio = fakes.scene(), studios.studio()
    for factor in (1.0, 1.5):
        drawn.clear()
        found = emphasis.drawn_with(studio, scene, fakes.judge(), plan=PLAN, factor=factor)
        assert set(found) == set(emphasis.KEPT)
        for one in drawn:
            named = [handle for handle in scene.handles if handle in one.prompt]
            wanted = {(handle, factor) for handle in named} if factor != 1 else set()
            assert set(one.control.emphases) == wanted
    for cell, picture in weighed:
        assert (picture.asked.prompt, picture.asked.seed) == (cell.asked.prompt, cell.asked.seed)
