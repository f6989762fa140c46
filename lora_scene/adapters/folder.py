"""An adapter's folder: the diffusers file and one embedding file per concept, both in float32.

    scene/
    ├── pytorch_lora_weights.safetensors   absent when only rows were learnt
    └── embeddings/<stem>.safetensors      one per concept

Every file carries the same metadata; whatever else is in the folder is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept, LoraModule
from lora_scene.adapters.earlier_files import earlier_files, own_adapter_files
from lora_scene.adapters.formats import diffusers, embeddings
from lora_scene.adapters.formats.factors import padded_ranks
from lora_scene.adapters.formats.metadata import (
    FINGERPRINT,
    MAX_CONCEPTS,
    SCENE_KEYS,
    Note,
    fingerprint,
    has_note,
    read_note,
    write_note,
)
from lora_scene.adapters.untrusted import read_header, read_tensors
from lora_scene.adapters.writing import write_tensors
from lora_scene.backbones.families import FAMILIES
from lora_scene.errors import AdapterError
from lora_scene.file_groups import written_together
from lora_scene.files import write_json
from lora_scene.ownership import metadata_of
from lora_scene.scenes.handles import check_handles

RECIPE = "recipe.toml"  # beside an adapter that was trained here


def save_adapter(
    adapter: Adapter, folder: Path | str, *, records: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write an adapter into a folder, and return that: all of its files, or none.

    A `LoraSceneWarning` tells of files of an earlier version that went, or stay.

    Args:
        adapter: The adapter; scales are folded, so reading it back gives `adapter.folded()`.
        folder: Where to; made if need be. An earlier adapter of ours in it is replaced.
        records: Name to content of JSON files that come with it, all together.

    Raises:
        AdapterError: The adapter cannot be expressed in the diffusers layout.
        FileError: A foreign file stands in the way, or the folder cannot be written.
    """
    folder = Path(folder)
    files = adapter_files(adapter)
    note = write_note(adapter, padded_ranks(adapter.modules))
    earlier = earlier_files(folder, files, note)
    with written_together(folder, obsolete=earlier.replaced) as aside:
        for name, tensors in files.items():
            write_tensors(aside / name, tensors, note)
        for name, record in (records or {}).items():
            write_json(aside / name, record)
    earlier.tell(folder, adapter)
    return folder


def read_adapter(folder: Path | str) -> Adapter:
    """Read the adapter in a folder.

    Raises:
        AdapterError: A file is missing, damaged, hostile, or from another save of the adapter.
    """
    folder = Path(folder)
    note = _read_note(folder)
    concepts = tuple(_read_concepts(folder, note))
    modules = _read_modules(folder, note)
    adapter = Adapter(note.family, concepts, modules, note.info)
    if fingerprint(adapter) != note.fingerprint:
        raise AdapterError(
            "the files do not belong together, or were changed after they were written",
            where=folder,
            hint="save or download the adapter again",
        )
    return adapter


def refuse_another(
    folder: Path,
    note: Mapping[str, str],
    names: Iterable[str] = (),
    *,
    whole: bool = True,
    runs_alone: bool = False,
) -> None:
    """Refuse a folder whose adapter another one's files would replace.

    Args:
        folder: The folder.
        note: Metadata of what is about to be written.
        names: Files that will be replaced beside the adapter's own.
        whole: Whether the adapter's own files will be replaced.
        runs_alone: Whether float32 is the only copy just in the folder of a training, as where
            the new version of a published adapter comes.

    Raises:
        AdapterError: It holds another adapter in float32, maybe the only copy of what was learnt,
            or an adapter of another scene.
    """
    may_be_original = (folder / RECIPE).exists() or not runs_alone
    own = own_adapter_files(folder) if whole else []
    for path in [*own, *(folder / name for name in names)]:
        found = metadata_of(path)
        if not has_note(found) or found.get(FINGERPRINT) == note[FINGERPRINT]:
            continue
        is_same_scene = all(found.get(key) == note[key] for key in SCENE_KEYS)
        if is_same_scene and not (may_be_original and _is_original(path)):
            continue
        raise AdapterError(
            "holds an adapter at full precision, which this would replace"
            if is_same_scene
            else "holds an adapter of another scene, which this would replace",
            where=folder,
            got=path.name,
            hint="choose another folder, or move it away",
        )


def adapter_files(adapter: Adapter) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of each file of an adapter's folder, by relative path.

    Raises:
        AdapterError: See `to_diffusers` and `to_embedding`; or a handle is no file name.
    """
    problems = check_handles(adapter.handles, "adapter", error=AdapterError)
    if problems:
        raise problems[0]
    if len(adapter.concepts) > MAX_CONCEPTS:
        expected = f"at most {MAX_CONCEPTS}"
        raise AdapterError("too many concepts", expected=expected, got=len(adapter.concepts))
    files: dict[str, dict[str, torch.Tensor]] = {}
    if adapter.modules:
        files[diffusers.FILE] = diffusers.to_diffusers(adapter.modules)
    for concept in adapter.concepts:
        name = embeddings.embedding_path(concept.stem)
        if name in files:
            raise AdapterError("two handles share one file name", where=concept.handle, got=name)
        files[name] = embeddings.to_embedding(concept, FAMILIES[adapter.family])
    return files


def _is_original(path: Path) -> bool:
    """Tell whether a file holds factors or rows in float32, which alphas always are."""
    try:
        header = read_header(path)
        return any(kind == "F32" and header.shapes[key] for key, kind in header.dtypes.items())
    except AdapterError:  # a damaged file is nobody's original
        return False


def _read_note(folder: Path) -> Note:
    if not folder.is_dir():
        raise AdapterError("no such folder", where=folder)
    for path in own_adapter_files(folder):
        return read_note(read_header(path).metadata, path)
    raise AdapterError(
        "no adapter of lora_scene in this folder",
        where=folder,
        expected=f"{diffusers.FILE} or {embeddings.embedding_path('<stem>')}",
        got=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
        hint="`lora-scene inspect` shows what is in a foreign file",
    )


def _read_concepts(folder: Path, note: Note) -> Iterator[LearnedConcept]:
    for concept in note.concepts:
        path = folder / embeddings.embedding_path(concept.stem)
        if not path.is_file():
            raise AdapterError(
                f"the embedding of {concept.handle} is missing",
                where=path,
                hint="an adapter is its whole folder; copy or download all of it",
            )
        tensors, _ = read_tensors(path)
        rows = embeddings.from_embedding(tensors, concept, FAMILIES[note.family])
        yield concept.with_rows(tuple(row.float() for row in rows))


def _read_modules(folder: Path, note: Note) -> dict[str, LoraModule]:
    path, n = folder / diffusers.FILE, note.n_modules
    if n == 0:
        return {}
    if not path.is_file():
        raise AdapterError("the LoRA file is missing", where=path, expected=f"{n} modules")
    tensors, _ = read_tensors(path)
    floats = {key: tensor.float() for key, tensor in tensors.items()}
    modules = diffusers.from_diffusers(floats, note.ranks, path)
    if len(modules) != n:
        raise AdapterError("modules are missing", where=path, expected=n, got=len(modules))
    return modules
