from __future__ import annotations

import dataclasses
import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import (
    ControlNetModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from PIL import Image

from lora_scene import load_adapter, unload_adapter
from lora_scene.adapters.attachment import loaded_adapters
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.backbones.loading import quiet_libraries
from lora_scene.errors import AdapterError, LoraSceneWarning
from tests import tiny
from tests.adapters import made

PLAIN = "a photo of a bear"


def all_state(pipe):
    state = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if getattr(pipe, part, None) is not None:
            for key, tensor in getattr(pipe, part).state_dict().items():
                state[f"{part}.{key}"] = tensor.clone()
    return state


def assert_same_state(before, after):
    assert list(before) == list(after)
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype
        assert torch.equal(tensor, after[key]), key


def reference_output(pipe, adapter, weight=1.0):
    """Merge the update into the base's own weights by the formula, then draw."""
    for key, module in adapter.modules.items():
        base = made.layer(pipe, key)
        merged = base.weight.data + weight * made.update(module).float()
        base.weight.data = merged
    for index, part in enumerate(("", "_2")):
        tokens, encoder = (getattr(pipe, n + part, None) for n in ("tokenizer", "text_encoder"))
        for concept in adapter.concepts if encoder is not None else ():
            names = [
                concept.handle,
                *(f"{concept.handle}_{i}" for i in range(1, concept.n_vectors)),
            ]
            tokens.add_tokens(names)
            encoder.resize_token_embeddings(len(tokens), mean_resizing=False)
            for name, row in zip(names, concept.rows[index], strict=True):
                encoder.get_input_embeddings().weight.data[tokens.convert_tokens_to_ids(name)] = row
    return made.draw(pipe)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    ("kind", "text", "n_vectors"),
    [
        ("lora", False, 1),
        ("lora", True, 2),
        ("ranks", True, 3),
        ("conv", True, 1),
    ],
)
def test_a_loaded_adapter_draws_what_the_formula_says(family, kind, text, n_vectors, tmp_path):
    pipe = tiny.pipeline(family)
    adapter = made.adapter(pipe, family, kind=kind, text=text, n_vectors=n_vectors)
    loaded = load_adapter(pipe, save_adapter(adapter, tmp_path / "scene"))
    assert loaded.handles == ("<bear>", "<bowl>")
    assert loaded.n_modules == len(adapter.modules) > 0
    expected = reference_output(tiny.pipeline(family), adapter)
    found = made.draw(pipe)
    worst = (found - expected).abs().max().item()
    assert worst < 2e-4, f"largest difference {worst}"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_unloading_leaves_the_base_bit_equal(family):
    pipe = tiny.pipeline(family)
    before, picture = all_state(pipe), made.draw(pipe, PLAIN)
    n_tokens, words = len(pipe.tokenizer), pipe.tokenizer.get_vocab()
    adapter = made.adapter(pipe, family, text=True, n_vectors=2)
    load_adapter(pipe, adapter, name="scene")
    assert not torch.equal(made.draw(pipe, PLAIN), picture)
    unload_adapter(pipe, "scene")
    assert_same_state(before, all_state(pipe))
    assert len(pipe.tokenizer) == n_tokens
    assert pipe.tokenizer.get_vocab() == words
    assert (
        pipe.text_encoder.config.vocab_size
        == pipe.text_encoder.get_input_embeddings().num_embeddings
    )
    assert torch.equal(made.draw(pipe, PLAIN), picture)
    assert loaded_adapters(pipe) == {}


@pytest.mark.parametrize("kind", ["lora", "conv"])
def test_two_adapters_act_together_with_their_own_weights(kind):
    pipe = tiny.pipeline()
    one = made.adapter(pipe, "sd1", handles=("<bear>",), text=True, kind=kind)
    two = made.adapter(pipe, "sd1", handles=("<bowl>",), n_vectors=2, seed=2, kind=kind)
    expected = tiny.pipeline()
    load_adapter(pipe, one, name="one", weight=0.8)
    load_adapter(pipe, two, name="two", weight=0.5)
    assert pipe.get_active_adapters() == ["one", "two"]
    both = made.draw(pipe)
    reference_output(expected, one, 0.8)
    worst = (both - reference_output(expected, two, 0.5)).abs().max().item()
    assert worst < 2e-4, f"largest difference {worst}"

    unload_adapter(pipe, "one")
    alone = tiny.pipeline()
    load_adapter(alone, two, name="two", weight=0.5)
    prompt = "a photo of <bowl>"
    assert torch.equal(made.draw(pipe, prompt), made.draw(alone, prompt))


