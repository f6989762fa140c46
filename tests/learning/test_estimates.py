from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from lora_scene.backbones.architectures import find_architecture
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import DTYPES, resolve_dtype
from lora_scene.errors import RecipeError
from lora_scene.learning.estimates import MemoryEstimate, estimate_memory
from lora_scene.learning.lora import add_lora
from lora_scene.learning.optimizers import build_optimizers
from lora_scene.learning.simulation import CONTEXT, PhaseEstimate, state_bytes
from lora_scene.recipe import Optimizer, Phase
from lora_scene.size import Size
from tests import tiny
from tests.learning import made


def estimated(bases, *overrides: str, family: str = "sd1", n_concepts: int = 2):
    settings = made.recipe(bases[family], "base.dtype=fp32", *overrides)
    return estimate_memory(find_architecture(bases[family]), settings, n_concepts=n_concepts)


@pytest.fixture(scope="module")
def plain(bases) -> MemoryEstimate:
    return estimated(bases)


def test_weights_rows_and_states_are_counted_exactly(plain):
    estimate = plain
    names = [phase.name for phase in estimate.phases]
    assert names == ["encode", "phase 1", "phase 2"]
    pipeline = tiny.pipeline("sd1")
    backbone = Backbone(pipeline, name="tiny", resolution=tiny.RESOLUTION)
    first, second = estimate.phases[1].parts, estimate.phases[2].parts
    assert first["UNet"] == sum(p.numel() * 4 for p in pipeline.unet.parameters())
    width = pipeline.text_encoder.config.hidden_size
    assert first["rows"] == first["gradients"] == 2 * width * 4
    lora = sum(p.numel() for p in add_lora(backbone, made.recipe("sd1").lora))
    assert second["trained weights"] == 4 * lora
    assert second["optimizer states"] == 8 * (lora + 2 * width)
    assert estimate.peak_bytes == max(phase.peak_bytes for phase in estimate.phases)


def test_pictures_on_the_way_are_decoded_beside_what_trains(bases, plain):
    *same, samples = estimated(bases, "run.sample_every=1").phases
    assert tuple(same) == plain.phases
    kept = plain.phases[-1].parts
    beside = ("UNet", "rows", "trained weights", "optimizer states")
    assert {name: samples.parts[name] for name in beside} == {name: kept[name] for name in beside}
    vae = tiny.pipeline("sd1").vae
    assert samples.parts["VAE"] == sum(p.numel() * 4 for p in vae.parameters())


def test_the_largest_of_the_photos_shapes_is_counted(bases, plain):
    settings = made.recipe(bases["sd1"], "base.dtype=fp32", "base.shape=photo")
    architecture = find_architecture(bases["sd1"])
    photos = [Size(500, 500), Size(640, 960)]
    wide = estimate_memory(architecture, settings, n_concepts=2, photos=photos)
    assert (plain.size, wide.size) == ((64, 64), (64, 96))
    for number in (1, 2):
        small, large = (one.phases[number].parts["activations"] for one in (plain, wide))
        assert 1.2 < large / small < 1.6  # half as many cells more, and texts as before


@pytest.mark.parametrize(
    ("switch", "part"),
    [
        ("base.quantization=nf4", "UNet"),
        ("base.quantization=fp8", "UNet"),
        ("base.gradient_checkpointing=true", "activations"),
        ("optimizer.name=adamw8bit", "optimizer states"),
    ],
)
def test_every_switch_saves_where_it_should(bases, plain, switch, part):
    before = plain.phases[-1].parts
    after = estimated(bases, "phase1.steps=0", *switch.split()).phases[-1].parts
    assert after[part] < before[part]


def test_the_vocabulary_is_never_among_the_gradients_and_full_training_costs_far_more(bases, plain):
    lora = plain.phases[-1].parts
    full = estimated(bases, "phase1.steps=0", "phase2.trains=full").phases[-1].parts
    assert full["gradients"] > 5 * lora["gradients"]
    assert full["trained weights"] < sum(
        p.numel() * 4
        for part in (tiny.pipeline("sd1").unet, tiny.pipeline("sd1").text_encoder)
        for p in part.parameters()
    )


