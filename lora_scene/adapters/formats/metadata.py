"""Our own metadata: in every file, under one prefix, so that each file explains itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept, TrainingInfo
from lora_scene.adapters.untrusted import check_handle
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.sources import public_name
from lora_scene.errors import AdapterError, did_you_mean
from lora_scene.scenes.handles import MAX_NOUN_CHARACTERS, RESERVED_STEMS, handle_stem
from lora_scene.size import Size

PREFIX = "lora_scene."
FINGERPRINT = f"{PREFIX}fingerprint"
SCENE_KEYS = (f"{PREFIX}concepts", f"{PREFIX}image_hashes")  # equal for adapters of one scene
FORMAT_VERSION = "1"
PREDICTION_TYPES = ("epsilon", "v_prediction")
MAX_CONCEPTS = 256
MAX_SIDE = 2**14  # pixels
STEM_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")

# A quoted path from a root, a home or a drive
_ABSOLUTE = re.compile(r"""(["'])((?:~|[A-Za-z]:)?[\\/][^"'\n]*)\1""")


@dataclass(frozen=True)
class ConceptNote:
    """What metadata says of a concept; its rows are in its own file.

    Attributes:
        handle: Its token in prompts.
        noun: Its class noun.
        is_background: Whether it stands for the complement of all other concepts.
        n_vectors: How many rows stand for it in each text encoder.
        stem: Name of its embedding file without suffix.
    """

    handle: str
    noun: str
    is_background: bool
    n_vectors: int
    stem: str


@dataclass(frozen=True)
class Note:
    """An adapter's metadata, parsed and checked.

    Attributes:
        family: Key of `FAMILIES`.
        concepts: In the scene's order.
        info: Where the adapter comes from.
        fingerprint: sha256 over all of the adapter's tensors; equal in all files of one adapter.
        n_modules: How many LoRA modules the adapter has, in whichever file they are.
        ranks: The true rank of each module that is padded with zeros in the diffusers file.
    """

    family: str
    concepts: tuple[ConceptNote, ...]
    info: TrainingInfo
    fingerprint: str
    n_modules: int
    ranks: Mapping[str, int]


def write_note(adapter: Adapter, ranks: Mapping[str, int] | None = None) -> dict[str, str]:
    """Write an adapter's metadata as safetensors wants it, string to string.

    Args:
        adapter: The adapter.
        ranks: See `Note.ranks`.
    """
    info = public_info(adapter.info)
    concepts = [
        {
            "handle": concept.handle,
            "noun": concept.noun,
            "is_background": concept.is_background,
            "n_vectors": concept.n_vectors,
        }
        for concept in adapter.concepts
    ]
    fields = {
        "format": FORMAT_VERSION,
        "family": adapter.family,
        "concepts": json.dumps(concepts, ensure_ascii=False),
        "n_modules": str(len(adapter.modules)),
        "ranks": json.dumps(dict(ranks or {}), sort_keys=True),
        "fingerprint": fingerprint(adapter),
        "base_model": info.base_model,
        "base_hash": info.base_hash,
        "prediction_type": info.prediction_type,
        "resolution": str(info.resolution),
        "recipe_name": info.recipe_name,
        "recipe": info.recipe_toml,
        "seed": str(info.seed),
        "steps": json.dumps(list(info.steps)),
        "versions": json.dumps(dict(info.versions), sort_keys=True),
        "image_hashes": json.dumps(list(info.image_hashes)),
    }
    if info.sizes:
        fields["sizes"] = json.dumps(info.sizes)
    if info.taken:
        fields["taken"] = info.taken
    stems = [concept.stem for concept in adapter.concepts]
    if stems != [handle_stem(handle) for handle in adapter.handles]:
        fields["stems"] = json.dumps(stems)
    return {PREFIX + key: value for key, value in fields.items()}


def read_note(metadata: Mapping[str, str], where: object) -> Note:
    """Parse and check the metadata that `write_note` wrote.

    Args:
        metadata: The whole metadata of a file.
        where: The file, for messages.

    Raises:
        AdapterError: It is not ours, of a later format, incomplete or inconsistent.
    """
    fields = {
        key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)
    }
    if fields.get("format") != FORMAT_VERSION:
        raise AdapterError(
            "not an adapter of lora_scene",
            where=where,
            expected=f"metadata {PREFIX}format = {FORMAT_VERSION}",
            got=fields.get("format", "none"),
            hint="`lora-scene inspect` shows what is in a foreign file",
        )
    try:
        note = _parse(fields)
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise AdapterError("damaged metadata", where=where, got=f"{error!r:.200}") from error
    if note.family not in FAMILIES:
        raise AdapterError(
            "an unknown family",
            where=where,
            expected=", ".join(FAMILIES),
            got=ascii(note.family[:40]),
            hint=did_you_mean(note.family[:40], FAMILIES),
        )
    _check_concepts(note.concepts, where)
    return note


def public_info(info: TrainingInfo) -> TrainingInfo:
    """Return where an adapter comes from without any path of the machine that trained it.

    Of the base, and of every absolute path in the recipe, the last part stays.
    """
    texts = {f'"{info.base_model}"': f'"{public_name(info.base_model)}"'}
    with contextlib.suppress(ValueError):  # an adapter of another version may hold no TOML
        base = tomllib.loads(info.recipe_toml).get("base")
        model = base.get("model") if isinstance(base, dict) else None
        if isinstance(model, str):
            texts[json.dumps(model, ensure_ascii=False)] = json.dumps(public_name(model))
    recipe = info.recipe_toml
    for private, public in texts.items():
        recipe = recipe.replace(private, public)
    recipe = _ABSOLUTE.sub(lambda quoted: quoted[1] + _last_part(quoted[2]) + quoted[1], recipe)
    return replace(info, base_model=public_name(info.base_model), recipe_toml=recipe)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]+", path.rstrip("\\/"))[-1]