def test_adapters_of_others_stay_active_at_their_weight():
    pipe = tiny.pipeline()
    foreign = {
        f"unet.{key.removeprefix('unet.')}.lora.{side}.weight": tensor
        for key, module in made.adapter(pipe, "sd1", seed=5).modules.items()
        for side, tensor in (("down", module.down), ("up", module.up))
    }
    pipe.load_lora_weights(foreign, adapter_name="foreign")
    pipe.set_adapters(["foreign"], [0.25])
    before = made.draw(pipe, PLAIN)
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="ours", weight=0.0)
    assert torch.equal(made.draw(pipe, PLAIN), before)
    unload_adapter(pipe, "ours")
    assert torch.equal(made.draw(pipe, PLAIN), before)
    assert pipe.get_active_adapters() == ["foreign"]


def test_an_adapter_that_was_set_aside_stays_so_when_another_leaves():
    pipe = tiny.pipeline()
    before = made.draw(pipe, PLAIN)
    for name, handle, seed in (("first", "<bear>", 1), ("second", "<bowl>", 2)):
        load_adapter(pipe, made.adapter(pipe, "sd1", handles=(handle,), seed=seed), name=name)
    pipe.set_adapters(["second"], [1.0])
    unload_adapter(pipe, "second")
    assert torch.equal(made.draw(pipe, PLAIN), before), "nobody asked for the first again"
    pipe.set_adapters(["first"], [1.0])
    assert not torch.equal(made.draw(pipe, PLAIN), before)
    unload_adapter(pipe, "first")
    assert torch.equal(made.draw(pipe, PLAIN), before)


def test_a_pipeline_whose_lora_is_switched_off_is_told():
    pipe = tiny.pipeline()
    before = made.draw(pipe, PLAIN)
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="first")
    pipe.disable_lora()
    late = made.adapter(pipe, "sd1", handles=("<cat>",), seed=2)
    refused(pipe, late, r"switched off(.|\n)*another adapter would do nothing(.|\n)*enable_lora")
    assert torch.equal(made.draw(pipe, PLAIN), before), "it stays switched off"
    load_adapter(pipe, dataclasses.replace(late, modules={}), name="rows")
    pipe.enable_lora()
    load_adapter(pipe, late.renamed({"<cat>": "<dog>"}), name="late")


def test_a_pipeline_whose_projections_are_fused_is_told():
    """`FusedAttnProcessor2_0` reads `to_qkv` and `to_kv`, copies of the base's own weights."""
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1")
    expected = reference_output(tiny.pipeline(), adapter)
    pipe.fuse_qkv_projections()
    refused(pipe, adapter, r"fused copies(.|\n)*unfuse_qkv_projections")
    pipe.unfuse_qkv_projections()
    load_adapter(pipe, adapter, name="scene")
    assert torch.allclose(made.draw(pipe), expected, atol=1e-5)


def test_a_pipeline_that_is_stored_in_float8_is_told():
    pipe = tiny.pipeline().to(torch.bfloat16)
    adapter = made.adapter(pipe, "sd1")
    pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    refused(pipe, adapter, r"stored in float8(.|\n)*before enable_layerwise_casting")
    early = tiny.pipeline().to(torch.bfloat16)
    load_adapter(early, adapter, name="scene")
    early.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    loras = [own for name, own in early.unet.named_parameters() if ".lora_" in name]
    assert {own.dtype for own in loras} == {torch.bfloat16}
    assert made.draw(early).isfinite().all()


