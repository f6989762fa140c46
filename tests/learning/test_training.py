"""Whole short runs: what they learn, what they leave alone, how they fail."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.metadata
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from lora_scene import load_adapter
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.gallery import last_samples
from lora_scene.backbones.backbone import SMALL_GUIDANCE, Backbone
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import (
    BackboneError,
    FileError,
    NonFiniteLossError,
    OutOfMemoryError,
    RecipeError,
    SceneError,
    TrainingError,
)
from lora_scene.files import write_text
from lora_scene.learning import objective, phases, prior, samples, skips, step
from lora_scene.learning.devices import memory_switches
from lora_scene.learning.events import Notice, PhaseEnded, PhaseStarted, Saved, StepDone
from lora_scene.learning.lineage import run_fingerprint
from lora_scene.learning.lora import lora_parameters
from lora_scene.picture_writing import write_picture
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import Concept, Photo, Scene
from lora_scene.size import Size
from tests import tiny
from tests.adapters import made as adapters
from tests.learning import made
from tests.recipe.test_recipe import IDLE, ROWS_ALONE

PROMPT = "a photo of <bear> and <bowl>"


def draw(pipe, prompt=PROMPT):
    return pipe(
        prompt,
        num_inference_steps=3,
        guidance_scale=SMALL_GUIDANCE,
        height=tiny.RESOLUTION,
        width=tiny.RESOLUTION,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]


def state(pipe):
    parts = ("unet", "text_encoder", "text_encoder_2", "vae")
    return {
        f"{part}.{key}": tensor.clone()
        for part in parts
        if getattr(pipe, part, None) is not None
        for key, tensor in getattr(pipe, part).state_dict().items()
    }


@pytest.fixture
def watched(monkeypatch):
    """Return the trainers that runs make, in order."""
    seen = []
    training = importlib.import_module("lora_scene.learning.training")

    class Watched(phases.Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            seen.append(self)

    monkeypatch.setattr(training, "Trainer", Watched)
    return seen


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_base_is_bit_identical_after_both_phases(family, bases, scene, tmp_path, watched):
    result = made.run(scene, made.recipe(bases[family]), tmp_path)
    before = state(load_pipeline(bases[family]))
    after = {
        key.replace(".base_layer", ""): tensor
        for key, tensor in state(watched[0].backbone.pipeline).items()
    }
    adapters = {key for key in after if ".lora_" in key}
    assert adapters
    assert after.keys() - adapters == before.keys()
    changed = [key for key, tensor in before.items() if not torch.equal(tensor, after[key])]
    assert not changed
    assert any(module.up.abs().max() > 0 for module in result.adapter.modules.values())


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_full_training_changes_the_weights_but_no_vocabulary_row(family, bases, scene, tmp_path):
    settings = made.recipe(
        bases[family], "phase2.trains=full", "phase2.weights_lr=1e-3", "phase2.rows_lr=1e-3"
    )
    result = made.run(scene, settings, tmp_path)
    assert not result.adapter.modules
    before = state(load_pipeline(bases[family]))
    tuned = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    after = state(tuned)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not [key for key in changed if "token_embedding" in key or key.startswith("vae.")]
    assert {key.partition(".")[0] for key in changed} == {
        "unet",
        *(p for p in ("text_encoder", "text_encoder_2") if getattr(tuned, p, None) is not None),
    }
    assert len(tuned.tokenizer) == len(tiny.tokenizer()), "handles belong to the adapter"
    (tmp_path / "pipeline" / "model_index.json").unlink()
    with pytest.raises(TrainingError, match="the whole model that this run trained is gone"):
        made.run(scene, settings, tmp_path)


def test_cross_kv_training_changes_only_keys_and_values_of_cross_attention(bases, scene, tmp_path):
    settings = made.recipe(
        bases["sd1"],
        "phase2.trains=full",
        "full.unet=cross_kv",
        "full.text_encoder=false",
        "phase2.weights_lr=1e-3",
    )
    made.run(scene, settings, tmp_path)
    before = state(load_pipeline(bases["sd1"]))
    after = state(DiffusionPipeline.from_pretrained(tmp_path / "pipeline", safety_checker=None))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for key in changed)


STRONG = ("phase1.rows_lr=0.05", "phase2.rows_lr=0.05", "phase2.weights_lr=0.05")
KINDS = {
    "plain": (),
    "alpha": ("lora.alpha=7", 'lora.targets=["to_q","to_v"]'),
    "text": ("lora.text_encoder_rank=2",),
    "vectors": ("handles.n_vectors=3",),
    "cross": ("lora.attention=cross",),
    "8-bit": ("optimizer.name=adamw8bit",),
}


def load_as_stock(pipe, folder, scene):
    """Load an adapter with nothing but diffusers' own calls."""
    pipe.load_lora_weights(folder)
    for concept in scene.concepts:
        rows = load_file(folder / "embeddings" / f"{concept.handle.strip('<>')}.safetensors")
        if "emb_params" in rows:
            pipe.load_textual_inversion(rows, token=concept.handle)
            continue
        for key, ending in (("clip_l", ""), ("clip_g", "_2")):
            pipe.load_textual_inversion(
                rows[key],
                token=concept.handle,
                text_encoder=getattr(pipe, f"text_encoder{ending}"),
                tokenizer=getattr(pipe, f"tokenizer{ending}"),
            )


