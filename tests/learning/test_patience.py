"""When a run has stopped moving, from its looks alone."""

from __future__ import annotations

import pytest

from lora_scene.learning.patience import has_no_news, has_stalled
from lora_scene.recipe import load_recipe


@pytest.mark.parametrize(
    ("values", "is_loss", "expected"),
    [
        ([(0, 1.0), (10, 0.5), (20, 0.499), (30, 0.498)], True, True),
        ([(0, 1.0), (10, 0.5), (20, 0.499), (30, 0.4)], True, False),
        ([(0, 0.1), (10, 0.5), (20, 0.505), (30, 0.4)], False, True),
        ([(0, 0.1), (10, 0.5), (20, 0.52), (30, 0.4)], False, False),
        ([(0, 1.0), (10, 1.0)], True, False),
        ([], True, False),
    ],
)
def test_nothing_moved_is_told_from_the_best_before_and_since(values, is_loss, expected):
    assert has_stalled(values, 20, is_loss=is_loss) is expected


def test_phase_2_alone_has_patience_and_needs_both_loss_and_attention_to_rest():
    def looks(phase, loss, fit):
        return [
            {"phase": phase, "step": step, "loss": loss, "ious": {"<a>": fit * step}}
            for step in range(0, 50, 10)
        ]

    settings = load_recipe("mini", ["run.watch=4", "run.patience=20"])
    assert has_no_news(looks(2, 1.0, 0.0), settings)
    assert not has_no_news(looks(1, 1.0, 0.0), settings)
    assert not has_no_news(looks(2, 1.0, 0.01), settings), "attention moves"
    assert not has_no_news(looks(2, 1.0, 0.0), load_recipe("mini", ["run.watch=4"]))
