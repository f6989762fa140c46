from __future__ import annotations

import dataclasses

from benchmarks.contenders import ours
from lora_scene.backbones.architectures import find_architecture
from lora_scene.learning import objective
from tests.learning import made


def test_ours_makes_the_trainer_s_own_step_with_the_base_s_prediction(bases, monkeypatch):
    asked = []
    whole = objective.Objective._held_to_base
    monkeypatch.setattr(
        objective.Objective,
        "_held_to_base",
        lambda self, *args: asked.append(args) or whole(self, *args),
    )
    settings = made.recipe(bases["sd1"], "base.dtype=fp32", name="sd15")
    tiny = find_architecture(bases["sd1"])
    words = tuple({**text, "vocab_size": 1000} for text in tiny.text_encoders)
    architecture = dataclasses.replace(tiny, text_encoders=words)
    step = ours(architecture, settings, phase=2, n_concepts=2, device="cpu")
    step()
    step()
    assert len(asked) == 2