@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd1", "plain"), ("sd2", "plain"), *(("sdxl", kind) for kind in KINDS)],
)
def test_trained_adapter_draws_in_a_stock_pipeline_what_training_drew(
    family, kind, bases, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "N_STEPS", 3)
    drawn = []
    monkeypatch.setattr(
        phases, "save_samples", lambda pictures, *_: drawn.append(pictures[0]) or [tmp_path]
    )
    settings = made.recipe(
        bases[family],
        *STRONG,
        *KINDS[kind],
        f'run.sample_prompts=["{PROMPT}"]',
        "run.sample_every=2",
        steps=(1, 2),
    )
    made.run(scene, settings, tmp_path)
    assert len(drawn) == 2, "before the first step, and after the last"
    ours = np.asarray(drawn[-1], dtype=np.float32)

    stock, loaded = tiny.pipeline(family), tiny.pipeline(family)
    assert np.abs(draw(stock, "a photo of a bear") * 255 - ours).max() > 8, "nothing to compare"
    load_as_stock(stock, tmp_path, scene)
    load_adapter(loaded, tmp_path)
    for pipe in (stock, loaded):
        assert np.abs(draw(pipe) * 255 - ours).max() <= 1.0  # of 255: what rounding costs


def test_legacy_eos_encoder_pools_in_training_as_in_a_stock_pipeline(scene):
    """CLIP with eos_token_id 2 pools at the highest id, which is a handle's, not the end's."""
    prompt = "a photo of <bowl> and <bear> in grass"
    encoded = {}
    for is_legacy in (True, False):
        pipe = tiny.pipeline("sdxl", legacy_eos=is_legacy)
        ready = made.bench(pipe, scene, made.recipe("unused"), with_lora=False)
        with ready.table.spliced(), torch.no_grad():
            encoded[is_legacy] = ready.backbone.encode_tokens(ready.backbone.tokenize([prompt]))
    assert not torch.allclose(encoded[True].pooled, encoded[False].pooled, atol=1e-3)

    stock = tiny.pipeline("sdxl", legacy_eos=True)
    for index, concept in enumerate(scene.concepts):
        for rows, ending in zip(ready.table.rows_of(index), ("", "_2"), strict=True):
            stock.load_textual_inversion(
                rows,
                token=concept.handle,
                text_encoder=getattr(stock, f"text_encoder{ending}"),
                tokenizer=getattr(stock, f"tokenizer{ending}"),
            )
    with torch.no_grad():
        states, _, pooled, _ = stock.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    torch.testing.assert_close(encoded[True].states, states, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded[True].pooled, pooled, rtol=0, atol=1e-6)


def poison(monkeypatch, term, from_call):
    """Let a term of the loss be NaN from some forward pass on."""
    whole = objective.Objective.__call__
    calls = []

    def call(self, *args):
        terms = whole(self, *args)
        calls.append(terms)
        if len(calls) < from_call:
            return terms
        return dataclasses.replace(terms, **{term: terms.total * float("nan")})

    monkeypatch.setattr(objective.Objective, "__call__", call)


@pytest.mark.parametrize("term", ["pairwise", "total"])
def test_nonfinite_loss_stops_and_names_phase_step_and_term(
    term, bases, scene, tmp_path, monkeypatch
):
    poison(monkeypatch, term, from_call=2)
    with pytest.raises(NonFiniteLossError, match=f"phase 2, step 1: the {term} loss") as caught:
        made.run(scene, made.recipe(bases["sd1"], steps=(1, 1)), tmp_path)
    assert str(tmp_path / "last_good") in str(caught.value)


def test_last_good_adapter_is_that_of_the_steps_before_the_bad_one(
    bases, scene, tmp_path, monkeypatch
):
    shorter = made.run(scene, made.recipe(bases["sd1"], steps=(2, 1)), tmp_path / "shorter")
    poison(monkeypatch, "diffusion", from_call=4)
    with pytest.raises(NonFiniteLossError):
        made.run(scene, made.recipe(bases["sd1"]), tmp_path / "poisoned")
    kept = read_adapter(tmp_path / "poisoned" / "last_good")
    assert kept.info.steps == (2, 1)
    numbers = {concept.handle: concept.rows[0] for concept in kept.concepts}
    expected = {concept.handle: concept.rows[0] for concept in shorter.adapter.concepts}
    made.assert_equal(numbers, expected)
    for key, module in shorter.adapter.modules.items():
        torch.testing.assert_close(kept.modules[key].up, module.folded().up, rtol=0, atol=0)


def explode(monkeypatch, at_call, *, ruins=False):
    """Let the gradients of one optimizer step be infinite, or what it moves."""
    whole, calls = step.clip_gradients, []

    def clip_gradients(optimizers, **options):
        calls.append(optimizers)
        if len(calls) == at_call:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    first = group["params"][0]
                    (first.data if ruins else first.grad).fill_(float("inf"))
        return whole(optimizers, **options)

    monkeypatch.setattr(step, "clip_gradients", clip_gradients)


@pytest.mark.parametrize(
    ("bad_phase", "ruins", "checkpoint_every", "kept_steps", "n_modules"),
    [
        (1, False, 1, (1, 0), 0),
        (2, False, 50, (2, 1), 80),
        (1, True, 1, (1, 0), 0),
        (2, True, 50, (2, 0), 0),
        (2, True, 1, (2, 1), 80),
    ],
)
def test_numbers_that_explode_without_a_bad_loss_are_never_kept(
    bad_phase, ruins, checkpoint_every, kept_steps, n_modules, bases, scene, tmp_path, monkeypatch
):
    """A gradient may be infinite under a finite loss, or a finite one too large for its rate."""
    explode(monkeypatch, at_call=2 * bad_phase, ruins=ruins)
    settings = made.recipe(bases["sd1"], f"run.checkpoint_every={checkpoint_every}")
    said = "a trained number" if ruins else "a gradient"
    with pytest.raises(NonFiniteLossError, match=f"phase {bad_phase}, step 2: {said}"):
        made.run(scene, settings, tmp_path)
    kept = read_adapter(tmp_path / "last_good")
    assert kept.info.steps == kept_steps
    assert len(kept.modules) == n_modules
    assert all(torch.isfinite(rows).all() for c in kept.concepts for rows in c.rows)
    assert all(torch.isfinite(module.up).all() for module in kept.modules.values())


