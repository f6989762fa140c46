"""The maps that are recorded, and what recording leaves alone."""

from __future__ import annotations

import pytest
import torch

from lora_scene.learning.attention import AttentionRecorder, Columns
from tests import tiny


def denoise(unet, width, batch=2, seed=0):
    noise = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, 4, 16, 16, generator=noise)
    text = torch.randn(batch, 24, width, generator=noise).requires_grad_(True)
    return unet(z, torch.tensor([10] * batch), text).sample, text


COLUMNS = Columns.of([[[3], [5, 6]], [[4]]], 24)
LATENTS = torch.empty(2, 4, 16, 16)


def test_columns_of_a_handle_of_several_tokens_are_added():
    unet = tiny.unet("sd1", 32)
    recorder = AttentionRecorder(unet)
    split = Columns.of([[[5], [6]], [[4], [4]]], 24)
    with recorder.attached():
        with recorder.recording(split, LATENTS):
            denoise(unet, 32)
        apart = recorder.maps()[0]
        with recorder.recording(COLUMNS, LATENTS):
            denoise(unet, 32)
        first, second = recorder.maps()
    assert first.shape == (2, 4, 4)
    assert second.shape == (1, 4, 4)
    torch.testing.assert_close(first[1], apart.sum(dim=0))


def test_recording_changes_no_bit_of_the_prediction():
    unet = tiny.unet("sd1", 32).eval()
    plain, _ = denoise(unet, 32)
    recorder = AttentionRecorder(unet)
    with recorder.attached():
        idle, _ = denoise(unet, 32)
        with recorder.recording(COLUMNS, LATENTS):
            recorded, _ = denoise(unet, 32)
    assert torch.equal(plain, idle)
    assert torch.equal(plain, recorded)


def test_checkpointing_leaves_the_gradient_of_the_maps_as_it_is():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        unet = tiny.unet("sd1", 32).requires_grad_(False).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        recorder = AttentionRecorder(unet)
        with recorder.attached():
            with recorder.recording(COLUMNS, LATENTS):
                predicted, text = denoise(unet, 32)
            loss = predicted.square().mean() + sum(m.square().sum() for m in recorder.maps())
            gradients.append(torch.autograd.grad(loss, text)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


def test_recorder_listens_no_more_after_it_was_detached():
    unet = tiny.unet("sd1", 32)
    recorder = AttentionRecorder(unet)
    with pytest.raises(RuntimeError, match="on purpose"), recorder.attached():
        raise RuntimeError("on purpose")
    hooks = [m for m in unet.modules() if m._forward_hooks]
    assert not hooks


def test_maps_before_a_recorded_pass_are_refused():
    recorder = AttentionRecorder(tiny.unet("sd1", 32))
    with pytest.raises(RuntimeError, match="no forward pass was recorded"):
        recorder.maps()


def test_map_values_are_probabilities_in_low_precision_too():
    torch.manual_seed(0)
    unet = tiny.unet("sd1", 32)
    every = Columns.of([[list(range(24))], [list(range(24))]], 24)
    recorder = AttentionRecorder(unet)
    with recorder.attached(), torch.autocast("cpu", torch.bfloat16):
        with recorder.recording(every, LATENTS):
            denoise(unet, 32)
        found = recorder.maps()
    for maps in found:
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps, torch.ones_like(maps))
