"""What is in an adapter's file, read from its header alone: ours, kohya's, or a stranger's."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_scene.adapters.formats.metadata import Note, has_note, read_note
from lora_scene.adapters.untrusted import read_header
from lora_scene.backbones.tensor_header import TensorHeader
from lora_scene.errors import AdapterError

FAMILY_OF_WIDTH: Mapping[int, str] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
CROSS_KEY = re.compile(r"attn2[._]to_[kv][._].*(down|lora_A|hada_w1_b)")
UNET_BLOCK = re.compile(r"lora_unet_(down|mid|up|input|middle|output)_block")  # no transformer has
MAX_TRIGGER_WORDS = 20

FACTOR = re.compile(
    r"(?P<module>.+?)(\.processor)?"
    r"(\.lora(_linear_layer)?\.down|_lora\.down|\.lora_down|\.lora_A)(\.default)?\.weight"
)
# LyCORIS's LoHa, LoKr and OFT (arXiv:2309.14859); what ends in _b is (rank, inputs)
LYCORIS = re.compile(r"(?P<module>.+)\.(hada_w1_b|lokr_w[12](_b)?|oft_blocks|oft_diag)")
_PARTS: tuple[tuple[str, str], ...] = (
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te1_", "text_encoder"),
    ("lora_te_", "text_encoder"),
    ("lora_unet_", "unet"),
    ("unet.", "unet"),
)

_OURS = "[!.]*.safetensors"  # macOS leaves a ._x beside each x on foreign disks


@dataclass(frozen=True)
class Inspection:
    """What one file holds.

    Attributes:
        path: The file.
        layout: `diffusers`, `kohya`, `lycoris`, `bundle`, `embedding`, `peft` or `unknown`.
        n_bytes: Size of the file.
        n_tensors: How many tensors it holds.
        dtypes: dtype to number of tensors.
        n_modules: LoRA or LyCORIS modules in each part.
        ranks: Rank to number of modules that have one.
        has_magnitudes: Whether it holds DoRA magnitudes.
        n_vectors: Embedding rows in the file, by concept or file stem.
        family: `sd1`, `sd2`, `sdxl`, or None when nothing tells.
        note: Our own metadata, or None in a stranger's file.
        triggers: Words that wake it, from anyone's metadata.
        metadata: All metadata of the file.
    """

    path: Path
    layout: str
    n_bytes: int
    n_tensors: int
    dtypes: Mapping[str, int]
    n_modules: Mapping[str, int]
    ranks: Mapping[int, int]
    has_magnitudes: bool
    n_vectors: Mapping[str, int]
    family: str | None
    note: Note | None
    triggers: tuple[str, ...]
    metadata: Mapping[str, str]


def inspect_path(path: Path) -> list[Inspection]:
    """Inspect a file, or every adapter file in a folder and in its `embeddings`.

    Raises:
        AdapterError: There is none, or one is damaged.
    """
    if not path.is_dir():
        return [inspect_file(path)]
    paths = sorted([*path.glob(_OURS), *path.glob(f"embeddings/{_OURS}")])
    if not paths:
        raise AdapterError(
            "no .safetensors file in this folder",
            where=path,
            got=", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder",
        )
    return [inspect_file(path) for path in paths]


def inspect_file(path: Path) -> Inspection:
    """Inspect one file; its tensors are not read.

    Raises:
        AdapterError: It is missing, damaged or hostile.
    """
    header = read_header(path)
    ranks = _ranks(header)
    note = read_note(header.metadata, path) if has_note(header.metadata) else None
    return Inspection(
        path=path,
        layout=_layout(header),
        n_bytes=path.stat().st_size,
        n_tensors=len(header.shapes),
        dtypes=dict(Counter(header.dtypes.values())),
        n_modules=dict(Counter(_part(module) for module in ranks)),
        ranks=dict(Counter(rank for rank in ranks.values() if rank)),
        has_magnitudes=any(
            key.endswith(("dora_scale", "lora_magnitude_vector")) for key in header.shapes
        ),
        n_vectors=_n_vectors(header),
        family=note.family if note else _guess_family(header),
        note=note,
        triggers=_triggers(header.metadata, note),
        metadata=header.metadata,
    )


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """Return an inspection as plain values, for JSON."""
    fields = {**vars(inspection), "path": str(inspection.path)}
    if inspection.note is not None:
        fields["note"] = dataclasses.asdict(inspection.note)
    return fields


def _ranks(header: TensorHeader) -> dict[str, int]:
    """Return each module's rank; 0 for one that is not factored."""
    ranks: dict[str, int] = {}
    for key, shape in header.shapes.items():
        match = FACTOR.fullmatch(key) or LYCORIS.fullmatch(key)
        if match is not None:
            module, is_factor = match["module"], match.re is FACTOR or key.endswith("_b")
            ranks[module] = max(ranks.get(module, 0), shape[0] if shape and is_factor else 0)
    return ranks


def _layout(header: TensorHeader) -> str:
    keys = list(header.shapes)
    if any(key.startswith("bundle_emb.") for key in keys):
        return "bundle"
    if any(LYCORIS.fullmatch(key) for key in keys):
        return "lycoris"
    if any(key.startswith(("lora_unet_", "lora_te")) for key in keys):
        return "kohya"
    if any(".lora.down." in key or "lora_linear_layer" in key for key in keys):
        return "diffusers"
    if any(".lora_A." in key for key in keys):
        return "peft"
    return "embedding" if _n_vectors(header) else "unknown"


def _part(module: str) -> str:
    return next((part for prefix, part in _PARTS if module.startswith(prefix)), "unet")


def _n_vectors(header: TensorHeader) -> dict[str, int]:
    """Count embedding rows by concept; a file of its own is named by its stem."""
    found: dict[str, int] = {}
    for key, shape in header.shapes.items():
        bundled = re.fullmatch(r"bundle_emb\.([^.]+)\.(string_to_param\.\*|clip_[lg])", key)
        if len(shape) != 2 or "lora" in key:
            continue
        if bundled is not None:
            found[bundled[1]] = shape[0]
        elif key in ("emb_params", "clip_l", "clip_g"):
            found[header.path.stem] = shape[0]
        elif len(header.shapes) == 1:
            found[key] = shape[0]
    return found


def _guess_family(header: TensorHeader) -> str | None:
    """Tell the family from the width of the text that cross-attention reads, or of embeddings.

    A second text encoder is SDXL's where a UNet is beside it: SD3 has one too.
    """
    keys = list(header.shapes)
    has_unet = any(UNET_BLOCK.match(key) for key in keys)
    if "clip_g" in keys or (has_unet and any(key.startswith("lora_te2_") for key in keys)):
        return "sdxl"
    for key, shape in header.shapes.items():
        if CROSS_KEY.search(key) or key == "emb_params":
            return FAMILY_OF_WIDTH.get(shape[1] if len(shape) > 1 else 0)
    return None


def _triggers(metadata: Mapping[str, str], note: Note | None) -> tuple[str, ...]:
    """Collect trigger words from our metadata, ModelSpec's phrase, or kohya's tag counts."""
    if note is not None:
        return tuple(concept.handle for concept in note.concepts)
    if phrase := metadata.get("modelspec.trigger_phrase"):
        return (_printable(phrase),)
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({_printable(str(tag)): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
        return ()
    return tuple(tag for tag, _ in counts.most_common(MAX_TRIGGER_WORDS))


def _printable(text: str) -> str:
    """Return a stranger's text without what would steer a terminal."""
    return "".join(character for character in text if character.isprintable()).strip()
