from __future__ import annotations

import subprocess
import sys

import pytest

from lora_scene.errors import SegmenterError
from lora_scene.scenes.segmenters.catalog import CATALOG, open_lister, open_segmenter
from tests.scenes.segmenters.tiny_networks import save_grounding_dino, save_sam


def test_the_built_in_segmenter_is_the_default():
    assert open_segmenter().name == "grabcut"


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(SegmenterError, match=r"no segmenter 'clipsegg'(.|\n)*did you mean clipseg"):
        open_segmenter("clipsegg")


def test_a_segmenter_that_cannot_list_names_those_that_can():
    with pytest.raises(SegmenterError, match=r"grabcut cannot list(.|\n)*sam, sam2, maskformer"):
        open_lister("grabcut")


@pytest.mark.parametrize(("name", "weights"), [("grabcut", "model"), ("sam", "follower")])
def test_weights_of_another_segmenter_are_refused(name, weights):
    with pytest.raises(SegmenterError, match=f"some/sam: {name} takes no such weights"):
        open_segmenter(name, **{weights: "some/sam"})


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "grabcut"])
def test_missing_weights_are_told_for_every_network(name, tmp_path):
    with pytest.raises(SegmenterError, match=r"cannot be had(.|\n)*built-in"):
        open_segmenter(name, model=str(tmp_path / "none"))


def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SegmenterError, match=r"device nowhere: the segmenter cannot run there"):
        open_segmenter("sam", model=str(save_sam(tmp_path)), device="nowhere")


def test_grounding_dino_is_followed_by_sam(tmp_path):
    dino, sam = save_grounding_dino(tmp_path / "dino"), save_sam(tmp_path / "sam")
    opened = open_segmenter("grounding-dino", model=str(dino), follower=str(sam))
    assert opened.accepts == {"words"}
    assert opened._follower.name == "sam"


def test_the_built_in_segmenter_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from lora_scene.scenes.segmenters.catalog import open_segmenter\n"
        "open_segmenter(); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
