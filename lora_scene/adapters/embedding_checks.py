"""Embedding files, and those in a bundle, held against an adapter's rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept
from lora_scene.adapters.fit import pipeline_family
from lora_scene.adapters.formats.kohya import BUNDLE, BUNDLE_KEYS
from lora_scene.adapters.inspection import Inspection
from lora_scene.adapters.untrusted import read_tensors
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.loading import quiet_libraries

ROW_TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float32: 1e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


def load_embeddings(pipeline: Any, source: Adapter | Mapping[str, Path]) -> int:
    """Load embeddings with diffusers' own loader, as a stranger would.

    Args:
        pipeline: The pipeline.
        source: An adapter, or token to embedding file.

    Returns:
        How many new tokens the first tokenizer then knows.
    """
    family = pipeline_family(pipeline)
    n_before = len(pipeline.tokenizer)
    for index, key in enumerate(family.embedding_keys):
        for token, rows in _rows(source, key, index).items():
            with quiet_libraries():
                pipeline.load_textual_inversion(
                    {token: rows},
                    token=token,
                    text_encoder=getattr(pipeline, family.text_encoders[index]),
                    tokenizer=getattr(pipeline, family.tokenizers[index]),
                )
    return len(pipeline.tokenizer) - n_before


def wrong_embeddings(found: Inspection, reference: Adapter) -> list[str]:
    """Return what is wrong with the embeddings in a file, compared with an adapter's rows."""
    tensors, _ = read_tensors(found.path)
    family = FAMILIES[reference.family]
    is_bundle = found.layout == "bundle"
    problems = []
    stems = {stem: concept_of(stem, found, reference) for stem in found.n_vectors}
    wanted = reference.handles if is_bundle else ()
    missing = set(wanted) - {concept.handle for concept in stems.values() if concept is not None}
    problems += [f"the rows of {handle} are missing" for handle in sorted(missing)]
    for stem, concept in stems.items():
        if concept is None:
            problems.append(f"no handle of the adapter has a file called {stem}")
            continue
        for key, rows in zip(family.embedding_keys, concept.rows, strict=True):
            name = f"{BUNDLE}.{stem}.{BUNDLE_KEYS[key]}" if is_bundle else key
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != rows.shape:
                problems.append(f"the rows of {concept.handle} are missing or of another shape")
                continue
            error = float((tensor.float() - rows).norm() / rows.norm().clamp_min(1e-12))
            if error > ROW_TOLERANCE.get(tensor.dtype, 0.0):
                problems.append(f"the rows of {concept.handle} are off by {error:.1e}")
    return problems


def concept_of(stem: str, found: Inspection, reference: Adapter) -> LearnedConcept | None:
    """Return the concept of an adapter whose rows a file, or a name in a bundle, stands for.

    The file's metadata tell it, whatever a person has called the file since.
    """
    noted = {c.stem: c.handle for c in found.note.concepts} if found.note is not None else {}
    title = found.metadata.get("modelspec.title", "") if found.layout == "embedding" else ""
    handle = noted.get(title) or noted.get(stem)
    for concept in reference.concepts:
        if concept.handle == handle or (handle is None and concept.stem == stem):
            return concept
    return None


def _rows(source: Adapter | Mapping[str, Path], key: str, index: int) -> dict[str, torch.Tensor]:
    if isinstance(source, Adapter):
        return {concept.handle.lower(): concept.rows[index] for concept in source.concepts}
    return {token: read_tensors(path)[0][key] for token, path in source.items()}
