"""Adapters in the layouts that other programs read.

Interfaces call an embedding by the name of its file. Where that is a piece of CLIP's vocabulary
(`bear`), SD.Next and kohya's scripts load nothing; where it is a word, A1111 lets it take the word
over in every prompt. So the files are called `<name>_<handle>`: CLIP's vocabulary has no piece in
which letters meet `_`, and no prompt such a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept
from lora_scene.adapters.earlier_files import EarlierFiles, earlier_files
from lora_scene.adapters.folder import refuse_another
from lora_scene.adapters.formats import diffusers, embeddings, kohya
from lora_scene.adapters.formats.factors import padded_ranks
from lora_scene.adapters.formats.metadata import fingerprint, public_info, write_note
from lora_scene.adapters.formats.modelspec import (
    SIDECAR_KEYS,
    Title,
    kohya_metadata,
    modelspec,
    sidecar,
)
from lora_scene.adapters.gallery import SamplePicture
from lora_scene.adapters.layouts import LAYOUTS, Layout
from lora_scene.adapters.whole_model import ROWS_ALONE, needs_whole_model
from lora_scene.adapters.writing import tensors_sha256, write_tensors
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.loading import DTYPES
from lora_scene.errors import AdapterError
from lora_scene.file_groups import written_together
from lora_scene.files import write_json
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.handles import handle_stem
from lora_scene.scenes.pictures import open_image
from lora_scene.targets import RESERVED_STEMS

PREVIEW_SIDE = 512  # pixels

_FOLDER_LAYOUTS = {"diffusers", "embeddings"}  # whose files an adapter's own folder is made of
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # a dot would end it in some interfaces


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        files: Paths, relative to the folder.
        notes: What one should know: layouts left out and why, limits of readers.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...]


def export_adapter(
    adapter: Adapter,
    out: Path,
    *,
    title: Title,
    layouts: Sequence[Layout] = LAYOUTS,
    dtype: str = "fp16",
    samples: Sequence[SamplePicture] = (),
) -> Export:
    """Write an adapter in several layouts into one folder, all of the same numbers.

    Asked for one layout alone, it fails where the layout cannot hold the adapter; asked for
    several, it leaves that one out and says so.

    Args:
        adapter: The adapter.
        out: The folder; what else is in it stays, but for files of an earlier export.
        title: Name of the files, author, licence.
        layouts: Which.
        dtype: `fp32`, `fp16` or `bf16`.
        samples: Pictures of it; the last becomes the preview beside the kohya file.

    Raises:
        AdapterError: No layout can hold the adapter, a number overflows in `dtype`, the title's
            name is no file name or that of a record, or the folder holds another adapter, or
            files of another version that would stay.
        FileError: A foreign file stands in the way, or the folder cannot be written.
    """
    check_name(title.name)
    kind = DTYPES[dtype]
    rounded = for_interfaces(adapter, title.name).cast(kind)
    _refuse_overflow(rounded, dtype)
    note = write_note(rounded)
    replaces = not _FOLDER_LAYOUTS.isdisjoint(layouts)
    names = [f"{title.name}.safetensors", f"{title.name}_bundle.safetensors"]
    refuse_another(out, note, names, whole=replaces)
    _refuse_other_record(out / f"{title.name}.json")
    notes = [_how_handles_are_called(rounded, title.name, layouts)]
    notes += [ROWS_ALONE] if needs_whole_model(adapter) else []
    obsolete: list[str] = []  # known once it is known what is written in their place
    with written_together(out, obsolete=obsolete) as aside:
        for layout in layouts:
            try:
                notes += _write_layout(layout, rounded, aside, title, kind)
            except AdapterError as error:
                if len(layouts) == 1:
                    raise
                notes.append(f"{layout} left out: {error.what}")
        files = tuple(sorted(p.relative_to(aside).as_posix() for p in aside.rglob("*.safetensors")))
        if not files:
            raise AdapterError("no layout can hold this adapter", got="; ".join(notes))
        earlier = _earlier(adapter, rounded, out, files, names=names)
        notes += earlier.told
        obsolete += earlier.replaced
        if names[0] in earlier.replaced:
            obsolete.append(f"{title.name}.preview.png")  # it showed that one
        if names[0] in files:
            has_rows = any(name.startswith(f"{embeddings.FOLDER}/") for name in files)
            record = sidecar(rounded, title, has_rows=has_rows)
            files = (*files, *_write_companions(record, aside, title, samples))
    return Export(files, tuple(notes))


def check_name(name: str) -> None:
    """Check that a name can be one of files, on every system and in every interface.

    Raises:
        AdapterError: It cannot.
    """
    is_own = f"{name}.safetensors" == diffusers.FILE
    if _NAME.fullmatch(name) is None or is_own or name.lower() in RESERVED_STEMS:
        raise AdapterError(
            "not a usable name for files",
            expected="letters, digits, _ and -, such as my-scene, and none of Windows' devices",
            got=ascii(name[:80]),
            hint="pass --name",
        )


def for_interfaces(adapter: Adapter, name: str) -> Adapter:
    """Return an adapter whose embedding files interfaces can take: `<name>_<handle>`."""
    concepts = tuple(
        replace(concept, stem=f"{name}_{handle_stem(concept.handle)}")
        for concept in adapter.concepts
    )
    return replace(adapter, concepts=concepts, info=public_info(adapter.info))


def _refuse_other_record(path: Path) -> None:
    """Refuse to replace a record of ours, such as a run's `training.json`, by a sidecar."""
    if is_ours(path) and not json.loads(path.read_text("utf-8")).keys() >= SIDECAR_KEYS:
        raise AdapterError(
            "a record of another kind lies where the file for interfaces would",
            where=path,
            hint="pass another --name, or choose another folder",
        )