def test_last_good_adapter_of_a_schedule_free_run_is_averaged(bases, scene, tmp_path, monkeypatch):
    pytest.importorskip("schedulefree")
    settings = ["optimizer.name=schedulefree", "phase2.schedule=constant", "run.checkpoint_every=1"]
    settings += ["phase2.weights_lr=1e-2"]
    shorter = made.run(scene, made.recipe(bases["sd1"], *settings, steps=(1, 2)), tmp_path / "two")
    explode(monkeypatch, at_call=4)
    with pytest.raises(NonFiniteLossError):
        made.run(scene, made.recipe(bases["sd1"], *settings, steps=(1, 3)), tmp_path / "three")
    kept = read_adapter(tmp_path / "three" / "last_good")
    for key, module in shorter.adapter.modules.items():
        torch.testing.assert_close(kept.modules[key].up, module.folded().up, rtol=0, atol=0)


def test_running_out_of_memory_says_what_would_help_in_order(bases, scene, tmp_path, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(objective.Objective, "__call__", exhausted)
    settings = made.recipe(bases["sd1"], "run.batch_size=4", "run.accumulation=2")
    with pytest.raises(OutOfMemoryError) as caught:
        made.run(scene, settings, tmp_path)
    said = str(caught.value)
    assert "CUDA out of memory" in said
    order = [
        "--set run.batch_size=1 --set run.accumulation=8",
        "--set base.gradient_checkpointing=true",
        "--set base.quantization=fp8",
        "--set optimizer.name=adamw8bit",
    ]
    places = [said.index(switch) for switch in order]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["paper", "full", "sdxl"])
def test_every_offered_memory_switch_is_a_valid_override(name):
    recipe = load_recipe(name, ["base.dtype=fp32", "run.batch_size=2", "prior.weight=1"])
    overrides = []
    for switch in memory_switches(recipe):
        overrides += [part.strip() for part in switch.split("--set ") if part.strip()]
        load_recipe(name, overrides)
    assert overrides
    assert not memory_switches(
        load_recipe(
            name,
            ["base.dtype=bf16", *overrides, *(["optimizer.name=pagedadamw8bit", "prior.weight=0"])],
        )
    )


def test_a_size_that_is_the_base_s_own_is_not_offered_to_be_made_larger():
    recipe = load_recipe("mini", ["base.resolution=0"])
    assert not [switch for switch in memory_switches(recipe) if "resolution" in switch]


def test_memory_switch_that_is_on_already_is_not_offered():
    recipe = load_recipe(
        "sdxl", ["base.quantization=nf4", "lora.rank=4", "optimizer.name=pagedadamw8bit"]
    )
    assert memory_switches(recipe) == ["--set base.resolution=512"]


def test_rows_alone_can_be_learnt(bases, scene, tmp_path):
    result = made.run(scene, made.recipe(bases["sdxl"], steps=(2, 0)), tmp_path)
    assert not result.adapter.modules
    assert result.adapter.info.steps == (2, 0)
    assert not (tmp_path / "pytorch_lora_weights.safetensors").exists()


def test_what_is_said_to_change_nothing_changes_nothing(bases, scene, tmp_path):
    alone = [*ROWS_ALONE, f"base.model={bases['sd1']}"]
    outs = [tmp_path / "plain", tmp_path / "idle"]
    idle = [one for one in IDLE if "steps" not in one]
    results = [
        made.run(scene, made.recipe(bases["sd1"], *own, steps=(3, 0)), out)
        for own, out in zip((alone, [*alone, *idle]), outs, strict=True)
    ]
    made.assert_equal(*map(made.numbers, results))


def test_phase_two_can_be_learnt_alone(bases, scene, tmp_path):
    events = []
    made.run(scene, made.recipe(bases["sd1"], steps=(0, 2)), tmp_path, listener=events.append)
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == [2]


