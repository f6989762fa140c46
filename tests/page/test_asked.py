from __future__ import annotations

from types import SimpleNamespace

import pytest

from lora_scene.backbones.architectures import find_architecture
from lora_scene.learning import estimates
from lora_scene.page.asked import counted, memory_told, table_of
from lora_scene.recipe import load_recipe
from lora_scene.size import Size

WIDE = (Size(2400, 1000),)


@pytest.mark.parametrize(
    ("base", "settings", "photos"),
    [("", [], ()), ("sd15", ["base.shape=photo"], WIDE), ("sdxl", ["lora.rank=64"], ())],
)
def test_all_that_the_fields_say_is_estimated(base, settings, photos, monkeypatch):
    asked = []

    def estimated(architecture, recipe, **options):
        asked.append((architecture, recipe, options))
        return SimpleNamespace(peak_bytes=2.5e9, card=4)

    monkeypatch.setattr(estimates, "estimate_memory", estimated)
    said = memory_told("sd15-4gb", base, (*counted("sd15-4gb", 400, 800, 7), *settings), 2, photos)
    assert "2.5 GB at most on a GPU: fits a card of 4 GiB" in said
    named = find_architecture(base or load_recipe("sd15-4gb").base.model)
    recipe = load_recipe("sd15-4gb", [*counted("sd15-4gb", 400, 800, 7), *settings])
    assert asked == [(named, recipe, {"n_concepts": 2, "photos": photos})]


def test_draws_that_come_again_grow_with_the_sliders() -> None:
    settings = counted("sd15", 200, 4000, 0)
    recipe = load_recipe("sd15", settings)
    assert [(phase.steps, phase.draws) for phase in recipe.phases] == [(200, 100), (4000, 500)]
    assert not [key for key, _ in table_of(recipe) if key.endswith((".steps", ".draws"))]
    shipped = load_recipe("mini")
    same = counted("mini", shipped.phase1.steps, shipped.phase2.steps, shipped.run.sample_every)
    assert load_recipe("mini", same) == shipped
