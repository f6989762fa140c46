from __future__ import annotations

import pytest
import torch

from lora_scene.backbones.backbone import Backbone
from lora_scene.creating.drawing_memory import drawing_bytes, led
from lora_scene.creating.encoding import Text
from lora_scene.creating.requests import Sampling
from lora_scene.creating.sampling import Start, denoise
from lora_scene.creating.studio import Studio
from lora_scene.size import Size
from tests import tiny
from tests.allocated import allocated_peak

SIZE = Size(128, 128)  # large enough to outweigh what kernels take inside themselves


def test_the_peak_of_a_step_that_is_led_to_places_is_foreseen_within_a_tenth(tmp_path):
    pipeline = tiny.pipeline("sd1")
    backbone = Backbone(pipeline, name="tiny")
    cells = SIZE.cells(backbone.vae_factor)
    with torch.no_grad():
        empty = backbone.encode_tokens(backbone.tokenize([""]))
    text, noise = Text(empty, empty), torch.zeros(1, 4, *cells.rows_columns)
    with led(backbone, text, cells, 2) as guides:
        ask = {"sampling": Sampling(1, 7.5, "ddim"), "guides": guides}
        measured = allocated_peak(
            lambda: denoise(Studio(backbone, "", ()), text, Start(noise, ()), **ask),
            tmp_path / "trace.json",
        )
    pipeline.unet.to("meta")
    pipeline.text_encoder.to("meta")
    foreseen = drawing_bytes(backbone, SIZE, n_places=2)
    assert foreseen == pytest.approx(measured, rel=0.1)