def has_note(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file's metadata was written by this package."""
    return PREFIX + "format" in metadata


def fingerprint(adapter: Adapter) -> str:
    """Return the sha256 over all of an adapter's tensors as float32, in a fixed order."""
    digest = hashlib.sha256()

    def add(name: str, tensor: torch.Tensor) -> None:
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())

    for concept in adapter.concepts:
        for index, rows in enumerate(concept.rows):
            add(f"{concept.handle}.{index}", rows)
    for key, module in sorted(adapter.folded().modules.items()):
        add(f"{key}.down", module.down)
        add(f"{key}.up", module.up)
        if module.magnitude is not None:
            add(f"{key}.magnitude", module.magnitude)
    return digest.hexdigest()


def concept_from(note: ConceptNote, rows: tuple[torch.Tensor, ...]) -> LearnedConcept:
    """Join what metadata says of a concept with its rows."""
    return LearnedConcept(note.handle, note.noun, rows, note.is_background, note.stem)


def _parse(fields: Mapping[str, str]) -> Note:
    steps = [int(count) for count in json.loads(fields["steps"])]
    if len(steps) != 2:
        raise ValueError("steps must be one number per phase")
    recipe = fields["recipe"]
    if not recipe.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("recipe holds control characters")
    info = TrainingInfo(
        base_model=fields["base_model"],
        base_hash=fields["base_hash"],
        prediction_type=fields["prediction_type"],
        resolution=int(fields["resolution"]),
        recipe_name=fields["recipe_name"],
        recipe_toml=recipe,
        seed=int(fields["seed"]),
        steps=(steps[0], steps[1]),
        versions={str(key): str(value) for key, value in _table(fields["versions"]).items()},
        image_hashes=tuple(str(digest) for digest in json.loads(fields["image_hashes"])),
        sizes=tuple(_parse_size(size) for size in json.loads(fields.get("sizes", "[]"))),
        taken=fields.get("taken", ""),
    )
    _refuse_control_characters(info)
    if info.prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"an unknown prediction type: {info.prediction_type:.40}")
    concepts = json.loads(fields["concepts"])
    if not isinstance(concepts, list) or not 1 <= len(concepts) <= MAX_CONCEPTS:
        raise ValueError(f"concepts must be a list of 1 to {MAX_CONCEPTS}")
    stems = json.loads(fields.get("stems", "null")) or [""] * len(concepts)
    return Note(
        family=fields["family"],
        concepts=tuple(
            _parse_concept(concept, stem) for concept, stem in zip(concepts, stems, strict=True)
        ),
        info=info,
        fingerprint=fields["fingerprint"],
        n_modules=int(fields["n_modules"]),
        ranks={str(key): int(rank) for key, rank in _table(fields["ranks"]).items()},
    )


def _parse_size(pair: list[int]) -> Size:
    size = Size(*pair)
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in size):
        raise ValueError(f"sizes must be pairs of pixels, not {str(pair)[:40]}")
    return size


def _refuse_control_characters(info: TrainingInfo) -> None:
    """Refuse what would write elsewhere than where it is printed, once JSON is decoded."""
    texts = [info.base_model, info.base_hash, info.prediction_type, info.recipe_name, info.taken]
    texts += [*info.versions, *info.versions.values(), *info.image_hashes]
    if not all(text.isprintable() for text in texts):
        raise ValueError("control characters")


def _parse_concept(entry: Mapping[str, Any], stem: Any) -> ConceptNote:
    note = ConceptNote(
        handle=entry["handle"],
        noun=entry["noun"],
        is_background=entry["is_background"],
        n_vectors=entry["n_vectors"],
        stem=stem or handle_stem(str(entry["handle"])),
    )
    is_typed = (
        isinstance(note.handle, str)
        and isinstance(note.noun, str)
        and isinstance(note.is_background, bool)
        and type(note.n_vectors) is int
        and isinstance(note.stem, str)
    )
    if not is_typed or len(note.noun) > MAX_NOUN_CHARACTERS or not note.noun.isprintable():
        raise ValueError(f"a concept of odd types or noun: {str(entry)[:80]}")
    return note


def _table(text: str) -> dict[str, Any]:
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError(f"not a JSON object: {text[:40]}")
    return table


def _check_concepts(concepts: tuple[ConceptNote, ...], where: object) -> None:
    for concept in concepts:
        check_handle(concept.handle, where)
        is_free = concept.stem.lower() not in RESERVED_STEMS
        if STEM_FORM.fullmatch(concept.stem) is None or not is_free:
            raise AdapterError("not a usable file name", where=where, got=ascii(concept.stem[:80]))
    stems = [concept.stem.lower() for concept in concepts]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise AdapterError("two handles share one file name", where=where, got=", ".join(doubled))
