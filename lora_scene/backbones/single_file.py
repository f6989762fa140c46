"""What a single checkpoint file is, told from its header alone: names, shapes, metadata.

Loaders guess, and what they do not know they load as a plain Stable Diffusion. Here a file is a
whole text-to-image base of a known family, or it is refused with what it seems to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from lora_scene.backbones.families import EXTRA_INPUTS, FAMILIES, Family
from lora_scene.backbones.noise_schedules import EPSILON, VELOCITY, Stated
from lora_scene.backbones.tensor_header import TensorHeader, read_tensor_header
from lora_scene.errors import BackboneError

UNET = "model.diffusion_model."
N_LATENT = 4  # channels of the latents that the families share
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
MAGIC = {
    b"": "an empty file",
    b"GGUF": "a GGUF file, of another program's quantised weights",
    b"PK\x03\x04": "a pickled checkpoint under another name",
    b"\x80": "a pickled checkpoint under another name",
    b"version https://git-lfs": "a Git LFS pointer in the file's place: fetch the file itself",
    b"<": "a web page in the file's place: the download needs a login or another link",
}
PARTS = {  # what a file without a whole UNet may be, by the names of its tensors; first match
    r"\.(lora_(up|down|A|B|mid)|hada_w\d_a|lokr_w\d|oft_blocks|dora_scale)\b": "a LoRA",
    r"^(emb_params|clip_[lg]|string_to_param|<.*>)$": "an embedding (textual inversion)",
    r"^control_model\.|controlnet_cond_embedding|input_hint_block|^control_": "a ControlNet",
    r"^(ip_adapter|image_proj)\.": "an IP-Adapter",
    r"motion_modules\.": "a motion module of AnimateDiff",
    r"^body\.\d+\.|^adapter\.": "a T2I-Adapter",
    r"(^|\.)joint_blocks\.": "Stable Diffusion 3",
    r"(^|\.)(double_blocks|single_blocks|single_transformer_blocks)\.": "FLUX or one of its kind",
    r"(^|\.)(cap_embedder|txt_in|patchify_proj|x_embedder|context_refiner|pos_embed)\b": "a "
    "diffusion transformer",
    r"^(clip_txt_mapper|down_blocks\.\d+\.\d+\.channelwise)\.": "Stable Cascade",
    r"^model\.diffusion_model\.": "an incomplete UNet, or one of another architecture",
    r"^(down_blocks|up_blocks|mid_block)\.": "a UNet alone, in diffusers' layout",
    r"^input_blocks\.": "a UNet alone",
    r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid|down|up|mid_block)": "a VAE alone",
    r"text_model\.|resblocks\.|^(encoder\.block|shared)\.": "a text encoder alone",
}


@dataclass(frozen=True)
class SingleFile:
    """A whole base in one file.

    Attributes:
        family: Its architecture.
        stated: What it says of its target.
        n_unet: Numbers in its UNet.
        title: Its name in the metadata, or nothing.
    """

    family: Family
    stated: Stated
    n_unet: int
    title: str = ""


def read_file(path: Path) -> SingleFile:
    """Tell what base a single file holds, without its weights.

    Raises:
        BackboneError: It is damaged, or no whole base of a known family, or says of itself what
            cannot be obeyed.
    """
    header = _read_header(path)
    stem = header.shapes.get(UNET + "input_blocks.0.0.weight")
    if stem is None or len(stem) != 4 or UNET + "out.2.weight" not in header.shapes:
        raise _not_a_base(path, _kind_of(header))
    _refuse_special(header, stem[1], path)
    n_unet = sum(prod(shape) for name, shape in header.shapes.items() if name.startswith(UNET))
    title = header.metadata.get("modelspec.title", "")
    return SingleFile(_family_of(header, path), stated(header, path), n_unet, title)


def _read_header(path: Path) -> TensorHeader:
    """Read names, shapes and metadata.

    Raises:
        BackboneError: It is no safetensors file, or damaged.
    """
    if path.suffix.lower() in PICKLED:
        raise BackboneError(
            "only safetensors checkpoints are opened, since pickled ones can run code",
            where=path,
            hint="convert it, or use the base's hub id or folder",
        )
    with path.open("rb") as file:
        start = file.read(24)
    is_plain = start[8:9] == b"{"  # after the header's length, whose bytes may be anything
    for magic, meaning in MAGIC.items():
        if not is_plain and (start.startswith(magic) if magic else not start):
            raise BackboneError("not a safetensors file", where=path, got=meaning)
    if path.suffix != ".safetensors":
        raise BackboneError("a file whose name must end in .safetensors", where=path)
    return read_tensor_header(path, BackboneError)


def stated(header: TensorHeader, path: Path) -> Stated:
    """Read what a file says of its target, in marker tensors and in metadata.

    The tensors `v_pred` and `ztsnr` are what ComfyUI and Forge go by; the metadata are modelspec's
    and kohya's.

    Raises:
        BackboneError: It names a target that is unknown, or two.
    """
    said = {
        key: value.strip().lower()
        for key, value in header.metadata.items()
        if key.removeprefix("modelspec.") in ("prediction_type", "ss_v_parameterization")
    }
    names = {"v": VELOCITY, "v_prediction": VELOCITY, "v-prediction": VELOCITY, "true": VELOCITY}
    names |= {"eps": EPSILON, "epsilon": EPSILON, "false": EPSILON}
    found = {key: names.get(value, value) for key, value in said.items() if value}
    if "v_pred" in header.shapes:
        found["tensor v_pred"] = VELOCITY
    architecture = header.metadata.get("modelspec.architecture", "")
    if architecture.endswith("-768-v"):
        found["modelspec.architecture"] = VELOCITY
    if len(set(found.values())) > 1 or not set(found.values()) <= {EPSILON, VELOCITY}:
        raise BackboneError(
            "the file does not say clearly what its UNet predicts",
            where=path,
            expected=f"{EPSILON} or {VELOCITY}",
            got=", ".join(f"{key}: {value}" for key, value in found.items()),
            hint="convert it to a diffusers folder with the right scheduler_config.json",
        )
    predicted = next(iter(found.values()), None)
    zero = header.metadata.get("ss_zero_terminal_snr", "").strip().lower() == "true"
    zero = zero or "ztsnr" in header.shapes
    return Stated(predicted, zero if zero or predicted is not None else None)


def _refuse_special(header: TensorHeader, n_in: int, path: Path) -> None:
    """Refuse what has a UNet's names but another task, another noise, or packed weights."""
    problem = hint = None
    if header.has(r"^control_model\."):
        problem = "a ControlNet"
    elif header.has(r"\.(time_stack|time_mixer|motion_modules)\."):
        problem = "a model of video"
    elif header.has(r"^edm_(mean|std)$|^edm_vpred\."):
        problem = "a base trained under EDM's noise (its edm_ tensors say so)"
    elif n_in != N_LATENT:
        problem = f"its UNet also takes {EXTRA_INPUTS.get(n_in, f'{n_in} channels in all')}"
        hint = "train on the text-to-image base; its adapters load into inpainting models too"
    elif UNET + "time_embed.cond_proj.weight" in header.shapes:
        problem = "a distilled UNet that takes the guidance as an input (LCM)"
        hint = "train on the base that it was distilled from; the adapters load into it too"
    elif header.has(r"quant_state|absmax|(scale_weight|weight_scale|scaled_fp8|comfy_quant)$") or (
        {kind for name, kind in header.dtypes.items() if name.startswith(UNET)}
        & {"U8", "I8", "I32", "U32"}
    ):
        problem = "quantised weights, with scales of another program's"
        hint = "take the 16-bit file; base.quantization stores it in few bits here"
    if problem is not None:
        raise _not_a_base(path, problem, hint)


