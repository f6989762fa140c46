from __future__ import annotations

import pytest
import torch

from lora_scene.creating.encoding import encode_prompts
from lora_scene.creating.token_attention import (
    MapReader,
    biased,
    cross_layers,
    grid_of,
    telling_layers,
    token_columns,
)
from lora_scene.errors import CreationError
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.size import Size
from tests import tiny
from tests.creating.studios import studio

PROMPT = "a photo of <bear> and <bowl>"


def run(one, z, text):
    conditions = None
    if text.pooled is not None:
        ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * len(z))
        conditions = {"text_embeds": text.pooled, "time_ids": ids}
    return one.backbone.unet(
        z, 500, encoder_hidden_states=text.states, added_cond_kwargs=conditions
    ).sample


def latents(b=1, rows=16, columns=16):
    return torch.randn(b, 4, rows, columns, generator=torch.Generator().manual_seed(0))


def test_columns_of_a_handle_of_several_vectors_are_found():
    assert token_columns(studio("sd1", n_vectors=3), PROMPT, "<bowl>") == [8, 9, 10]
    assert token_columns(studio(), PROMPT, "<bowl>") == [6]


def test_a_prompt_without_the_handle_is_refused():
    with pytest.raises(CreationError, match="does not name <bowl>"):
        token_columns(studio(), "a <bear>", "<bowl>")


def test_grids_follow_the_latents_halvings():
    assert grid_of(24 * 16, Size(24, 16)) == (24, 16)
    assert grid_of(6 * 4, Size(24, 16)) == (6, 4)
    assert grid_of(4 * 2, Size(13, 7)) == (4, 2)
    with pytest.raises(ValueError, match="no level"):
        grid_of(7, Size(16, 16))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_maps_are_those_that_training_reads(family):
    one = studio(family)
    text = encode_prompts(one, [PROMPT] * 2, [""] * 2).positive
    columns = [[token_columns(one, PROMPT, handle) for handle in ("<bear>", "<bowl>")]] * 2
    n_tokens = text.states.shape[1]
    recorder = AttentionRecorder(one.backbone.unet)
    reader = MapReader(one.backbone.unet, columns, n_tokens=n_tokens, latents=Size(16, 16))
    with torch.no_grad(), recorder.attached(), reader.attached():
        with recorder.recording(Columns.of(columns, n_tokens), latents(2)):
            run(one, latents(2), text)
        expected = torch.stack(recorder.maps())
    with torch.no_grad(), reader.attached():
        run(one, latents(2), text)
        read = reader.take()
    torch.testing.assert_close(read, expected)
    assert recorder.n_layers == len(telling_layers(one.backbone.unet))


def test_maps_of_a_wide_picture_are_wide():
    one = studio()
    text = encode_prompts(one, [PROMPT], [""]).positive
    columns = [[token_columns(one, PROMPT, "<bear>")]]
    reader = MapReader(one.backbone.unet, columns, n_tokens=24, latents=Size(32, 16))
    with torch.no_grad(), reader.attached():
        run(one, latents(1, 16, 32), text)
        assert reader.take().shape == (1, 1, 4, 8)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_bias_of_zero_changes_nothing_beyond_rounding(family):
    one = studio(family)
    text = encode_prompts(one, [PROMPT], [""]).positive
    with torch.no_grad():
        plain = run(one, latents(), text)
        with biased(one.backbone.unet, lambda g: torch.zeros(1, g.area, 24), Size(16, 16)):
            steered = run(one, latents(), text)
        after = run(one, latents(), text)
    torch.testing.assert_close(steered, plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(after, plain)


def test_a_token_biased_away_is_as_if_it_were_not_there():
    """Hiding a token equals cutting its row out of the encoded prompt."""
    one = studio()
    text = encode_prompts(one, [PROMPT], [""]).positive
    (column,) = token_columns(one, PROMPT, "<bear>")

    def hide(grid):
        bias = torch.zeros(1, grid.area, 24)
        bias[..., column] = -1e4
        return bias

    kept = [position for position in range(24) if position != column]
    with torch.no_grad():
        with biased(one.backbone.unet, hide, Size(16, 16)):
            hidden = run(one, latents(), text)
        cut = one.backbone.unet(latents(), 500, encoder_hidden_states=text.states[:, kept]).sample
    torch.testing.assert_close(hidden, cut, atol=1e-5, rtol=1e-5)


def test_negative_prompts_are_left_alone():
    one = studio()
    text = encode_prompts(one, [PROMPT], ["a red dog"])
    both = text.negative.append(text.positive)
    z = latents().repeat(2, 1, 1, 1)
    bias = torch.zeros(1, 1, 24).index_fill(2, torch.tensor([4]), -1e4)
    with torch.no_grad():
        plain = run(one, z, both)
        with biased(one.backbone.unet, lambda g: bias.expand(1, g.area, 24), Size(16, 16)):
            steered = run(one, z, both)
    torch.testing.assert_close(steered[0], plain[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(steered[1], plain[1], atol=1e-4)


def test_no_hook_is_left_behind():
    one = studio()
    reader = MapReader(one.backbone.unet, [[[4]]], n_tokens=24, latents=Size(16, 16))
    with (
        pytest.raises(RuntimeError, match="stop"),
        biased(one.backbone.unet, lambda g: torch.zeros(1), Size(16, 16)),
        reader.attached(),
    ):
        raise RuntimeError("stop")
    for layer in cross_layers(one.backbone.unet):
        assert not layer._forward_pre_hooks
        assert not layer.to_q._forward_hooks
        assert not layer.to_k._forward_hooks
