import math

import torch

from benchmarks.mini_world.base import new_denoiser
from benchmarks.mini_world.binding import binding_loss, recorded_maps


def test_the_loss_is_the_log_of_the_right_nouns_share() -> None:
    maps = torch.full((1, 4, 3), 0.1)
    maps[0, :, 1], maps[0, :, 2] = 0.3, 0.6
    masks = torch.zeros(1, 2, 2, 2)
    masks[0, 0, 0] = 1.0
    masks[0, 1, 1] = 1.0
    owners = torch.tensor([[[False, True, False], [False, False, True]]])
    expected = -(math.log(0.3 / 0.9) + math.log(0.6 / 0.9)) / 2
    assert abs(binding_loss([maps], masks, owners).item() - expected) < 1e-4


def test_a_lone_noun_and_an_empty_caption_cost_nothing() -> None:
    maps = torch.rand(2, 4, 3)
    masks = torch.ones(2, 1, 2, 2)
    owners = torch.tensor([[[False, True, False]], [[False, False, False]]])
    assert abs(binding_loss([maps], masks, owners).item()) < 1e-4


def test_recording_changes_no_prediction_and_is_undone() -> None:
    torch.manual_seed(0)
    unet = new_denoiser(20, (8, 16, 16)).unet.eval()
    before = dict(unet.attn_processors)
    inputs = torch.randn(2, 12, 16, 16), torch.tensor([10, 900]), torch.randn(2, 5, 128)
    with torch.no_grad():
        plain = unet(*inputs).sample
        with recorded_maps(unet) as maps:
            recorded = unet(*inputs).sample
    assert (plain - recorded).abs().max() < 1e-5
    assert [tuple(item.shape) for item in maps] == [(2, 64, 5)] * 3
    assert torch.allclose(maps[0].sum(-1), torch.ones(2, 64), atol=1e-5)
    assert unet.attn_processors == before