def test_same_seed_gives_the_same_bytes_and_another_seed_others(bases, scene, tmp_path):
    runs = [
        made.run(
            scene, made.recipe(bases["sd1"], f"run.seed={seed}", steps=(1, 1)), tmp_path / str(i)
        )
        for i, seed in enumerate((3, 3, 4))
    ]
    made.assert_equal(made.numbers(runs[0]), made.numbers(runs[1]))
    with pytest.raises(AssertionError):
        made.assert_equal(made.numbers(runs[0]), made.numbers(runs[2]))
    files = [tmp_path / str(i) / "pytorch_lora_weights.safetensors" for i in (0, 1)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_callers_random_generator_is_left_as_it_was(bases, scene, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made.run(scene, made.recipe(bases["sd1"]), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_run_tells_its_listener_what_happens(bases, scene, tmp_path):
    events = []
    settings = made.recipe(
        bases["sd1"], "run.batch_size=2", "run.accumulation=3", "run.checkpoint_every=2"
    )
    result = made.run(scene, settings, tmp_path, listener=events.append)
    started = [event for event in events if isinstance(event, PhaseStarted)]
    assert [(e.phase, e.first_step, e.n_steps, e.images_per_step) for e in started] == [
        (1, 0, 2, 6),
        (2, 0, 2, 6),
    ]
    assert started[0].n_parameters == 3 * 32
    assert started[1].n_parameters == result.adapter.n_parameters == result.n_trained
    done = [event for event in events if isinstance(event, StepDone)]
    assert [(event.phase, event.step) for event in done] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for event in done:
        losses = event.losses
        expected = losses["diffusion"] + 0.01 * losses["attention"]
        assert losses["total"] == pytest.approx(expected, rel=1e-5)
    assert [event.what for event in events if isinstance(event, Saved)] == [
        "checkpoint",
        "checkpoint",
        "adapter",
    ]
    assert len([event for event in events if isinstance(event, PhaseEnded)]) == 2


def test_folder_holds_the_resolved_recipe_and_where_the_adapter_comes_from(bases, scene, tmp_path):
    settings = made.recipe(bases["sd2"])
    made.run(scene, settings, tmp_path)
    assert load_recipe(tmp_path / "recipe.toml") == settings
    info = read_adapter(tmp_path).info
    assert info.base_model == Path(bases["sd2"]).name
    assert str(Path(bases["sd2"]).parent) not in info.recipe_toml
    assert info.prediction_type == "v_prediction"
    assert info.resolution == tiny.RESOLUTION
    assert info.versions["torch"] == importlib.metadata.version("torch")
    summary = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert summary["handles"] == list(scene.handles)
    assert [f.name for f in (tmp_path / "checkpoint").iterdir()] == ["state.safetensors"]


def test_sample_pictures_are_drawn_before_and_after_the_steps(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "N_STEPS", 2)
    settings = made.recipe(
        bases["sd1"],
        "run.sample_every=2",
        "run.batch_size=3",
        "lora.dropout=0.5",
    )
    made.run(scene, settings, tmp_path)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"{step:05}-{n}.png" for step in (0, 2, 4) for n in range(4)] + ["sheet.png"]
    delivered = last_samples(tmp_path, read_adapter(tmp_path))
    assert [sample.path.name for sample in delivered] == [f"00004-{n}.png" for n in range(4)]
    assert delivered[0].prompt == f"a photo of {scene.handles[0]}"


def test_nothing_of_a_picture_s_decoding_stays_on_the_device(bases, scene, monkeypatch):
    bench = made.bench(tiny.pipeline("sd1"), scene, made.recipe(bases["sd1"]), with_lora=False)
    done, decode, move = [], samples.decode_latent, bench.backbone.vae.to

    def moved(place):
        done.append(f"VAE on {place}")
        return move(place)

    monkeypatch.setattr(bench.backbone.vae, "to", moved)
    monkeypatch.setattr(samples, "decode_latent", lambda *of: done.append("decoded") or decode(*of))
    monkeypatch.setattr(samples, "free_cached", lambda device: done.append(f"{device} freed"))
    monkeypatch.setattr(samples, "N_STEPS", 1)
    with bench.table.spliced():
        prompts, size = ["a <bear>", "a <bowl>"], Size(64, 64)
        samples.draw_samples(bench.backbone, bench.table, prompts, size=size, seed=0)
    assert done == [*["cpu freed", "VAE on cpu", "decoded", "VAE on cpu"] * 2, "cpu freed"]


def watched_draws(monkeypatch, *run) -> list[tuple]:
    """Train; return each step's prompt, timestep, noise and seed of dropout."""
    whole = objective.Objective.__call__
    seen = []

    def call(self, samples, *args):
        seen.append((samples[0].prompt, samples[0].t, samples[0].eps, torch.initial_seed()))
        return whole(self, samples, *args)

    monkeypatch.setattr(objective.Objective, "__call__", call)
    made.run(*run)
    return seen


def test_draws_come_again_after_so_many_steps_and_dropout_does_not(
    bases, scene, tmp_path, monkeypatch
):
    asked = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    settings = made.recipe(bases["sd1"], *asked, "phase2.draws=2", steps=(1, 5))
    phase2 = watched_draws(monkeypatch, scene, settings, tmp_path)[1:]
    assert len({seed for *_, seed in phase2}) == 5
    for number, (prompt, t, eps, _) in enumerate(phase2):
        assert (prompt, t) == phase2[number % 2][:2]
        assert torch.equal(eps, phase2[number % 2][2])
    assert not torch.equal(phase2[0][2], phase2[1][2])


def test_draws_are_always_new_where_the_base_is_not_asked(bases, scene, tmp_path, monkeypatch):
    settings = made.recipe(bases["sd1"], "phase2.draws=1", steps=(0, 3))
    noises = [eps for _, _, eps, _ in watched_draws(monkeypatch, scene, settings, tmp_path)]
    assert not torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_fingerprint_knows_scene_recipe_and_base(scene):
    recipe = load_recipe("paper")
    marks = {run_fingerprint(scene, recipe, "hash")}
    photo = scene.photos[0]
    masks = photo.masks.copy()
    masks[0, 0, 0] = 0.5
    marks.add(run_fingerprint(scene, recipe, "other"))
    marks.add(run_fingerprint(scene, load_recipe("sd15"), "hash"))
    marks.add(run_fingerprint(scene, load_recipe("paper", ["run.seed=1"]), "hash"))
    marks.add(
        run_fingerprint(
            dataclasses.replace(scene, photos=(Photo(photo.pixels, masks, ""),)), recipe, "hash"
        )
    )
    renamed = (Concept("<cub>", "bear"), *scene.concepts[1:])
    marks.add(run_fingerprint(dataclasses.replace(scene, concepts=renamed), recipe, "hash"))
    assert len(marks) == 6
    seldom = load_recipe("paper", ["run.checkpoint_every=7", "run.sample_every=3"])
    assert run_fingerprint(scene, seldom, "hash") in marks


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("base.dtype=fp16", "float16 cannot be trained on the CPU"),
        ("attention_loss.map_side=5", "expected: *4 or 8 or 16"),
        ('lora.targets=["to_q", "to_x"]', "not a linear layer(.|\n)*got: *to_x"),
        ('lora.targets=["to_out"]', "not a linear layer(.|\n)*to_out.0(.|\n)*got: *to_out"),
    ],
)
def test_setting_that_does_not_fit_the_base_is_refused_before_the_first_step(
    override, said, bases, scene, tmp_path
):
    told = []
    with pytest.raises(RecipeError, match=said):
        made.run(scene, made.recipe(bases["sd1"], override), tmp_path, listener=told.append)
    assert not any(isinstance(event, StepDone) for event in told)


