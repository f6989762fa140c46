"""What the base draws before the first step, and what is refused before it draws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lora_scene.errors import SceneError
from lora_scene.learning import base_pictures
from lora_scene.learning.events import Notice
from tests.learning import made

PRIOR = ("prior.weight=1", "prior.n_images=2", "prior.n_steps=1")
CUT = "far " * 80
TOO_LONG = "a prompt is too long"


@pytest.fixture
def drawn(monkeypatch):
    """Return the prompts of all pictures that the base draws."""
    prompts, draw = [], base_pictures._draw
    monkeypatch.setattr(
        base_pictures,
        "_draw",
        lambda backbone, prompt, *given, **more: (
            prompts.append(prompt) or draw(backbone, prompt, *given, **more)
        ),
    )
    return prompts


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([f"handles.templates=['{{}}', '{CUT}{{}}']"], "handles.templates"),
        ([f"prior.prompts=['a {{}}', 'a {{}} {CUT}']", "prior.n_images=4"], "prior.prompts"),
        (["grounds.far=0", f"grounds.phrases=['{CUT}']"], "grounds.phrases"),
        (["grounds.far=0", f"grounds.prompts=['{CUT}']"], "grounds.prompts"),
        (["run.sample_every=1", f"run.sample_prompts=['<bear> {CUT}']"], "run.sample_prompts"),
    ],
)
def test_what_would_be_cut_is_refused_before_the_base_draws(
    given, where, drawn, bases, scene, tmp_path
):
    settings = made.recipe(bases["sd1"], *PRIOR, *made.ON_GROUNDS, "grounds.far=1e-6", *given)
    with pytest.raises(SceneError, match=f"{where}: {TOO_LONG}"):
        made.run(scene, settings, tmp_path)
    assert drawn == []


def test_the_last_noun_s_prompt_is_looked_at_before_the_first_noun_is_drawn(
    drawn, bases, scene, tmp_path
):
    things = (scene.concepts[0], replace(scene.concepts[1], noun="bowl " * 30), scene.concepts[2])
    settings = made.recipe(bases["sd1"], *PRIOR, *made.ON_GROUNDS, "prior.prompts=['a thing']")
    with pytest.raises(SceneError, match=rf"{TOO_LONG}(?s:.*)grounds.far=0"):
        made.run(replace(scene, concepts=things), settings, tmp_path)
    assert drawn == []


def test_of_what_is_refused_for_far_things_the_nouns_alone_were_drawn(
    drawn, bases, scene, tmp_path
):
    long = ("grounds.far=1e-6", f"grounds.phrases=['{CUT}']")
    settings = made.recipe(bases["sd1"], *PRIOR, *made.ON_GROUNDS, *long)
    with pytest.raises(SceneError, match=f"grounds.phrases: {TOO_LONG}"):
        made.run(scene, settings, tmp_path)
    assert drawn == ["bear", "red bowl"]


@pytest.mark.parametrize(
    ("given", "n_pictures"),
    [
        ({"steps": (1, 0)}, 0),
        ({"steps": (1, 0), "more": ["prior.prompts=['a {}', '<bear>']"]}, 2),
        ({"steps": (1, 1)}, 2),
        ({"steps": (1, 1), "more": ["phase2.trains=rows"]}, 0),
    ],
)
def test_a_prior_that_moves_nothing_is_not_drawn_and_that_is_told(
    given, n_pictures, drawn, bases, scene, tmp_path
):
    settings = made.recipe(bases["sd1"], *PRIOR, *given.get("more", ()), steps=given["steps"])
    told = []
    made.run(scene, settings, tmp_path, listener=told.append)
    assert len(drawn) == n_pictures
    said = [one.text for one in told if isinstance(one, Notice)]
    assert any("the prior draws nothing: rows alone" in one for one in said) == (not n_pictures)