def test_names_that_torch_uses_itself_are_no_names_of_adapters(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    for name in ("training", "half", "modules"):
        with pytest.raises(KeyError, match="already exists"):
            torch.nn.ModuleDict({name: torch.nn.Identity()})
        pipe = tiny.pipeline()
        refused(pipe, adapter, "torch's modules use themselves(.|\n)*another name=", name=name)
        loaded = load_adapter(pipe, save_adapter(adapter, tmp_path / name))
        assert loaded.name == f"{name}_adapter"
        assert loaded_adapters(pipe)[loaded.name].n_modules == len(adapter.modules)


def test_rows_alone_are_loaded_without_any_lora(tmp_path):
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1", unet=False)
    loaded = load_adapter(pipe, save_adapter(adapter, tmp_path / "rows"))
    assert loaded.n_modules == 0
    expected = reference_output(tiny.pipeline(), adapter)
    assert torch.equal(made.draw(pipe), expected)
    unload_adapter(pipe, "rows")


def test_rows_alone_have_a_name_of_their_own(tmp_path):
    pipe = tiny.pipeline()
    before, n_tokens = all_state(pipe), len(pipe.tokenizer)
    first, second = (
        save_adapter(made.adapter(pipe, "sd1", unet=False, handles=(h,)), tmp_path / h[1] / "rows")
        for h in ("<bear>", "<mug>")
    )
    load_adapter(pipe, first)
    with pytest.raises(AdapterError, match="rows: this pipeline has an adapter of that name"):
        load_adapter(pipe, second)
    load_adapter(pipe, second, name="second")
    for name in ("rows", "second"):
        unload_adapter(pipe, name)
    assert_same_state(before, all_state(pipe))
    assert len(pipe.tokenizer) == n_tokens


def test_several_vectors_are_expanded_by_the_pipeline():
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1", n_vectors=3, unet=False)
    load_adapter(pipe, adapter, name="scene")
    expanded = pipe.maybe_convert_prompt("a <bear>", pipe.tokenizer)
    assert expanded == "a <bear> <bear>_1 <bear>_2"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_image_to_image_and_inpainting_take_the_adapter(family):
    base = tiny.pipeline(family)
    adapter = made.adapter(base, family, text=True)
    image = Image.new("RGB", (64, 64), "teal")
    mask = Image.new("L", (64, 64), 255)
    kinds = (
        (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline)
        if family == "sdxl"
        else (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline)
    )
    for kind, extra in zip(kinds, ({}, {"mask_image": mask}), strict=True):
        parts = {k: v for k, v in tiny.pipeline(family).components.items() if v is not None}
        if family == "sd1":
            parts.update(safety_checker=None, feature_extractor=None)
        pipe = kind(**parts)
        pipe.set_progress_bar_config(disable=True)

        def run(prompt, pipe=pipe, extra=extra):
            return pipe(
                prompt, image=image, strength=1.0, num_inference_steps=2, output_type="latent",
                generator=torch.Generator().manual_seed(0), **extra,
            ).images  # fmt: skip

        before = run(PLAIN)
        load_adapter(pipe, adapter, name="scene")
        assert not torch.equal(run("a <bear>"), before)
        unload_adapter(pipe, "scene")
        assert torch.equal(run(PLAIN), before)


def test_an_inpainting_unet_of_nine_channels_takes_the_adapter():
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1")
    config = dict(pipe.unet.config) | {"in_channels": 9}
    pipe.unet = type(pipe.unet).from_config(config)
    assert load_adapter(pipe, adapter, name="scene").n_modules == len(adapter.modules)


def test_a_distilled_unet_that_takes_the_guidance_takes_the_adapter():
    """As `identify` promises where it refuses to train on one (SimianLuo/LCM_Dreamshaper_v7)."""
    parts = tiny.pipeline().components
    adapter = made.adapter(tiny.pipeline(), "sd1", text=True)
    config = dict(parts["unet"].config) | {"time_cond_proj_dim": 32, "_use_default_values": []}
    torch.manual_seed(0)
    parts |= {
        "unet": type(parts["unet"]).from_config(config),
        "scheduler": LCMScheduler.from_config(parts["scheduler"].config),
    }
    pipe = LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    before = made.draw(pipe, PLAIN)
    loaded = load_adapter(pipe, adapter, name="scene")
    assert loaded.n_modules == len(adapter.modules)
    assert not torch.equal(made.draw(pipe, "a <bear>"), before)
    unload_adapter(pipe, "scene")
    assert torch.equal(made.draw(pipe, PLAIN), before)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd1", StableDiffusionControlNetPipeline), ("sdxl", StableDiffusionXLControlNetPipeline)],
)
def test_a_controlnet_pipeline_takes_the_adapter(family, kind):
    base = tiny.pipeline(family)
    controlnet = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 8, 8))
    parts = {name: part for name, part in base.components.items() if part is not None}
    if family == "sd1":
        parts |= {"safety_checker": None, "feature_extractor": None}
    extra = {"add_watermarker": False} if family == "sdxl" else {"requires_safety_checker": False}
    pipe = kind(**parts, controlnet=controlnet, **extra)
    pipe.set_progress_bar_config(disable=True)
    image = Image.new("RGB", (64, 64), "teal")
    before = made.draw(pipe, PLAIN, image=image)
    load_adapter(pipe, made.adapter(base, family), name="scene")
    assert not torch.equal(made.draw(pipe, "a <bear>", image=image), before)
    unload_adapter(pipe, "scene")
    assert torch.equal(made.draw(pipe, PLAIN, image=image), before)