def _family_of(header: TensorHeader, path: Path) -> Family:
    """Tell the family from the text encoders; refuse a file without them or a VAE."""
    has_labels = UNET + "label_emb.0.0.weight" in header.shapes
    if not header.has(r"^first_stage_model\.encoder\.conv_in") or not header.has(
        r"^first_stage_model\.decoder\.conv_in"
    ):
        raise _not_a_base(path, "a UNet without a VAE")
    if header.has(r"^conditioner\.embedders\.1\.") and has_labels:
        if not header.has(r"^conditioner\.embedders\.0\.transformer\."):
            raise _not_a_base(path, "an XL base without its first text encoder")
        return FAMILIES["sdxl"]
    if header.has(r"^conditioner\.embedders\.0\.model\."):
        raise _not_a_base(
            path, "the SDXL refiner", "the SDXL refiner cannot be trained; take the base model"
        )
    if header.has(r"^embedder\.") or has_labels:
        raise _not_a_base(path, "unCLIP, or another base that takes more than text")
    if header.has(r"^cond_stage_model\.model\.transformer\."):
        return FAMILIES["sd2"]
    if header.has(r"^cond_stage_model\.transformer\.text_model\."):
        return FAMILIES["sd1"]
    raise _not_a_base(path, "a UNet without its text encoder")


def _kind_of(header: TensorHeader) -> str:
    if not header.shapes:
        return "a file without tensors"
    for pattern, kind in PARTS.items():
        if header.has(pattern):
            return kind
    names = ", ".join(list(header.shapes)[:3])
    return f"tensors of an unknown kind ({names[:120]})"


def _not_a_base(path: Path, kind: str, hint: str | None = None) -> BackboneError:
    return BackboneError(
        "not a whole Stable Diffusion 1.x, 2.x or XL text-to-image base",
        where=path,
        got=kind,
        hint=hint,
    )
