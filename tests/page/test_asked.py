from __future__ import annotations

import re

from lora_scene.backbones.architectures import find_architecture
from lora_scene.learning.estimates import estimate_memory
from lora_scene.page.asked import counted, memory_told
from lora_scene.recipe import load_recipe
from lora_scene.size import Size


def gigabytes(*settings, base="sd15", photos=()):
    said = memory_told("sd15-4gb", base, settings, 3, photos)
    return float(re.search(r"([\d.]+) GB", said)[1])


def test_the_estimate_counts_what_will_be_trained_pictures_on_the_way_too():
    """As `lora-scene estimate --recipe sd15-4gb --set ...` says."""
    recipe = load_recipe("sd15-4gb", ["run.sample_every=300"])
    expected = estimate_memory(find_architecture("sd15"), recipe).peak_bytes / 1e9
    found = gigabytes(*counted(400, 800, 300))
    assert found == round(expected, 1)
    assert found > gigabytes(*counted(400, 800, 0)), "the VAE decodes beside what trains"
    assert gigabytes(*counted(400, 800, 300), base="") == found, "an empty field means the recipe's"
    wide = (Size(2400, 1000),)
    shown = gigabytes(*counted(400, 800, 0), "base.shape=photo", photos=wide)
    recipe = load_recipe("sd15-4gb", ["base.shape=photo"])
    expected = estimate_memory(find_architecture("sd15"), recipe, photos=wide).peak_bytes / 1e9
    assert shown == round(expected, 1)