@pytest.mark.parametrize("name", ["prodigy", "schedulefree"])
def test_missing_optimizer_is_missed_before_the_first_phase(
    name, bases, scene, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    settings = made.recipe(bases["sd1"], f"optimizer.name={name}")
    with pytest.raises(RecipeError, match="is not installed"):
        made.run(scene, settings, tmp_path, listener=told.append)
    assert not told


@pytest.mark.parametrize("trains", ["full", "lora"])
def test_samples_are_drawn_in_the_precision_that_trains(
    trains, bases, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "N_STEPS", 2)
    settings = made.recipe(
        bases["sd1"],
        f"phase2.trains={trains}",
        "phase2.weights_lr=1e-3",
        "base.dtype=bf16",
        "run.sample_every=2",
        'run.sample_prompts=["a"]',
    )
    made.run(scene, settings, tmp_path)
    assert len(list((tmp_path / "samples").glob("*-*.png"))) == 3


def test_samples_and_adapter_show_a_schedule_free_run_s_average(
    bases, scene, tmp_path, monkeypatch
):
    drawn = []

    def keep(backbone, table, prompts, *, size, seed):
        drawn.append([p.clone() for p in lora_parameters(backbone)])
        return []

    monkeypatch.setattr(phases, "draw_samples", keep)
    monkeypatch.setattr(phases, "save_samples", lambda *_: [])
    settings = ["optimizer.name=schedulefree", "phase2.weights_lr=1e-2"]
    watched = made.recipe(bases["sd1"], *settings, "run.sample_every=2", steps=(1, 4))
    result = made.run(scene, watched, tmp_path / "watched")
    ups = [module.up for module in result.adapter.modules.values()]
    last = [p for p in drawn[-1] if any(torch.equal(p.cpu(), up) for up in ups)]
    assert len(last) == len(ups)
    unseen = made.run(scene, made.recipe(bases["sd1"], *settings, steps=(1, 4)), tmp_path / "un")
    made.assert_equal(made.numbers(result), made.numbers(unseen))


def test_a_schedule_free_phase_leaves_its_average_to_the_next(bases, scene, tmp_path):
    kinds = ("phase1.trains=lora", "phase1.weights_lr=1e-2", "phase2.trains=rows")
    asked = ("optimizer.name=schedulefree", *kinds)
    alone, followed = (
        made.numbers(made.run(scene, made.recipe(bases["sd1"], *asked, steps=steps), tmp_path / d))
        for d, steps in (("alone", (4, 0)), ("followed", (4, 1)))
    )
    factors = [name for name in alone if name.endswith((" up", " down"))]
    assert factors
    made.assert_equal(*({name: one[name] for name in factors} for one in (alone, followed)))


def test_prompt_that_is_too_long_names_the_handle_that_was_cut(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], "handles.n_vectors=16")
    with pytest.raises(Exception, match="too long for the text encoder"):
        made.run(scene, settings, tmp_path)


def test_nouns_that_the_base_would_be_asked_for_in_part_are_refused(bases, scene, tmp_path):
    long = replace(scene.concepts[0], noun="bear " * 30)
    wordy = replace(scene, concepts=(long, *scene.concepts[1:]))
    made.run(wordy, made.recipe(bases["sd1"], steps=(1, 0)), tmp_path / "handles alone")
    held_to_base = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    for asked in (held_to_base, ("prior.weight=1",)):
        with pytest.raises(SceneError, match="too long for the text encoder"):
            made.run(wordy, made.recipe(bases["sd1"], *asked, steps=(1, 1)), tmp_path / "nouns")


def test_finer_maps_can_be_asked_for(bases, scene, tmp_path):
    made.run(scene, made.recipe(bases["sd1"], "attention_loss.map_side=8"), tmp_path)


@pytest.mark.parametrize("name", ["adamw8bit", "pagedadamw8bit", "prodigy", "schedulefree"])
def test_optimizer_moves_rows_and_adapters_and_says_nothing_on_stdout(
    name, bases, scene, tmp_path, capsys
):
    events = []
    settings = made.recipe(bases["sd1"], f"optimizer.name={name}", steps=(0, 1))
    result = made.run(scene, settings, tmp_path, listener=events.append)
    assert all(module.up.abs().max() > 0 for module in result.adapter.modules.values())
    said = notices(events)
    expected = {
        "pagedadamw8bit": ["paged memory needs CUDA; unpaged AdamW8bit takes its place on cpu"],
        "prodigy": [
            "prodigy finds its own rate; phase2.weights_lr=0.0001 is a factor on it, usually 1"
        ],
    }
    assert said == expected.get(name, [])
    assert capsys.readouterr().out == ""


def notices(events):
    """Return what was noted, but for the handles that a single step did not draw."""
    said = [event.text for event in events if isinstance(event, Notice)]
    return [text for text in said if not text.startswith("not learnt: ")]


