"""The eleven known defects of the published code, one test (or more) a defect, by its number.

 1  the prior could not be turned off
 2  a batch could not mix subset sizes
 3  every attention layer lost its memory-efficient kernel
 4  the attention loss had no gradient under gradient checkpointing
 5  a run resumed past the boundary never entered phase 2
 6  latents of 64x64, maps of 16x16, 0.18215 and epsilon were constants
 7  phase 2 let every vocabulary row drift
 8  weight decay acted on the new rows, the clip norm counted frozen ones
 9  an initializer of several pieces was cut to its first
10  masks were not checked
11  a photo that is not 512x512 failed late
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from PIL import Image

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import map_level
from lora_scene.errors import SceneError
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.learning.events import PhaseStarted, Saved, StepDone
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.optimizers import build_optimizers, clip_gradients, step_all
from lora_scene.recipe import Optimizer, Phase
from lora_scene.scenes.scene import Concept, Photo, Scene, load_scene
from tests import tiny
from tests.learning import made

LATENTS = torch.empty(2, 4, 16, 16)


def columns():
    return Columns.of([[[3], [5, 6]], [[4]]], 24)


def denoise(unet, width):
    noise = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 16, 16, generator=noise)
    text = torch.randn(2, 24, width, generator=noise).requires_grad_(True)
    return unet(z, torch.tensor([10, 10]), text).sample, text


@pytest.mark.parametrize("weight", [0, 1])
def test_01_prior_can_be_on_or_off(weight, bases, scene, tmp_path):
    events = []
    settings = made.recipe(
        bases["sd1"], f"prior.weight={weight}", "prior.n_images=2", "prior.n_steps=1"
    )
    made.run(scene, settings, tmp_path, listener=events.append)
    steps = [event for event in events if isinstance(event, StepDone)]
    losses = [event.losses for event in steps]
    for event in steps:  # while rows train alone, no prior picture can move them
        assert (event.losses["prior"] > 0) == (bool(weight) and event.phase == 2)
    for terms in losses:
        expected = terms["diffusion"] + 0.01 * terms["attention"] + weight * terms["prior"]
        assert terms["total"] == pytest.approx(expected, rel=1e-5)


def test_02_batch_may_mix_subset_sizes(scene):
    bench = made.bench(tiny.pipeline("sd1"), scene, made.recipe("unused"))
    batch = [bench.sample((1,)), bench.sample((2, 0), seed=1), bench.sample((0, 1, 2), seed=2)]
    with bench.objective() as objective, torch.no_grad():
        together = objective(batch).total
        apart = sum(objective([sample]).total for sample in batch) / 3
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("family", "n_expected"), [("sd1", 3), ("sd2", 3)])
def test_03_every_attention_layer_keeps_its_memory_efficient_kernel(
    family, n_expected, monkeypatch
):
    unet = tiny.unet(family, 32)
    n_layers = len(unet.attn_processors)
    processors = dict(unet.attn_processors)
    calls = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or kernel(*a, **k)
    )
    recorder = AttentionRecorder(unet)
    assert recorder.n_layers == n_expected  # one in the down block, two in the up block
    with recorder.attached(), recorder.recording(columns(), LATENTS):
        denoise(unet, 32)
    assert len(calls) == n_layers
    assert {k: id(v) for k, v in unet.attn_processors.items()} == {
        k: id(v) for k, v in processors.items()
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_04_attention_loss_pushes_under_gradient_checkpointing(checkpointing):
    torch.manual_seed(0)
    unet = tiny.unet("sd1", 32).requires_grad_(False).train()
    passes = []
    unet.up_blocks[1].attentions[0].transformer_blocks[0].attn2.to_q.register_forward_hook(
        lambda *_: passes.append(1)
    )
    if checkpointing:
        unet.enable_gradient_checkpointing()
    recorder = AttentionRecorder(unet)
    with recorder.attached():
        with recorder.recording(columns(), LATENTS):
            _, text = denoise(unet, 32)
        loss = sum(maps.square().sum() for maps in recorder.maps())
        (gradient,) = torch.autograd.grad(loss, text)
    assert len(passes) == (2 if checkpointing else 1), "nothing was recomputed"
    assert gradient.abs().max() > 1e-6


class StoppedError(Exception):
    """What the listener raises."""


def test_05_run_resumed_inside_phase_two_goes_on_there(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], "run.checkpoint_every=1")
    done = []

    def stop(event):
        if isinstance(event, StepDone):
            done.append((event.phase, event.step))
        if isinstance(event, Saved) and done == [(1, 1), (1, 2), (2, 1)]:
            raise StoppedError

    with pytest.raises(StoppedError):
        made.run(scene, settings, tmp_path, listener=stop)
    events = []
    result = made.run(scene, settings, tmp_path, listener=events.append)
    begun = [event for event in events if isinstance(event, PhaseStarted)]
    assert [(event.phase, event.first_step) for event in begun] == [(2, 1)]
    assert begun[0].n_parameters == result.adapter.n_parameters > 10_000


UNETS = {
    "sd": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


@pytest.mark.parametrize(
    ("kind", "pixels", "side", "n_layers"),
    [("sd", 512, 16, 5), ("sd", 768, 24, 5), ("sdxl", 1024, 32, 50), ("sdxl", 512, 16, 50)],
)
def test_06_maps_have_the_size_that_architecture_and_resolution_give(kind, pixels, side, n_layers):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[kind])
    recorder = AttentionRecorder(unet)
    assert recorder.level == map_level(unet.config)
    assert (-(-(pixels // 8) // 2**recorder.level), recorder.n_layers) == (side, n_layers)


@pytest.mark.parametrize("factor", [0.18215, 0.13025])
def test_06_latents_are_scaled_by_the_factor_of_the_vae(factor, scene):
    pipe = tiny.pipeline("sd1")
    pipe.vae.register_to_config(scaling_factor=factor)
    backbone = Backbone(pipe, name="tiny", resolution=tiny.RESOLUTION)
    moments = backbone.encode_picture(scene.photos[0].pixels)
    pixels = torch.from_numpy(scene.photos[0].pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
    torch.testing.assert_close(moments.mean, posterior.mean[0] * factor)
    torch.testing.assert_close(moments.deviation, posterior.std[0] * factor)


def test_06_target_is_the_noise_or_the_velocity(scene):
    z, eps, t = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2), torch.tensor([400])
    for family in ("sd1", "sd2"):
        backbone = Backbone(tiny.pipeline(family), name="tiny", resolution=tiny.RESOLUTION)
        kept = backbone.noise_scheduler.alphas_cumprod[400]
        velocity = kept.sqrt() * eps - (1 - kept).sqrt() * z
        expected = eps if family == "sd1" else velocity
        torch.testing.assert_close(backbone.target(z, eps, t), expected)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_07_no_row_of_the_vocabulary_wants_a_gradient_or_changes(family, scene):
    bench = made.bench(tiny.pipeline(family), scene, made.recipe("unused"))
    encoders = bench.backbone.text_encoders
    before = [encoder.get_input_embeddings().weight.clone() for encoder in encoders]
    with bench.objective() as objective:
        objective([bench.sample((0, 1, 2))]).total.backward()
    weights = [*(pair for two in made.factors(bench.backbone.unet).values() for pair in two)]
    phase = Phase(trains="lora", rows_lr=1.0, weights_lr=1.0)
    optimizers = build_optimizers(
        list(bench.table.tables), weights, Optimizer(name="adamw"), phase=phase, notice=print
    )
    clip_gradients(optimizers, scaler=None, max_norm=0.0)
    step_all(optimizers, scaler=None, is_finite=True)
    for encoder, matrix in zip(encoders, before, strict=True):
        lookup = encoder.get_input_embeddings()
        assert lookup.weight.grad is None
        assert torch.equal(lookup.weight, matrix)


def test_08_rows_have_no_weight_decay_and_adapters_have():
    rows, weights = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2, 3))
    settings = Optimizer(name="adamw", weight_decay=0.5)
    phase = Phase(trains="lora", rows_lr=0.1, weights_lr=0.1)
    optimizers = build_optimizers([rows], [weights], settings, phase=phase, notice=print)
    rows.grad, weights.grad = torch.zeros(2, 3), torch.zeros(2, 3)
    clip_gradients(optimizers, scaler=None, max_norm=0.0)
    step_all(optimizers, scaler=None, is_finite=True)
    assert torch.equal(rows, torch.ones(2, 3))
    torch.testing.assert_close(weights.detach(), torch.full((2, 3), 0.95))


def test_08_clip_norm_counts_only_what_is_trained():
    rows, frozen = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([rows], lr=1.0)
    rows.grad, frozen.grad = torch.tensor([0.5]), torch.tensor([1000.0])
    clip_gradients([optimizer], scaler=None, max_norm=1.0)
    step_all([optimizer], scaler=None, is_finite=True)
    assert rows.item() == -0.5, "the frozen gradient shrank the step"
    rows.grad = torch.tensor([4.0])
    clip_gradients([optimizer], scaler=None, max_norm=1.0)
    step_all([optimizer], scaler=None, is_finite=True)
    assert rows.item() == pytest.approx(-1.5), "the gradient was not clipped"


def test_09_every_piece_of_a_noun_counts_for_the_first_row(scene):
    pipe = tiny.pipeline("sdxl")
    backbone = Backbone(pipe, name="tiny", resolution=tiny.RESOLUTION)
    concepts = [Concept("<it>", "red bowl"), Concept("<odd>", "zebra")]
    table = HandleTable(backbone, concepts, generator=torch.Generator())
    for tokenizer, encoder, rows in zip(
        backbone.tokenizers, backbone.text_encoders, table.tables, strict=True
    ):
        matrix = encoder.get_input_embeddings().weight
        for concept, row in zip(concepts, rows, strict=True):
            pieces = tokenizer.tokenize(concept.noun)
            assert len(pieces) > 1
            known = [matrix[tokenizer.convert_tokens_to_ids(piece)] for piece in pieces]
            torch.testing.assert_close(row, sum(known) / len(known))


def write_scene(folder, photo, mask):
    folder.mkdir()
    Image.fromarray(photo).save(folder / "img.png")
    mask.save(folder / "mask0.png")
    return folder


def test_10_palette_mask_is_read_by_its_colours(tmp_path):
    inside = np.zeros((40, 40), dtype=np.uint8)
    inside[5:30, 10:35] = 1
    mask = Image.fromarray(inside).convert("P")
    mask.putpalette([0, 0, 0, 255, 255, 255] + [0] * 750)
    folder = write_scene(tmp_path / "s", np.zeros((40, 40, 3), dtype=np.uint8), mask)
    assert np.array_equal(load_scene(folder).photos[0].masks[0], inside.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [((40, 40), 0, "empty"), ((20, 40), 255, "size is not the photo's")],
)
def test_10_empty_or_wrong_sized_mask_is_refused(shape, value, said, tmp_path):
    mask = Image.fromarray(np.full(shape, value, dtype=np.uint8))
    folder = write_scene(tmp_path / "s", np.zeros((40, 40, 3), dtype=np.uint8), mask)
    with pytest.raises(SceneError, match=said):
        load_scene(folder)


def test_10_soft_edge_weighs_by_its_value_not_its_square(scene):
    photo = scene.photos[0]
    soft = Scene(scene.concepts, (Photo(photo.pixels, photo.masks * 0.5, ""),), "soft")
    losses = []
    for each in (scene, soft):
        bench = made.bench(tiny.pipeline("sd1"), each, made.recipe("unused"))
        sample = bench.sample((0,))
        with bench.objective() as objective, torch.no_grad():
            losses.append(objective([sample]).diffusion.item())
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(48, 96), (130, 70), (64, 64), (31, 33)])
def test_11_photo_of_any_size_is_framed_with_its_masks(shape, bases, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    masks = np.zeros((1, *shape), dtype=np.float32)
    masks[0, 4 : shape[0] // 2, 4 : shape[1] // 2] = 1
    scene = Scene((Concept("<it>", "bear"),), (Photo(pixels, masks, ""),), "odd")
    bench = made.bench(tiny.pipeline("sd1"), scene, made.recipe("unused"), with_lora=False)
    for variant in bench.variants:
        assert variant.moments.mean.shape == (4, 16, 16)
        assert variant.masks.shape == (1, 16, 16)
        assert variant.map_masks.shape == (1, 4, 4)
        assert variant.masks.any()