def test_pipelines_that_share_components_share_the_adapter():
    base = tiny.pipeline()
    load_adapter(base, made.adapter(base, "sd1"), name="scene")
    parts = base.components | {"safety_checker": None}
    other = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    assert list(loaded_adapters(other)) == ["scene"]
    unload_adapter(other, "scene")
    assert loaded_adapters(base) == {}


def test_half_precision_bases_take_the_adapter():
    pipe = tiny.pipeline().to(torch.bfloat16)
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.bfloat16}
    assert torch.isfinite(made.draw(pipe)).all()


def test_the_false_missing_report_is_not_shown(caplog):
    pipe = tiny.pipeline()
    for name in ("transformers", "diffusers"):
        logging.getLogger(name).addHandler(caplog.handler)
    try:
        load_adapter(pipe, made.adapter(pipe, "sd1", text=True), name="scene")
        load_adapter(pipe, made.adapter(pipe, "sd1", handles=("<cat>",)), name="other")
    finally:
        for name in ("transformers", "diffusers"):
            logging.getLogger(name).removeHandler(caplog.handler)
    assert caplog.text == ""


@pytest.mark.parametrize("handle", ["<Ball>", "<ball>"])
def test_every_spelling_of_a_handle_has_all_its_vectors(handle):
    pipe = tiny.pipeline()
    n_before = len(pipe.tokenizer)
    before = pipe.tokenizer("a <Ball>").input_ids
    adapter = made.adapter(pipe, "sd1", handles=(handle,), n_vectors=3, unet=False)
    load_adapter(pipe, adapter, name="scene")
    wanted = [n_before, n_before + 1, n_before + 2]
    for prompt in ("a <Ball>", "a <ball>", "a <BALL>", "a <BALL>, <ball>_1"):
        text = pipe.maybe_convert_prompt(prompt, pipe.tokenizer)
        for given in (text, [text]):
            ids = pipe.tokenizer(given, add_special_tokens=False).input_ids
            ids = ids if given is text else ids[0]
            assert [i for i in ids if i >= n_before][:3] == wanted, prompt
    same = [made.draw(pipe, f"a photo of {word}") for word in ("<Ball>", "<ball>", "<BALL>")]
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    unload_adapter(pipe, "scene")
    assert pipe.tokenizer("a <Ball>").input_ids == before
    assert type(pipe.tokenizer) is type(tiny.pipeline().tokenizer)


def test_a_shared_handle_is_renamed_on_load(tmp_path):
    pipe = tiny.pipeline()
    one = made.adapter(pipe, "sd1", handles=("<cup>", "<ground>"))
    two = made.adapter(pipe, "sd1", handles=("<dog>", "<ground>"), seed=2)
    load_adapter(pipe, one, name="one")
    refused(pipe, two, "<ground> is a token already", name="two")
    refused(pipe, two, "no such handle to rename", name="two", rename={"<grund>": "<lawn>"})
    refused(pipe, two, "used twice", name="two", rename={"<ground>": "<dog>"})
    refused(pipe, two, "illegal handle", name="two", rename={"<ground>": "lawn"})
    loaded = load_adapter(pipe, two, name="two", rename={"<ground>": "<lawn>"})
    assert loaded.handles == ("<dog>", "<lawn>")
    assert loaded.renamed == {"<ground>": "<lawn>"}
    row = pipe.text_encoder.get_input_embeddings().weight[
        pipe.tokenizer.convert_tokens_to_ids("<lawn>")
    ]
    assert torch.equal(row, two.concepts[1].rows[0][0])
    files = read_adapter(save_adapter(two, tmp_path / "two"))
    plain = load_adapter(tiny.pipeline(), files, name="plain")
    assert plain.fingerprint == loaded.fingerprint, "renaming is no change of what was learnt"