def _write_layout(
    layout: Layout, adapter: Adapter, folder: Path, title: Title, dtype: torch.dtype
) -> list[str]:
    """Write one layout's files; return what one should know of them."""
    if layout in ("diffusers", "embeddings"):
        if layout == "diffusers" and adapter.modules:
            tensors = diffusers.to_diffusers(adapter.modules)
            _write(adapter, folder / diffusers.FILE, tensors, title, dtype)
        for concept in adapter.concepts:
            tensors = embeddings.to_embedding(concept, FAMILIES[adapter.family])
            path = folder / embeddings.embedding_path(concept.stem)
            _write(adapter, path, tensors, title, dtype, concept=concept)
        return []
    if not adapter.modules:
        what = "write" if layout == "kohya" else "bundle them with"
        raise AdapterError(f"only rows were learnt, so there is no LoRA to {what}")
    if layout == "kohya":
        tensors = kohya.to_kohya(adapter.modules, FAMILIES[adapter.family])
        path = folder / f"{title.name}.safetensors"
        _write(adapter, path, tensors, title, dtype, is_for_interfaces=True)
        return []
    path = folder / f"{title.name}_bundle.safetensors"
    _write(adapter, path, kohya.to_bundle(adapter), title, dtype, is_for_interfaces=True)
    n_keys = kohya.n_bundle_keys(adapter)
    limit = kohya.FORGE_MAX_UNMATCHED_KEYS
    forge = "ignores its embeddings" if n_keys <= limit else "refuses it"
    return [
        f"the bundle is for A1111 (1.7 and later) and SD.Next; it has {n_keys} embedding keys, and"
        f" Forge, whose limit is {limit}, {forge}; diffusers refuses it"
    ]


def _write(
    adapter: Adapter,
    path: Path,
    tensors: dict[str, torch.Tensor],
    title: Title,
    dtype: torch.dtype,
    *,
    concept: LearnedConcept | None = None,
    is_for_interfaces: bool = False,
) -> None:
    """Write one file with all the metadata that its readers look for."""
    digest = tensors_sha256(tensors, dtype)
    kind = "lora" if concept is None else "textual-inversion"
    metadata = write_note(adapter, padded_ranks(adapter.modules))
    metadata |= modelspec(adapter, title, kind=kind, sha256=digest)
    if concept is not None:
        metadata["modelspec.title"] = concept.stem
        metadata["modelspec.trigger_phrase"] = f"<{concept.stem}>"
    if is_for_interfaces:
        metadata |= kohya_metadata(adapter, title, digest)
    write_tensors(path, tensors, metadata, dtype)


def _write_companions(
    record: Mapping[str, Any], folder: Path, title: Title, samples: Sequence[SamplePicture]
) -> tuple[str, ...]:
    write_json(folder / f"{title.name}.json", record)
    if not samples:
        return (f"{title.name}.json",)
    preview = open_image(samples[-1].path)[0].convert("RGB")
    preview.info.clear()  # nothing that a picture may carry beside its pixels
    preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    write_picture(folder / f"{title.name}.preview.png", preview)
    return f"{title.name}.json", f"{title.name}.preview.png"


def _earlier(
    adapter: Adapter, rounded: Adapter, out: Path, files: Sequence[str], *, names: Sequence[str]
) -> EarlierFiles:
    """Find files of an earlier export; refuse where some would stay beside the new ones."""
    stems = [embeddings.embedding_path(concept.stem) for concept in rounded.concepts]
    found = earlier_files(
        out, files, write_note(rounded), named=(*names, *stems), source=fingerprint(adapter)
    )
    found.refuse_left(out)
    return found


def _how_handles_are_called(adapter: Adapter, name: str, layouts: Sequence[Layout]) -> str:
    """Say what interfaces take for the handles, or that nothing here holds them."""
    if set(layouts) == {"kohya"}:
        return f"{name}.safetensors holds no handles: --format embeddings writes them"
    words = " and ".join(concept.stem for concept in adapter.concepts)
    return f"in interfaces the handles are called by their files: a photo of {words}"


def _refuse_overflow(adapter: Adapter, dtype: str) -> None:
    tensors = [rows for concept in adapter.concepts for rows in concept.rows]
    for module in adapter.modules.values():
        tensors += [module.down, module.up]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise AdapterError(f"a number is too large for {dtype}", hint="use bf16 or fp32")
