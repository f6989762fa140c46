from __future__ import annotations

import pytest
import torch

from lora_scene.backbones.backbone import Backbone, Moments, TextEncoding
from lora_scene.backbones.families import FAMILIES, identify, map_level
from lora_scene.backbones.fitness import check_trainable
from lora_scene.backbones.sources import is_same_base
from lora_scene.errors import BackboneError
from lora_scene.recipe.settings import Base
from lora_scene.size import Size
from tests import tiny


def backbone(family="sd1", **options):
    return Backbone(tiny.pipeline(family), name="tiny", **{"resolution": 64, **options})


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_family_is_known_from_the_unet(family):
    assert identify(tiny.unet(family, 48 if family == "sdxl" else 32).config) is FAMILIES[family]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_channels": 9}, "inpainting"),
        ({"in_channels": 8}, "instruct-pix2pix"),
        ({"addition_embed_type": "image"}, "unknown family"),
        ({"encoder_hid_dim_type": "text_image_proj"}, "unknown family"),
    ],
)
def test_unet_with_foreign_inputs_is_refused(change, said):
    with pytest.raises(BackboneError, match=said):
        identify(dict(tiny.unet("sd1", 32).config) | change)


def test_unet_without_cross_attention_has_no_maps():
    with pytest.raises(BackboneError, match="no cross-attention"):
        map_level({"down_block_types": ("DownBlock2D", "DownBlock2D")})


def test_odd_latents_have_maps_rounded_up_as_convolutions_round():
    canvas = backbone("sd1").canvas()
    assert canvas.maps(Size(65 * 4, 130 * 4)) == (17, 33)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_sizes_come_from_the_configurations(family):
    found = backbone(family, resolution=0)
    assert found.vae_factor == 4
    assert found.resolution == 64
    assert (found.canvas().latents(Size(64, 96)), found.latent_channels) == ((16, 24), 4)
    assert found.n_timesteps == 1000
    assert found.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")


@pytest.mark.parametrize(("family", "multiple"), [("sd1", 32), ("sdxl", 16)])
def test_size_that_does_not_divide_is_refused_with_the_multiple(family, multiple):
    assert backbone(family, resolution=multiple * 3).multiple == multiple
    with pytest.raises(BackboneError, match=f"a multiple of {multiple} pixels"):
        backbone(family, resolution=multiple * 3 + 8)


def test_a_base_s_own_square_is_read_from_both_its_sides():
    pipe = tiny.pipeline("sd1")
    pipe.unet.register_to_config(sample_size=[16, 16])
    assert Backbone(pipe, name="tiny").resolution == 16 * 4, "the VAE halves twice"
    assert check_trainable(Backbone(pipe, name="tiny", resolution=64), Base()) == ()


@pytest.mark.parametrize("size", [[16, 24], 0, None])
@pytest.mark.parametrize("resolution", [0, 64])
def test_a_base_that_tells_no_square_of_its_own_is_refused(size, resolution):
    pipe = tiny.pipeline("sd1")
    pipe.unet.register_to_config(sample_size=size)
    with pytest.raises(BackboneError, match="does not tell the square"):
        Backbone(pipe, name="tiny", resolution=resolution)


def test_a_tokenizer_that_tells_no_length_has_its_encoder_s():
    pipe = tiny.pipeline("sdxl")
    expected = Backbone(tiny.pipeline("sdxl"), name="tiny").tokenize(["a photo of a bear"])
    pipe.tokenizer.model_max_length = pipe.tokenizer_2.model_max_length = int(1e30)
    found = Backbone(pipe, name="tiny").tokenize(["a photo of a bear"])
    assert all(map(torch.equal, found, expected))