def test_the_fingerprint_is_that_of_all_that_was_loaded():
    adapter = made.adapter(tiny.pipeline(), "sd1")
    key = next(iter(adapter.modules))
    module = adapter.modules[key]

    def changed(**change):
        modules = {**adapter.modules, key: dataclasses.replace(module, **change)}
        return dataclasses.replace(adapter, modules=modules)

    first = fingerprint(adapter)
    assert load_adapter(tiny.pipeline(), adapter, name="scene").fingerprint == first
    for change in ({"up": -3 * module.up}, {"alpha": 2 * module.alpha}, {"down": module.down + 1}):
        assert fingerprint(changed(**change)) != first
    assert fingerprint(changed(up=module.up / 2, alpha=module.alpha * 2)) == first


# Fusing writes into the base's own weights, and nothing but a fresh base undoes it.


def test_a_fused_adapter_is_not_taken_for_unloaded():
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1", text=True), name="scene")
    pipe.fuse_lora()
    with pytest.raises(AdapterError, match=r"fused into the base(.|\n)*unfuse_lora"):
        unload_adapter(pipe, "scene")
    late = made.adapter(pipe, "sd1", handles=("<cat>",))
    with pytest.raises(AdapterError, match="another one would do nothing"):
        load_adapter(pipe, late, name="late")
    assert list(loaded_adapters(pipe)) == ["scene"]
    pipe.unfuse_lora()
    with pytest.warns(LoraSceneWarning, match="leaves rounding behind"):
        unload_adapter(pipe, "scene")
    assert loaded_adapters(pipe) == {}


def test_an_adapter_fused_for_good_is_not_taken_for_unloaded():
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    with pytest.raises(AdapterError, match=r"for good(.|\n)*load the base anew"):
        unload_adapter(pipe, "scene")


def test_unloading_restores_the_base_whatever_was_done_between():
    for between in (
        lambda pipe: pipe.set_adapters(["scene"], [0.3]),
        lambda pipe: pipe.unload_lora_weights(),
        lambda pipe: pipe.to(torch.float64),
    ):
        pipe = tiny.pipeline()
        before = all_state(pipe)
        load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
        between(pipe)
        unload_adapter(pipe, "scene")
        assert_same_state(before, all_state(pipe.to(torch.float32)))


def test_offloaded_weights_stop_an_unload_until_they_are_back():
    from accelerate import cpu_offload

    pipe = tiny.pipeline()
    before = all_state(pipe)
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
    cpu_offload(pipe.text_encoder, torch.device("cpu"))
    with pytest.raises(AdapterError, match=r"offloaded(.|\n)*remove_all_hooks"):
        unload_adapter(pipe, "scene")
    pipe.remove_all_hooks()
    unload_adapter(pipe, "scene")
    assert_same_state(before, all_state(pipe))


def test_threads_that_load_at_once_leave_torch_as_it_is():
    register, random_state = torch.nn.Module.register_parameter, torch.get_rng_state()
    pipes = [tiny.pipeline() for _ in range(3)]
    adapter = made.adapter(pipes[0], "sd1")
    before = all_state(pipes[0])
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            list(pool.map(lambda pipe: load_adapter(pipe, adapter, name="scene"), pipes))
            for pipe in pipes:
                assert not any(tensor.is_meta for tensor in all_state(pipe).values())
            list(pool.map(lambda pipe: unload_adapter(pipe, "scene"), pipes))
    for pipe in pipes:
        assert_same_state(before, all_state(pipe))
    assert torch.nn.Module.register_parameter is register
    assert torch.equal(torch.get_rng_state(), random_state), "loading draws no global numbers"


def test_an_adapter_waits_for_a_base_that_loads_in_another_thread():
    pipe = tiny.pipeline()
    rows = dataclasses.replace(made.adapter(pipe, "sd1"), modules={})
    with ThreadPoolExecutor(1) as pool:
        with quiet_libraries():  # as while a base is loaded, when new tensors may go nowhere
            waits = pool.submit(load_adapter, pipe, rows, name="scene")
            with pytest.raises(TimeoutError):
                waits.result(timeout=0.3)
        waits.result()


