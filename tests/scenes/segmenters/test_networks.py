from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_scene.errors import LoraSceneWarning, SegmenterError
from lora_scene.scenes.segmenters.clipseg import ClipSeg
from lora_scene.scenes.segmenters.grounding_dino import GroundingDino
from lora_scene.scenes.segmenters.networks import (
    detector_shape,
    load,
    reach_options,
    to_photo_size,
    to_values,
)
from lora_scene.scenes.segmenters.panoptic import Mask2Former, MaskFormer
from lora_scene.scenes.segmenters.sam import Sam, Sam2
from lora_scene.scenes.segmenters.sam3 import Sam3
from tests.scenes.segmenters.tiny_networks import (
    save_clipseg,
    save_grounding_dino,
    save_mask2former,
    save_maskformer,
    save_sam,
    save_sam2,
    save_sam3,
)


def test_values_are_normalised_and_resized():
    pixels = np.full((4, 6, 3), 51, np.uint8)  # 51 / 255 = 0.2
    mean, std = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.5, 0.25])
    values = to_values(pixels, (8, 8), mean=mean, std=std)
    assert values.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(values[0, :, 3, 3], [0.2, 0.0, -0.4], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((600, 800), (800, 1056)), ((100, 1000), (128, 1344)), ((800, 800), (800, 800))],
)
def test_a_detectors_input_is_a_multiple_of_32(shape, expected):
    assert detector_shape(shape) == expected


def test_logits_come_back_as_probabilities_at_photo_size():
    logits = torch.tensor([[[-100.0, 100.0]]])
    masks = to_photo_size(logits, (3, 8))
    assert masks.shape == (1, 3, 8)
    np.testing.assert_allclose(masks[0, :, :2], 0.0, atol=1e-6)
    np.testing.assert_allclose(masks[0, :, 6:], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("error", "options"),
    [(OSError("no route"), {"local_files_only": True}), (ValueError("not an id"), {}), (None, {})],
)
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, tmp_path, error, options):
    asked = []

    def model_info(self, name, *, timeout):
        asked.append((name, timeout))
        if error is not None:
            raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    assert reach_options("some/model") == options
    assert reach_options(tmp_path) == {}
    beside = {"adapter_kwargs": options} if options else {}  # transformers asks for a LoRA there
    assert reach_options("some/model", is_network=True) == {**options, **beside}
    assert asked == [("some/model", 10)] * 2


def test_missing_weights_name_the_built_in_way(tmp_path):
    from transformers import SamModel

    with pytest.raises(SegmenterError, match=r"weights cannot be had(.|\n)*built-in segmenter"):
        load(SamModel, str(tmp_path / "nowhere"))


def test_weights_of_another_kind_are_refused(tmp_path):
    from transformers import SamModel

    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SegmenterError, match="weights cannot be had"):
        load(SamModel, str(tmp_path))


def test_weights_that_are_not_in_the_files_are_told(tmp_path):
    folder = save_clipseg(tmp_path)
    kept = load_file(folder / "model.safetensors")
    lost = [key for key in kept if key.startswith("decoder.")]
    save_file({key: kept[key] for key in kept.keys() - lost}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.warns(LoraSceneWarning, match=f"{len(lost)} of its tensors .* decoder"):
        ClipSeg(str(folder))


def test_a_network_without_its_tokenizer_is_refused(tmp_path):
    folder = save_clipseg(tmp_path)
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(SegmenterError, match="it knows no words"):
        ClipSeg(str(folder))


class Trap:
    """Opens a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("save", "open_it"),
    [
        (save_sam, Sam),
        (save_sam2, Sam2),
        (save_clipseg, ClipSeg),
        (save_grounding_dino, lambda model: GroundingDino(model, follower=None)),
        (save_sam3, Sam3),
        (save_maskformer, MaskFormer),
        (save_mask2former, Mask2Former),
    ],
)
def test_no_pickle_is_read(tmp_path, save, open_it):
    folder = save(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(SegmenterError, match=r"weights cannot be had(.|\n)*safetensors"):
        open_it(str(folder))
    assert not (tmp_path / "sprung").exists()
