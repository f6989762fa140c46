"""What a run begins from: an earlier adapter, or somebody's LoRA of the same family.

Its update is merged into the base for the run, and what is learnt stands on it. So the adapter that
comes out holds it too, along the rank, where nothing is lost: it needs nothing beside itself.

    W' = W + w up @ down;   delivered: w up @ down + what was learnt on W'
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LoraModule
from lora_scene.adapters.earlier_files import own_adapter_files
from lora_scene.adapters.fit import check_fit
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.adapters.inspection import inspect_file
from lora_scene.adapters.layers import base_layer
from lora_scene.adapters.location import locate, name_in_pipeline
from lora_scene.adapters.stated import factor_pairs, folded_tensors
from lora_scene.adapters.untrusted import read_tensors
from lora_scene.adapters.whole_model import FULL_MODEL, needs_whole_model
from lora_scene.adapters.writing import tensors_sha256
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import FAMILIES, Family
from lora_scene.backbones.loading import quiet_libraries
from lora_scene.backbones.sources import other_base, public_name
from lora_scene.errors import AdapterError
from lora_scene.learning.events import Listener, Notice
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.lora import learned_modules, remove_lora

NAME = "beginning"
PEFT_OWN = "base_model.model."  # before its modules' names, where PEFT saves them itself
PEFT_CONFIG = "lora_adapter_metadata"  # diffusers' own note of alphas, which its reader heeds
_KNOWN = re.compile(
    r".+[._](alpha|lora_(down|up)\.weight|lora_[AB](\.default)?\.weight"
    r"|lora(_linear_layer)?\.(down|up)\.weight)"
)


@dataclass(frozen=True, eq=False)
class Beginning:
    """An adapter or a LoRA, read but in no base yet.

    Attributes:
        name: What to call it.
        weight: Factor of its update; rows are taken as they are.
        digest: sha256 over its numbers, hexadecimal.
        family: Key of `FAMILIES`, as far as the file tells.
        path: The file of a stranger's LoRA.
        adapter: An adapter of this package, or None.
        modules: What the delivered adapter holds of it, the weight folded in; empty before
            `merge_beginning`.
    """

    name: str
    weight: float
    digest: str
    family: str | None
    path: Path
    adapter: Adapter | None = None
    modules: Mapping[str, LoraModule] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """Return what metadata, cards and `inspect` say of it."""
        earlier = self.adapter.info.begun if self.adapter else ""
        chain = f", which began from {earlier}" if earlier else ""
        return f"{self.name} (sha256 {self.digest[:12]}) at weight {self.weight:g}{chain}"

    @property
    def mark(self) -> str:
        """Return what tells runs apart that begin from another, or at another weight."""
        return f"{self.digest} {self.weight}"

    def refuse_other_family(self, family: Family | None) -> None:
        """Refuse a base of another family, as far as both are known before it is loaded.

        Raises:
            AdapterError: It is.
        """
        if family is not None and self.family not in (None, family.key):
            raise AdapterError(
                "of another family than the base",
                where=self.name,
                expected=family.title,
                got=FAMILIES[str(self.family)].title,
            )


def read_beginning(source: Path | str, weight: float = 1.0) -> Beginning:
    """Read what a run begins from, and see all that is wrong with it before a base is loaded.

    Args:
        source: An adapter's folder, the file of a LoRA, a folder with one, or a hub id.
        weight: Factor of its update.

    Raises:
        AdapterError: It is missing, damaged, no LoRA, or of a kind that no base can be merged with.
    """
    path = Path(source).expanduser()
    if not math.isfinite(weight):
        raise AdapterError("a weight must be a finite number", where=source, got=weight)
    path = path if path.is_file() else locate(source)
    if path.is_dir() and own_adapter_files(path):
        return _read_own(path, weight)
    if path.is_dir():
        files = sorted(path.glob("[!.]*.safetensors"))
        if len(files) != 1:
            raise AdapterError(
                "neither an adapter's folder nor one with a single LoRA",
                where=path,
                got=", ".join(file.name for file in files[:4]) or "no .safetensors file",
                hint="give the file itself",
            )
        path = files[0]
    return _read_stranger(path, weight)


def merge_beginning(
    begun: Beginning, backbone: Backbone, base_hash: str, tell: Listener
) -> Beginning:
    """Merge it into the base, and return it with what the delivered adapter holds of it.

    Args:
        begun: What to merge.
        backbone: The base, in the host's memory, not stored in low bits yet.
        base_hash: Its `content_hash` before.
        tell: Told what a person should know.

    Raises:
        AdapterError: Not every module has its place in this base, or a number overflows.
    """
    begun.refuse_other_family(backbone.family)
    own = begun.adapter
    if own is None:
        found: Mapping[str, LoraModule] = _load_stranger(begun, backbone)
    else:
        check_fit(backbone.pipeline, own, name=name_in_pipeline(begun.path))
        found = own.folded().modules
        difference = other_base(
            (own.info.base_model, own.info.base_hash),
            (backbone.name, base_hash),
            is_rounded=backbone.dtype == torch.float16,
        )
        if difference is not None:
            tell(Notice(f"{begun.name} {difference}: what it learnt may look different on it"))
    modules = {k: replace(m, up=m.up * begun.weight) for k, m in found.items()}
    for key, module in modules.items():
        layer = base_layer(backbone.pipeline, key)
        assert layer is not None, "checked before"
        merged = (layer.weight.detach().float() + module.update).to(layer.weight)
        if not torch.isfinite(merged).all():
            hint = "a smaller weight: --from PATH:0.5"
            raise AdapterError("a number overflows", where=f"{begun.name}: {key}", hint=hint)
        layer.weight.data = merged
    return replace(begun, modules=modules)


def put_rows(begun: Beginning, table: HandleTable, tell: Listener) -> None:
    """Let the handles that an earlier adapter knows begin at its rows; say which do not.

    Raises:
        AdapterError: It has another number of rows a handle.
    """
    if begun.adapter is None:
        return
    known = {concept.handle.casefold(): concept for concept in begun.adapter.concepts}
    for index, concept in enumerate(table.concepts):
        old = known.pop(concept.handle.casefold(), None)
        if old is None:
            continue
        if old.n_vectors != table.n_vectors:
            raise AdapterError(
                f"{concept.handle} has another number of rows",
                where=begun.name,
                expected=table.n_vectors,
                got=old.n_vectors,
                hint=f"--set handles.n_vectors={old.n_vectors}",
            )
        if old.noun.casefold() != concept.noun.casefold():
            text = f"{concept.handle} is a {old.noun} in {begun.name} and a {concept.noun} here"
            tell(Notice(f"{text}: it begins as the {old.noun}"))
        table.begin_at(index, old.rows)
    if known:
        names = ", ".join(concept.handle for concept in known.values())
        tell(Notice(f"{names} of {begun.name} not in this scene: the rows are left out"))


def _read_own(path: Path, weight: float) -> Beginning:
    adapter = read_adapter(path)
    if needs_whole_model(adapter):
        raise AdapterError(
            "the run trained a whole model, of which an adapter holds the rows alone",
            where=path,
            hint=f"learn on that model: --base {path / FULL_MODEL}",
        )
    name = public_name(str(path.absolute()))
    return Beginning(name, weight, fingerprint(adapter), adapter.family, path, adapter)


def _read_stranger(path: Path, weight: float) -> Beginning:
    tensors, _ = read_tensors(path)
    found = inspect_file(path)
    if any(key.startswith(PEFT_OWN) for key in tensors):
        raise AdapterError(
            "a file of PEFT's own, which tells neither its part of the base nor its alpha",
            where=path,
            hint="write it by diffusers' save_lora_weights",
        )
    odd = [key for key in tensors if _KNOWN.fullmatch(key) is None]
    if found.has_magnitudes or odd or not found.n_modules:
        raise AdapterError(
            "not a plain LoRA, and no other kind can be merged",
            where=path,
            expected="pairs of down and up factors for every module",
            got=f"{odd[0]} and {len(odd) - 1} more tensors" if odd else found.layout,
        )
    factor_pairs(tensors)
    digest = tensors_sha256(tensors, torch.float32)
    return Beginning(public_name(str(path.absolute())), weight, digest, found.family, path)


def _load_stranger(begun: Beginning, backbone: Backbone) -> dict[str, LoraModule]:
    """Let diffusers read a LoRA of any layout; return its modules, the base as it was.

    It finds the modules' places. Where ranks or alphas differ it scales some modules wrong, so
    that it is given factors without alphas, and its scales are not taken.
    """
    found_in_file = inspect_file(begun.path)
    wanted = sum(found_in_file.n_modules.values())
    has_config = PEFT_CONFIG in found_in_file.metadata
    source: Any = str(begun.path.parent)
    place = {"weight_name": begun.path.name}
    if not has_config:
        source, place = folded_tensors(read_tensors(begun.path)[0]), {}
    try:
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            backbone.pipeline.load_lora_weights(
                source, adapter_name=NAME, low_cpu_mem_usage=False, **place
            )
        found = learned_modules(backbone, NAME)
        if not has_config:
            found = {key: replace(one, alpha=float(one.rank)) for key, one in found.items()}
    except Exception as error:  # the libraries raise whatever their readers stumble over
        raise AdapterError(
            "does not fit this base", where=begun.name, expected=backbone.family.title, got=error
        ) from error
    finally:
        remove_lora(backbone)
    if len(found) != wanted:
        raise AdapterError(
            "not every module has its place in this base",
            where=begun.name,
            expected=f"{wanted} modules",
            got=len(found),
            hint="is it for a base of this family and size?",
        )
    return found
