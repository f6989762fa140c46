from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lora_scene.learning.ledger import Ledger, kernels_of_gpus
from tests import tiny
from tests.allocated import allocated_peak

CASES = {  # latent cells: large enough to outweigh what kernels take inside themselves
    "sd2, checkpointed": ("sd2", True, 32),
    "sdxl, kept": ("sdxl", False, 32),
    "sdxl, checkpointed": ("sdxl", True, 64),
}


def step(unet, side: int, device: str):
    width = unet.config.cross_attention_dim
    text = torch.zeros(1, 24, width, device=device, requires_grad=True)
    z_t = torch.zeros(1, 4, side, side, device=device)
    t = torch.zeros(1, dtype=torch.long, device=device)
    conditions = None
    if unet.config.addition_embed_type:
        conditions = {
            "text_embeds": torch.zeros(1, 32, device=device),
            "time_ids": torch.zeros(1, 6, device=device),
        }

    def work() -> None:
        prediction = unet(z_t, t, text, added_cond_kwargs=conditions).sample
        torch.autograd.backward(prediction.square().mean())

    return work


@pytest.mark.parametrize("case", CASES)
def test_the_meta_device_predicts_the_allocators_peak_within_a_tenth(case, tmp_path):
    family, is_checkpointed, side = CASES[case]
    unet = tiny.pipeline(family).unet.requires_grad_(False).train()
    if is_checkpointed:
        unet.enable_gradient_checkpointing()
    measured = allocated_peak(step(unet, side, "cpu"), tmp_path / "trace.json")
    unet.to("meta")
    ledger = Ledger("meta")
    work = step(unet, side, "meta")
    held = ledger.hold([*unet.parameters(), *unet.buffers()])
    with kernels_of_gpus(), ledger:
        work()
    estimated = ledger.peak - held
    assert estimated == pytest.approx(measured, rel=0.1)


def test_a_tensor_counts_from_its_making_until_its_last_holder_goes():
    ledger = Ledger()
    with ledger:
        first = torch.zeros(1000)
        view = first[10:]
        assert ledger.live == 4000
        del first
        assert ledger.live == 4000
        del view
        assert ledger.live == 0
        torch.zeros(10)
    assert ledger.peak == 4000


def test_what_was_held_before_is_counted_once():
    ledger, kept = Ledger(), torch.zeros(100)
    assert ledger.hold([kept, kept[50:]]) == 400
    with ledger:
        kept.t()
    assert ledger.peak == 400


def test_repetition_under_checkpointing_sees_the_same_kernels_and_they_are_put_back():
    original = F.scaled_dot_product_attention
    states = torch.zeros(1, 2, 64, 8, device="meta", requires_grad=True)

    def attend(x):
        return F.scaled_dot_product_attention(x, x, x)

    ledger = Ledger("meta")
    ledger.hold([states])
    with kernels_of_gpus(), ledger:
        torch.autograd.backward(checkpoint(attend, states, use_reentrant=False).sum())
    assert ledger.peak < 64 * 64 * 2 * 4 * 2  # probabilities alone would take this twice over
    assert F.scaled_dot_product_attention is original


def test_another_thread_attends_and_multiplies_as_ever_meanwhile():
    states = torch.randn(1, 2, 16, 8)
    probabilities = (states @ states.mT / 8**0.5).softmax(dim=-1)

    def work() -> tuple[float, torch.dtype]:
        attended = F.scaled_dot_product_attention(states, states, states)
        wrong = (attended - probabilities @ states).abs().max().item()
        return wrong, F.linear(states, torch.eye(8)).dtype

    with kernels_of_gpus(torch.bfloat16), ThreadPoolExecutor(1) as other:
        wrong, dtype = other.submit(work).result()
        assert F.linear(states, torch.eye(8)).dtype == torch.bfloat16
    assert wrong < 1e-5, f"largest difference {wrong}"
    assert dtype == torch.float32


def test_a_second_thread_waits_and_both_put_back_what_there_was():
    original = F.scaled_dot_product_attention
    is_asking, is_in = threading.Event(), threading.Event()

    def second() -> None:
        is_asking.set()
        with kernels_of_gpus():
            is_in.set()

    with ThreadPoolExecutor(1) as other:
        with kernels_of_gpus():
            done = other.submit(second)
            assert is_asking.wait(60)
            assert not is_in.wait(0.1)
        done.result(60)
    assert is_in.is_set()
    assert F.scaled_dot_product_attention is original