def test_missing_bitsandbytes_is_said_aloud_and_replaced(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    events = []
    settings = made.recipe(bases["sd1"], "optimizer.name=adamw8bit", steps=(0, 1))
    made.run(scene, settings, tmp_path, listener=events.append)
    said = notices(events)
    assert len(said) == 1
    assert said[0].startswith("bitsandbytes does not load")
    assert said[0].endswith("AdamW with 32-bit state takes its place")


@pytest.mark.parametrize(
    ("quantization", "family"), [("nf4", "sdxl"), ("int8", "sd1"), ("fp8", "sdxl")]
)
def test_adapter_trained_on_a_low_bit_base_loads_on_the_full_one(
    quantization, family, bases, scene, tmp_path
):
    settings = made.recipe(
        bases[family],
        f"base.quantization={quantization}",
        "base.gradient_checkpointing=true",
        "lora.conv_rank=2",
        *STRONG,
    )
    result = made.run(scene, settings, tmp_path)
    assert all(module.up.abs().max() > 0 for module in result.adapter.modules.values())
    pipe = tiny.pipeline(family)
    assert result.adapter.info.base_hash == Backbone(pipe, name="full").content_hash()
    before = draw(pipe, "a photo of a bear")
    load_adapter(pipe, tmp_path, name="scene")
    layers = [name for name, _ in pipe.unet.named_modules() if name.endswith("lora_B.scene")]
    assert len(layers) == len(result.adapter.modules)
    after = draw(pipe)
    assert np.isfinite(after).all()
    assert np.abs(before - after).max() > 0.01


def test_bf16_base_trains_float32_parameters(bases, scene, tmp_path, watched):
    events = []
    settings = made.recipe(bases["sdxl"], "base.dtype=bf16", "lora.text_encoder_rank=2")
    result = made.run(scene, settings, tmp_path, listener=events.append)
    assert {p.dtype for p in watched[0].parameters()} == {torch.float32}
    assert watched[0].backbone.unet.conv_in.weight.dtype == torch.bfloat16
    exact = []
    made.run(
        scene,
        made.recipe(bases["sdxl"], "lora.text_encoder_rank=2"),
        tmp_path / "fp32",
        listener=exact.append,
    )
    for low, high in zip(events, exact, strict=True):
        if isinstance(low, StepDone):
            assert low.losses["total"] == pytest.approx(high.losses["total"], rel=0.05)
    ups = [m.up for key, m in result.adapter.modules.items() if key.startswith("unet.")]
    assert all(up.abs().max() > 0 for up in ups)


def fail_after_a_step(event):
    """Fail once a step is done."""
    if isinstance(event, StepDone):
        raise ZeroDivisionError


def test_an_adapter_never_lies_without_the_record_of_its_training(
    bases, scene, tmp_path, monkeypatch
):
    settings = made.recipe(bases["sd1"], "run.checkpoint_every=0", steps=(1, 0))
    with monkeypatch.context() as patched:
        patched.setattr(
            "lora_scene.learning.training._tell_result", None
        )  # right behind the saving
        with pytest.raises(TypeError):
            made.run(scene, settings, tmp_path)
    assert made.run(scene, settings, tmp_path).n_trained


def test_restart_discards_pictures_too_but_nothing_before_the_base_is_loaded(
    bases, scene, tmp_path
):
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    made.run(scene, settings, tmp_path)
    (tmp_path / "samples").mkdir()
    write_picture(tmp_path / "samples" / "00009-0.png", Image.new("RGB", (4, 4)))
    Image.new("RGB", (4, 4)).save(tmp_path / "samples" / "of_a_user.png")
    with pytest.raises(BackboneError):
        made.run(scene, made.recipe("nowhere.safetensors"), tmp_path, restart=True)
    assert (tmp_path / "training.json").is_file()
    with pytest.raises(ZeroDivisionError):  # as if it were killed, before there is a checkpoint
        made.run(scene, settings, tmp_path, restart=True, listener=fail_after_a_step)
    assert (tmp_path / "embeddings").is_dir(), "the earlier adapter, until there is a new one"
    events = []
    made.run(scene, settings, tmp_path, listener=events.append)
    assert [type(event) for event in events].count(StepDone) == 1, "begun anew, without being asked"
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["of_a_user.png"]


@pytest.mark.parametrize("trains", ["full", "lora"])
def test_a_restart_that_is_refused_leaves_the_finished_run_as_it_was(
    trains, bases, scene, tmp_path
):
    """What refuses it is known once the base is there: a prompt that would be cut."""

    def held():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p != page}

    page = tmp_path / "run.html"
    watched = ("run.watch=1", "run.checkpoint_every=1", f"phase2.trains={trains}")
    made.run(scene, made.recipe(bases["sd1"], *watched, steps=(1, 1)), tmp_path)
    before = held()
    long = f"handles.templates=['{'a ' * 80}{{}}']"
    with pytest.raises(SceneError, match="a prompt is too long"):
        made.run(scene, made.recipe(bases["sd1"], *watched, long), tmp_path, restart=True)
    assert held() == before
    assert (tmp_path / "pipeline").is_dir() == (trains == "full")
    made.run(scene, made.recipe(bases["sd1"], *watched, steps=(1, 0)), tmp_path, restart=True)
    assert not (tmp_path / "pipeline").exists(), "it was the earlier run's"
    assert read_adapter(tmp_path).info.steps == (1, 0)


def test_a_base_is_refused_that_the_run_would_write_over(bases, scene, tmp_path):
    made.run(scene, made.recipe(bases["sd1"], "phase2.trains=full", steps=(0, 1)), tmp_path)
    tuned = tmp_path / "pipeline"
    for settings in (made.recipe(str(tuned)), made.recipe(bases["sd1"], f"base.config={tuned}")):
        with pytest.raises(TrainingError, match="write over the base that it trains on"):
            made.run(scene, settings, tmp_path, restart=True)
    assert (tuned / "model_index.json").is_file()
    made.run(scene, made.recipe(str(tuned), steps=(1, 0)), tmp_path / "other")


@pytest.mark.parametrize(("side", "n_told"), [(tiny.RESOLUTION, 0), (2 * tiny.RESOLUTION, 1)])
def test_a_size_that_the_base_was_not_made_for_is_told(side, n_told, bases, scene, tmp_path):
    told = []
    settings = made.recipe(bases["sd1"], f"base.resolution={side}", steps=(1, 0))
    made.run(scene, settings, tmp_path, listener=told.append)
    notices = [event.text for event in told if isinstance(event, Notice)]
    assert sum(f"was made for {tiny.RESOLUTION} px" in text for text in notices) == n_told


