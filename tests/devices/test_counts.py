"""The table of what a step asks for tells a step that asks the base from one that remembers."""

from __future__ import annotations

import torch

from lora_scene.backbones.architectures import ARCHITECTURES, meta_backbone
from tests.devices.absent import Counts


def test_a_kept_answer_saves_a_pass_through_the_unet(device: Counts) -> None:
    from benchmarks.counts import narrow, training

    counted = training(device, "sd15", 1)
    asking, kept = (counted[f"ours, {how}"] for how in ("asking the base", "its answer kept"))
    architecture = narrow(ARCHITECTURES["sd15"])
    unet = meta_backbone(architecture, dtype=torch.float32, resolution=64).unet
    idle = (torch.nn.Dropout, torch.nn.Identity)
    layers = [m for m in unet.modules() if not (list(m.children()) or isinstance(m, idle))]
    assert asking["kernels"] - kept["kernels"] >= len(layers)
    assert asking["uploaded"] > kept["uploaded"]