def test_unknown_prediction_type_is_refused():
    pipe = tiny.pipeline("sd1")
    pipe.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(BackboneError, match="unknown prediction type"):
        Backbone(pipe, name="tiny", resolution=64)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_prompts_are_encoded_as_the_stock_pipeline_encodes_them(family):
    prompts = ["a photo of a bear", ""]
    found = backbone(family)
    with torch.no_grad():
        ours = found.encode_tokens(found.tokenize(prompts))
        theirs = tiny.pipeline(family).encode_prompt(
            prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    assert torch.equal(ours.states, theirs[0])
    assert (ours.pooled is None) == (family != "sdxl")
    if ours.pooled is not None:
        assert torch.equal(ours.pooled, theirs[2])


def test_noise_is_added_by_the_published_formula():
    found = backbone()
    z, eps, t = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([0, 700])
    kept = found.noise_scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(
        found.add_noise(z, eps, t), kept.sqrt() * z + (1 - kept).sqrt() * eps
    )


def test_moments_are_sampled_by_mean_and_deviation():
    moments = Moments(torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 0.5))
    assert torch.equal(moments.sample(torch.full((1, 2, 2), 2.0)), torch.full((1, 2, 2), 4.0))


def test_vae_with_means_and_deviations_of_its_own_is_normalised_by_them(scene):
    pipe = tiny.pipeline("sdxl")
    mean, std = [0.1, -0.2, 0.3, 0.0], [2.0, 1.0, 0.5, 4.0]
    pipe.vae.register_to_config(latents_mean=mean, latents_std=std)
    found = Backbone(pipe, name="tiny", resolution=64)
    plain = backbone("sdxl").encode_picture(scene.photos[0].pixels)
    moments = found.encode_picture(scene.photos[0].pixels)
    raw, factor = plain.mean / 0.18215, 0.18215
    for channel in range(4):
        expected = (raw[channel] - mean[channel]) * factor / std[channel]
        torch.testing.assert_close(moments.mean[channel], expected, rtol=1e-4, atol=1e-5)


def test_half_precision_vae_encodes_in_float32_and_is_put_back(scene):
    pipe = tiny.pipeline("sdxl").to(torch.float16)
    found = Backbone(pipe, name="tiny", resolution=64)
    moments = found.encode_picture(scene.photos[0].pixels)
    assert found.vae.dtype == torch.float16
    exact = backbone("sdxl").encode_picture(scene.photos[0].pixels)
    torch.testing.assert_close(moments.mean, exact.mean, rtol=0.02, atol=0.02)


def test_sdxl_is_told_the_size_it_is_trained_at():
    found = backbone("sdxl")
    seen = {}
    found.unet.register_forward_pre_hook(
        lambda _, __, kwargs: seen.update(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    text = TextEncoding(torch.randn(2, 24, 48), torch.randn(2, 32))
    with torch.no_grad():
        found.denoise(torch.randn(2, 4, 16, 16), torch.tensor([1, 2]), text)
    assert seen["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 2
    assert torch.equal(seen["text_embeds"], text.pooled)


def test_everything_is_frozen():
    found = backbone("sdxl")
    parts = (found.unet, found.vae, *found.text_encoders)
    assert not any(p.requires_grad for part in parts for p in part.parameters())


def test_content_hash_knows_every_weight():
    first, second = backbone(), backbone()
    assert first.content_hash() == second.content_hash()
    assert [len(part) for part in first.content_hash().split(".")] == [64, 64]
    second.unet.conv_out.bias.data[0] += 0.5
    assert first.content_hash() != second.content_hash()
    assert first.text_hash() == second.text_hash()
    for part in (second.text_encoders[0], second.vae):
        before = second.content_hash()
        next(part.parameters()).data[0] += 1
        assert second.content_hash() != before
        assert not is_same_base(second.content_hash(), before)
        assert is_same_base(second.content_hash(), before.partition(".")[0]), "an earlier file's"
    assert first.text_hash() != second.text_hash()
    assert not is_same_base(first.content_hash(), second.content_hash().partition(".")[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_content_hash_is_that_of_the_base_in_any_dtype(dtype):
    first, second = backbone(), backbone()
    for unet in (first.unet, second.unet):
        unet.to(torch.float16).float()  # as bases are published
    second.unet.to(dtype)
    assert first.content_hash() == second.content_hash()


def test_pairs_of_encodings_are_joined():
    one = TextEncoding(torch.ones(1, 2, 3), torch.ones(1, 4))
    both = one.append(TextEncoding(torch.zeros(2, 2, 3), torch.zeros(2, 4)))
    assert both.states.shape == (3, 2, 3)
    assert both.pooled.shape == (3, 4)
    assert TextEncoding(one.states).append(TextEncoding(one.states)).pooled is None