def test_ten_handles_cost_about_what_one_does(bases):
    steps = "phase2.steps=0"
    one, ten = (estimated(bases, steps, family="sdxl", n_concepts=n).peak_bytes for n in (1, 10))
    assert ten == pytest.approx(one, rel=0.02)


def test_the_prior_adds_a_phase_and_its_pictures_to_the_batch(bases, plain):
    prior = estimated(bases, "prior.weight=1")
    assert [phase.name for phase in prior.phases] == ["encode", "prior", "phase 1", "phase 2"]
    assert prior.phases[-1].parts["activations"] > 1.5 * plain.phases[-1].parts["activations"]


def test_grounds_are_drawn_before_and_leave_the_batch_as_it_is(bases, plain):
    found = estimated(bases, "grounds.prob=1")
    before = [phase.name for phase in found.phases[:-2]]
    assert before == ["encode", "colours", "grounds"]
    assert found.phases[-1].parts == plain.phases[-1].parts
    all_far = estimated(bases, "grounds.prob=1", "grounds.far=0")
    assert [phase.name for phase in all_far.phases[:-2]] == ["encode", "grounds"]
    decoding = {"UNet", "text encoders", "VAE", "VAE activations"}
    assert decoding <= set(found.phases[1].parts)


@pytest.mark.parametrize(
    "name", ["adamw", "adamw8bit", "lion8bit", "schedulefree", "adafactor", "prodigy"]
)
def test_the_states_of_an_optimizer_are_those_that_it_makes(name):
    weights = [torch.nn.Parameter(torch.ones(64, 128)), torch.nn.Parameter(torch.ones(16, 8))]
    settings = Optimizer(name=name)
    phase = Phase(trains="lora", rows_lr=0.0, weights_lr=1e-4)
    (optimizer,) = build_optimizers([], weights, settings, phase=phase, notice=print)
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    kept = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    maps = {id(t) for t in kept if t.numel() == 256 and name.endswith("8bit")}  # shared tables
    found = sum(t.numel() * t.element_size() for t in kept if t.numel() > 1 and id(t) not in maps)
    assert state_bytes(weights, settings) == pytest.approx(found, rel=0.02)


def test_a_recipe_that_trains_nothing_has_no_estimate(bases):
    with pytest.raises(RecipeError, match="nothing would be trained"):
        estimated(bases, "phase1.steps=0", "phase2.steps=0")


@pytest.mark.parametrize(
    ("major", "dtype", "vae_bytes"),
    [(7, "fp16", 4), (8, "bf16", 2), (None, "bf16", 2)],  # T4 and V100; A100; no card
)
def test_auto_counts_the_dtype_that_training_takes_on_the_card(
    bases, monkeypatch, major, dtype, vae_bytes
):
    """NVIDIA's tables: bf16 from compute capability 8.0 on. In fp16 the VAE is in 32 bits."""
    properties = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: major is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    steps = ("base.dtype=auto", "phase1.steps=0")
    estimate = estimated(bases, *steps, family="sdxl")
    assert (estimate.dtype, estimate.is_dtype_assumed) == (dtype, major is None)
    encode, train = (phase.parts for phase in estimate.phases)
    pipeline = tiny.pipeline("sdxl")
    assert train["UNet"] == 2 * sum(p.numel() for p in pipeline.unet.parameters())
    assert encode["VAE"] == vae_bytes * sum(p.numel() for p in pipeline.vae.parameters())
    if major is not None:
        assert resolve_dtype("auto", "cuda:0") == DTYPES[dtype]  # what training asks


def test_a_card_has_to_hold_cuda_itself_too():
    def card(size: int) -> int | None:
        phase = PhaseEstimate("phase 1", {"UNet": size})
        return MemoryEstimate("sdxl", "sdxl", 1024, Size(1024, 1024), "bf16", "none", (phase,)).card

    assert card(6 * 2**30 - CONTEXT) == 6
    assert card(6 * 2**30 - CONTEXT + 1) == 8
    assert card(2**40) is None
