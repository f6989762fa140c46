"""What is not installed is refused in one kind of sentence, wherever it is needed."""

from __future__ import annotations

import importlib
import sys

import pytest
from torch import nn

from lora_scene.backbones.storage import store
from lora_scene.errors import LoraSceneError, SegmenterError
from lora_scene.extras import optional
from lora_scene.judging.distribution import read_pictures
from lora_scene.learning.optimizers import optimizer_library
from lora_scene.scenes.pictures import read_photo
from lora_scene.scenes.segmenters.catalog import open_segmenter
from lora_scene.workshop.study_analysis import analyse_study

UNET = nn.ModuleDict({"mid_block": nn.Sequential(nn.Linear(2, 2))})
SITES = {
    "prodigyopt": lambda photo: optimizer_library("prodigy"),
    "schedulefree": lambda photo: optimizer_library("schedulefree"),
    "bitsandbytes": lambda photo: store(UNET, "nf4", device="cpu"),
    "torchmetrics": lambda photo: read_pictures(photo.parent),
    "scipy": lambda photo: analyse_study(photo, [photo]),
    "scipy ": lambda photo: open_segmenter("maskformer"),
    "scipy  ": lambda photo: open_segmenter("mask2former"),
    "pillow-heif": lambda photo: read_photo(photo),
}


@pytest.mark.parametrize("package", SITES)
def test_a_library_that_is_absent_is_named_with_how_to_get_it(package, monkeypatch, tmp_path):
    (photo := tmp_path / "a.heic").write_bytes(b"any")
    name = package.strip()
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    for loaded in [m for m in sys.modules if m.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(LoraSceneError) as told:
        SITES[package](photo)
    assert f"{name} is not installed" in str(told.value)
    assert f"pip install {name}" in str(told.value)


def test_a_library_that_is_broken_is_told_apart_from_one_that_is_absent(monkeypatch):
    def fail(name):
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(SegmenterError, match="scipy does not load") as told:
        optional("scipy.stats", error=SegmenterError, where="here")
    assert "multiarray" in str(told.value)