@pytest.mark.parametrize(
    ("family", "side", "told"),
    [  # a VAE of 3 levels halves twice, a UNet of 4 three times, XL's of 3 twice
        ("sd1", 100, "base.resolution: the base cannot work.*multiple of 32 pixels, such as 96"),
        ("sdxl", 72, "base.resolution: the base cannot work.*multiple of 16 pixels, such as 64"),
        ("sd1", 160, "the base was made for 64 px.*base.resolution=64"),
    ],
)
def test_a_wrong_size_is_told_before_weights_are_read(
    family, side, told, bases, scene, tmp_path, monkeypatch
):
    for kind in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        monkeypatch.setattr(f"diffusers.{kind}.from_pretrained", None)
    settings = made.recipe(bases[family], f"base.resolution={side}")
    with pytest.raises(BackboneError, match=f"(?s){told}"):
        made.run(scene, settings, tmp_path)


def test_another_scene_in_the_folder_is_refused(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    made.run(scene, settings, tmp_path)
    photo = scene.photos[0]
    other = Scene(scene.concepts, (Photo(photo.pixels // 2, photo.masks, ""),), "other")
    with pytest.raises(TrainingError, match="another recipe, scene or base"):
        made.run(other, settings, tmp_path)


def test_concept_without_a_cell_is_refused_before_weights_are_read(
    bases, scene, tmp_path, monkeypatch
):
    photo = scene.photos[0]
    masks = photo.masks.copy()
    masks[1] = 0
    masks[1, 30, 30] = 1  # a pixel
    thin = dataclasses.replace(scene, photos=(Photo(photo.pixels, masks, "thin"),))
    side = made.recipe(bases["sd1"], "attention_loss.map_side=4")  # which the layers tell of
    told = []
    with pytest.raises(SceneError, match="<bowl>: too little of it is left"):
        made.run(thin, side, tmp_path / "side", listener=told.append)
    assert not any(isinstance(event, StepDone) for event in told)
    monkeypatch.setattr("diffusers.StableDiffusionPipeline.from_pretrained", None)
    with pytest.raises(SceneError, match="<bowl>: too little of it is left") as told_so:
        made.run(thin, made.recipe(bases["sd1"]), tmp_path)
    assert 'take masked_loss.resize="area", or leave it out' in str(told_so.value)
    with pytest.raises(SceneError, match=r"enlarge its mask or base\.resolution, or leave it out"):
        made.run(thin, made.recipe(bases["sd1"], "masked_loss.resize=area"), tmp_path / "area")


def test_handle_that_no_step_drew_is_not_called_learnt(bases, scene, tmp_path):
    events = []
    settings = made.recipe(bases["sd1"], "phase1.sampling=single", steps=(1, 0))
    result = made.run(scene, settings, tmp_path, listener=events.append)
    assert len(result.learnt) == 1
    assert len(result.unlearnt) == len(scene.handles) - 1
    assert any("not learnt" in e.text for e in events if isinstance(e, Notice))
    again = made.run(scene, settings, tmp_path)
    assert again.unlearnt == result.unlearnt


def test_several_processes_are_refused_in_a_sentence(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match=r"one process(.|\n)*run\.batch_size") as told:
        made.run(scene, made.recipe(bases["sd1"]), tmp_path)
    assert "lora-scene batch" not in str(told.value)


def test_what_a_launcher_left_over_hinders_no_single_process(bases, scene, tmp_path, monkeypatch):
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    alone = made.run(scene, settings, tmp_path / "alone")
    left = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_FSDP": "true"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    made.assert_equal(made.numbers(made.run(scene, settings, tmp_path)), made.numbers(alone))
    assert {name: os.environ[name] for name in left} == left


@pytest.mark.parametrize("content", ["epoch,loss\n1,0.5\n", '{"loss": 1}\n', '{"loss"'])
def test_losses_of_another_program_are_left_alone(content, bases, scene, tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(FileError, match=r"losses\.jsonl(.|\n)*did not write"):
        made.run(scene, made.recipe("nowhere/at-all"), tmp_path)
    assert path.read_text("utf-8") == content
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(FileError, match="symbolic link"):
        made.run(scene, made.recipe("nowhere/at-all"), tmp_path)


def overflowing(monkeypatch, bad):
    """Let a gradient of an optimizer overflow: `bad` maps steps to 0, the rows', or 1, the others'.

    Returns the gradient scaler, a real one, and a copy of all that moves before each step.
    """
    scaler, kept = torch.amp.GradScaler("cpu"), []
    given, whole = phases.mixed_precision, step.Stepper.gradients

    def scaled(dtype, device):
        accelerator = given(dtype, device)
        accelerator.scaler = scaler
        return accelerator

    def gradients(self, number):
        states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in self._optimizers]
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        numbers = [p.detach().clone() for group in groups for p in group["params"]]
        kept.append((numbers, states, [c.clone() for c in self._table.n_gradients]))
        terms = whole(self, number)
        if number in bad:
            self._optimizers[bad[number]].param_groups[0]["params"][0].grad[0] = torch.inf
        return terms

    monkeypatch.setattr(phases, "mixed_precision", scaled)
    monkeypatch.setattr(step.Stepper, "gradients", gradients)
    return scaler, kept


def test_a_step_that_overflows_in_float16_is_skipped_whole_and_told(
    bases, scene, tmp_path, monkeypatch
):
    scaler, kept = overflowing(monkeypatch, bad={1: 0, 2: 1})
    told = []
    settings = made.recipe(bases["sd1"], "handles.norm=vocabulary", steps=(0, 4))
    result = made.run(scene, settings, tmp_path, listener=told.append)
    for number in (2, 3):
        torch.testing.assert_close(kept[number], kept[1], rtol=0, atol=0)
    for before, after in zip(kept[0][0], kept[1][0], strict=True):
        assert not torch.equal(before, after), "a sound step moves rows and weights"
    assert scaler.get_scale() == 2**14, "halved twice"
    assert result.n_skipped == 2
    said = [e.text for e in told if isinstance(e, Notice) and "skipped whole" in e.text]
    assert said[0].startswith("phase 2, step 2 was skipped whole: a gradient is not finite")
    lines = (tmp_path / "losses.jsonl").read_text("utf-8").splitlines()
    assert ["skipped" in json.loads(line) for line in lines] == [False, True, True, False]


def test_a_run_that_goes_on_has_its_scale_and_its_skipped_steps(
    bases, scene, tmp_path, monkeypatch
):
    """Cut off after its third step, of which the second halved the scale."""
    chosen = ("handles.norm=vocabulary", "run.checkpoint_every=1")
    settings = made.recipe(bases["sd1"], *chosen, steps=(0, 4))
    saved = []

    def run(out, bad, listener):
        with monkeypatch.context() as patch:
            scaler, _ = overflowing(patch, bad)
            result = made.run(scene, settings, tmp_path / out, listener=listener)
            return result, scaler.state_dict()

    def cut(event):
        saved.append(event) if isinstance(event, Saved) else None
        if len(saved) == 3:
            raise ZeroDivisionError

    whole, scale = run("whole", {1: 1}, None)
    assert scale["scale"] == 2**15
    with pytest.raises(ZeroDivisionError):
        run("cut", {1: 1}, cut)
    resumed, again = run("cut", {}, None)
    assert again == scale, "with the steps counted until it grows"
    assert resumed.n_skipped == whole.n_skipped == 1
    made.assert_equal(made.numbers(resumed), made.numbers(whole))


def test_too_many_overflows_in_a_row_stop_a_run(bases, scene, tmp_path, monkeypatch):
    assert skips.MOST_SKIPPED == 20
    monkeypatch.setattr(skips, "MOST_SKIPPED", 2)
    overflowing(monkeypatch, bad={0: 1, 2: 1, 3: 1})
    done = []
    settings = made.recipe(bases["sd1"], steps=(0, 40))
    with pytest.raises(NonFiniteLossError) as told:
        made.run(scene, settings, tmp_path, listener=done.append)
    for part in ("phase 2, step 4", "a gradient is not finite; it is the last of 2 skipped",
                 "base.dtype=bf16"):  # fmt: skip
        assert part in str(told.value)
    assert [e.step for e in done if isinstance(e, StepDone)] == [1, 2, 3]


def test_prior_is_left_out_while_rows_train_alone_and_its_prompts_name_none(
    bases, scene, tmp_path, monkeypatch
):
    """Left out or not, the rows are the same."""
    few = ("prior.weight=1", "prior.n_images=1", "prior.n_steps=1")
    settings = made.recipe(bases["sd1"], *few, steps=(2, 1))
    asked, batch = [], prior.PriorSet.batch
    monkeypatch.setattr(prior.PriorSet, "batch", lambda s, *a: asked.append(1) or batch(s, *a))
    rows = made.numbers(made.run(scene, settings, tmp_path / "idle"))
    assert len(asked) == 1, "in phase 2"
    monkeypatch.setattr(step.Stepper, "_is_prior_idle", lambda self, prior: False)
    whole = made.numbers(made.run(scene, settings, tmp_path / "asked"))
    assert len(asked) == 1 + 3
    for name, row in rows.items():
        torch.testing.assert_close(row, whole[name], rtol=0, atol=1e-6)


def test_a_prior_s_prompt_that_names_a_handle_reads_its_row(bases, scene, tmp_path):
    few = ("prior.n_images=1", "prior.n_steps=1", 'prior.prompts=["a <bear> and a {}"]')
    rows = [
        made.numbers(
            made.run(
                scene,
                made.recipe(bases["sd1"], *few, f"prior.weight={weight}", steps=(1, 0)),
                tmp_path / str(weight),
            )
        )["<bear> 0"]
        for weight in (1, 50)
    ]
    assert not torch.equal(*rows)


def test_what_check_would_warn_of_is_told_before_the_first_step(bases, scene, tmp_path):
    events = []
    doubtful = dataclasses.replace(
        scene, concepts=tuple(dataclasses.replace(c, noun="cup") for c in scene.concepts)
    )
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    made.run(doubtful, settings, tmp_path, listener=events.append)
    said = [
        n for n, e in enumerate(events) if isinstance(e, Notice) and "one noun, 'cup'" in e.text
    ]
    assert said
    assert said[0] < next(n for n, e in enumerate(events) if isinstance(e, PhaseStarted))


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["checkpoint", "samples", "embeddings", "last_good", "pipeline"])
def test_no_link_in_a_runs_folder_is_followed(name, restart, scene, tmp_path, monkeypatch):
    monkeypatch.setattr("lora_scene.learning.training.load_base", None)  # would be a TypeError
    out = tmp_path / "run"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.safetensors").write_text("another's")
    write_text(out / "recipe.toml", "")
    (out / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="a symbolic link, which is not followed"):
        made.run(scene, made.recipe("nowhere"), out, restart=restart)
    assert (tmp_path / "elsewhere" / "state.safetensors").read_text() == "another's"


def test_a_strangers_picture_under_a_samples_name_is_refused_before_the_work(scene, tmp_path):
    (tmp_path / "samples").mkdir()
    path = tmp_path / "samples" / "00000-0.png"
    Image.new("RGB", (4, 4)).save(path)
    before = path.read_bytes()
    with pytest.raises(FileError, match="did not write"):
        made.run(scene, made.recipe("nowhere", "run.sample_every=5"), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("restart", [False, True])
def test_an_adapter_without_the_record_of_its_training_is_left_alone(restart, scene, tmp_path):
    out = tmp_path / "run"
    save_adapter(adapters.adapter(tiny.pipeline("sd1"), "sd1"), out)
    write_text(out / "recipe.toml", "")  # as where it was copied with its recipe
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match="no record of its training"):
        made.run(scene, made.recipe("nowhere"), out, restart=restart)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
