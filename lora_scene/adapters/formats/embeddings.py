"""One embedding file per concept: `embeddings/<stem>.safetensors`.

SD 1.x and 2.x: `emb_params` (n, d). SDXL: `clip_l` (n, 768) and `clip_g` (n, 1280). The stem is
plain, because interfaces name an embedding by its file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_scene.adapters.adapter import LearnedConcept
from lora_scene.adapters.formats.metadata import ConceptNote
from lora_scene.backbones.families import Family
from lora_scene.errors import AdapterError

FOLDER = "embeddings"


def embedding_path(stem: str) -> str:
    """Return a concept's file, relative to the adapter's folder."""
    return f"{FOLDER}/{stem}.safetensors"


def to_embedding(concept: LearnedConcept, family: Family) -> dict[str, torch.Tensor]:
    """Return the tensors of a concept's file, one (n_vectors, d) a text encoder.

    Raises:
        AdapterError: The concept does not have one block of rows a text encoder.
    """
    if len(concept.rows) != len(family.embedding_keys):
        raise AdapterError(
            f"a concept of {family.title} needs rows for each text encoder",
            where=concept.handle,
            expected=len(family.embedding_keys),
            got=len(concept.rows),
        )
    if len({rows.shape[0] for rows in concept.rows}) != 1 or concept.n_vectors == 0:
        raise AdapterError(
            "text encoders must have the same number of rows for a concept, at least one",
            where=concept.handle,
            got=[tuple(rows.shape) for rows in concept.rows],
        )
    return dict(zip(family.embedding_keys, concept.rows, strict=True))


def from_embedding(
    tensors: Mapping[str, torch.Tensor], note: ConceptNote, family: Family
) -> tuple[torch.Tensor, ...]:
    """Return a concept's rows, one (n_vectors, d) a text encoder.

    Raises:
        AdapterError: The file's tensors are not those of this concept.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    is_right = set(shapes) == set(family.embedding_keys) and all(
        len(shape) == 2 and shape[0] == note.n_vectors and shape[1] > 0 for shape in shapes.values()
    )
    if not is_right:
        raise AdapterError(
            "not the embedding that the adapter describes",
            where=embedding_path(note.stem),
            expected=dict.fromkeys(family.embedding_keys, (note.n_vectors, "d")),
            got=dict(list(shapes.items())[:5]),
        )
    return tuple(tensors[key] for key in family.embedding_keys)