def test_loading_again_and_again_keeps_no_tensor():
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1", n_vectors=2)
    counts = []
    for _ in range(5):
        load_adapter(pipe, adapter, name="scene")
        unload_adapter(pipe, "scene")
        gc.collect()
        counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
    assert counts[-1] == counts[1], counts


def refused(pipe, adapter, match, **kwargs):
    before, n_tokens = all_state(pipe), len(pipe.tokenizer)
    with pytest.raises(AdapterError, match=match):
        load_adapter(pipe, adapter, **({"name": "scene"} | kwargs))
    assert_same_state(before, all_state(pipe))
    assert len(pipe.tokenizer) == n_tokens


@pytest.mark.parametrize(("here", "there"), [("sd1", "sdxl"), ("sdxl", "sd1"), ("sd1", "sd2")])
def test_a_wrong_family_is_refused_untouched(here, there):
    adapter = made.adapter(tiny.pipeline(there), there)
    refused(tiny.pipeline(here), adapter, "does not fit this pipeline(.|\n)*expected")


def test_a_base_of_another_size_is_refused_untouched():
    wide = tiny.pipeline()
    adapter = made.adapter(wide, "sd1")
    key = next(iter(adapter.modules))
    module = adapter.modules[key]
    grown = dataclasses.replace(module, down=torch.zeros(4, 99))
    other = dataclasses.replace(adapter, modules={**adapter.modules, key: grown})
    refused(tiny.pipeline(), other, "1 of .* modules have another size")
    absent = dataclasses.replace(adapter, modules={"unet.no.such": module})
    refused(tiny.pipeline(), absent, "1 of 1 modules are not in this pipeline")


def test_clashes_are_refused_untouched():
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
    fresh = made.adapter(pipe, "sd1", handles=("<cat>",))
    refused(pipe, fresh, "adapter of that name")
    refused(pipe, made.adapter(pipe, "sd1"), "<bear> is a token already", name="again")
    refused(pipe, made.adapter(pipe, "sd1", handles=("<BEAR>",)), "is a token", name="again")
    pipe.load_textual_inversion({"dog": torch.zeros(2, 32)}, token="dog-toy")
    dog = made.adapter(pipe, "sd1", handles=("<dog-toy>",))
    refused(pipe, dog, "cannot be told from the token dog-toy", name="again")
    refused(pipe, fresh, "hold a dot", name="a.b")
    refused(pipe, fresh, "finite", name="again", weight=float("nan"))


def test_another_prediction_type_is_warned_of():
    pipe = tiny.pipeline("sd2")
    adapter = made.adapter(pipe, "sd2")
    other = dataclasses.replace(adapter, info=made.INFO)
    with pytest.warns(
        LoraSceneWarning, match="predicts epsilon, and this one predicts v_prediction"
    ):
        load_adapter(pipe, other, name="scene")


def test_a_row_of_another_width_is_refused_untouched():
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1")
    thin = dataclasses.replace(adapter.concepts[0], rows=(torch.zeros(1, 5),))
    refused(pipe, dataclasses.replace(adapter, concepts=(thin,)), "rows of another size")


def test_numbers_that_are_none_are_refused_untouched():
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1")
    rows = (torch.full((1, 32), float("nan")),)
    bad = dataclasses.replace(adapter.concepts[0], rows=rows)
    refused(pipe, dataclasses.replace(adapter, concepts=(bad,)), "<bear>: holds NaN")
    key = next(iter(adapter.modules))
    module = dataclasses.replace(adapter.modules[key], up=adapter.modules[key].up / 0)
    modules = {**adapter.modules, key: module}
    refused(pipe, dataclasses.replace(adapter, modules=modules), "NaN or an infinity")


def test_missing_things_are_said_plainly(tmp_path):
    pipe = tiny.pipeline()
    refused(pipe, tmp_path / "absent", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(pipe, tmp_path / "empty", "no adapter of lora_scene(.|\n)*an empty folder")
    saved = save_adapter(made.adapter(pipe, "sd1"), tmp_path / "scene")
    refused(pipe, saved / "pytorch_lora_weights.safetensors", "give the folder")
    (saved / "embeddings" / "bowl.safetensors").unlink()
    refused(pipe, saved, "the embedding of <bowl> is missing")
    with pytest.raises(AdapterError, match=r"no such adapter(.|\n)*none is loaded"):
        unload_adapter(pipe, "scene")


def test_a_failure_halfway_puts_the_pipeline_back(monkeypatch):
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1", text=True)

    def fail(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    before, n_tokens = all_state(pipe), len(pipe.tokenizer)
    monkeypatch.setattr(pipe, "load_lora_into_text_encoder", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        load_adapter(pipe, adapter, name="scene")
    assert_same_state(before, all_state(pipe))
    assert len(pipe.tokenizer) == n_tokens


def test_a_failure_halfway_leaves_other_adapters_as_they_were(monkeypatch):
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1", text=True), name="first", weight=0.5)
    before = made.draw(pipe)
    late = made.adapter(pipe, "sd1", handles=("<cat>",), text=True, seed=8)

    def fail(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipe, "load_lora_into_text_encoder", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        load_adapter(pipe, late, name="late")
    assert torch.equal(made.draw(pipe), before)
    assert list(loaded_adapters(pipe)) == ["first"]


def test_a_failure_halfway_leaves_tokens_that_were_added_since_the_first(monkeypatch):
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1", n_vectors=2), name="first")
    pipe.load_textual_inversion({"<late>": torch.ones(1, 32)}, token="<late>")
    before, words = all_state(pipe), pipe.tokenizer.get_vocab()

    def fail(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipe, "load_lora_weights", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        load_adapter(pipe, made.adapter(pipe, "sd1", handles=("<cat>",)), name="late")
    assert pipe.tokenizer.get_vocab() == words
    assert_same_state(before, all_state(pipe))
    pipe.unload_textual_inversion("<late>")
    unload_adapter(pipe, "first")


def test_foreign_tokens_added_later_stop_an_unload():
    pipe = tiny.pipeline()
    load_adapter(pipe, made.adapter(pipe, "sd1"), name="scene")
    pipe.load_textual_inversion({"<late>": torch.zeros(1, 32)}, token="<late>")
    with pytest.raises(AdapterError, match=r"other tokens(.|\n)*<late>"):
        unload_adapter(pipe, "scene")


@pytest.mark.parametrize("taken_out", [("<late>",), ()])
def test_a_textual_inversion_that_was_taken_out_does_not_come_back(taken_out):
    pipe, bare = tiny.pipeline(), tiny.pipeline()
    for one in (pipe, bare):
        one.load_textual_inversion({"<late>": torch.ones(1, 32)}, token="<late>")
        one.load_textual_inversion({"<kept>": torch.full((1, 32), 2.0)}, token="<kept>")
    for name in ("<bear>", "<bird>"):
        load_adapter(pipe, made.adapter(pipe, "sd1", handles=(name,)), name=name[1:5])
    for one in (pipe, bare):
        one.unload_textual_inversion(*taken_out)
    unload_adapter(pipe, "bear")
    assert pipe.tokenizer.convert_tokens_to_ids("<late>") == pipe.tokenizer.unk_token_id
    assert "<bird>" in pipe.tokenizer.get_vocab()
    unload_adapter(pipe, "bird")
    assert pipe.tokenizer.get_vocab() == bare.tokenizer.get_vocab()
    rows = [one.text_encoder.get_input_embeddings().weight for one in (pipe, bare)]
    assert torch.equal(*rows)
    text = "a <kept> and a <late>"
    assert pipe.tokenizer(text).input_ids == bare.tokenizer(text).input_ids


def test_foreign_tokens_of_the_second_text_encoder_stop_an_unload_too():
    pipe = tiny.pipeline("sdxl")
    load_adapter(pipe, made.adapter(pipe, "sdxl"), name="scene")
    second = {"text_encoder": pipe.text_encoder_2, "tokenizer": pipe.tokenizer_2}
    width = pipe.text_encoder_2.get_input_embeddings().weight.shape[1]
    pipe.load_textual_inversion({"<late>": torch.zeros(1, width)}, token="<late>", **second)
    with pytest.raises(AdapterError, match=r"other tokens(.|\n)*<late>"):
        unload_adapter(pipe, "scene")
    pipe.unload_textual_inversion("<late>", **second)
    unload_adapter(pipe, "scene")
    assert loaded_adapters(pipe) == {}
