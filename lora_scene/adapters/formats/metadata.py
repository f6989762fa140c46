"""Our own metadata: in every file, under one prefix, so that each file explains itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept, TrainingInfo
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.sources import public_name
from lora_scene.documents import parse_json
from lora_scene.errors import AdapterError, LoraSceneError, did_you_mean
from lora_scene.forms import build
from lora_scene.scenes.handles import (
    MAX_NOUN_CHARACTERS,
    Concept,
    check_handles,
    handle_stem,
)
from lora_scene.size import Size
from lora_scene.targets import RESERVED_STEMS

PREFIX = "lora_scene."
FINGERPRINT = f"{PREFIX}fingerprint"
N_MODULES = f"{PREFIX}n_modules"
STEMS = f"{PREFIX}stems"  # of files for interfaces alone, whose names are not the handles'
SCENE_KEYS = (f"{PREFIX}concepts", f"{PREFIX}image_hashes")  # equal for adapters of one scene
FORMAT_VERSION = "1"
PREDICTION_TYPES = ("epsilon", "v_prediction")
MAX_CONCEPTS = 256
MAX_SIDE = 2**14  # pixels
STEM_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")

_JSON = {"concepts", "n_modules", "ranks", "resolution", "seed", "steps", "versions",
         "image_hashes", "sizes", "stems"}  # fmt: skip

# A quoted path from a root, a home or a drive
_ABSOLUTE = re.compile(r"""(["'])((?:~|[A-Za-z]:)?[\\/][^"'\n]*)\1""")


@dataclass(frozen=True)
class ConceptNote(Concept):
    """What metadata says of a concept: how many rows it has, which are in `<stem>.safetensors`."""

    n_vectors: int = 1
    stem: str = ""

    def __post_init__(self) -> None:
        """Name the file after the handle where nothing else is said."""
        object.__setattr__(self, "stem", self.stem or handle_stem(self.handle))

    def with_rows(self, rows: tuple[torch.Tensor, ...]) -> LearnedConcept:
        """Return the concept itself."""
        return LearnedConcept(self.handle, self.noun, self.is_background, rows, self.stem)


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
    fields |= {key: text for key in ("begun", "taken") if (text := getattr(info, key))}
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
    note = _parse(fields, where)
    if note.family not in FAMILIES:
        raise AdapterError(
            "an unknown family",
            where=where,
            expected=", ".join(FAMILIES),
            got=ascii(note.family[:40]),
            hint=did_you_mean(note.family[:40], FAMILIES),
        )
    _check_info(note.info, where)
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
    return digest.hexdigest()


def _parse(fields: Mapping[str, str], where: object) -> Note:
    """Build the note of the texts, JSON in those of `_JSON`."""
    table: dict[str, Any] = dict(fields)
    for key in _JSON.intersection(fields):
        table[key] = parse_json(fields[key], f"{where}: {PREFIX}{key}", AdapterError)
    entries = table.get("concepts")
    n = len(entries) if isinstance(entries, list) else 0
    stems = table.pop("stems", None) or [""] * n
    lacking = {"versions", "image_hashes"} - table.keys()
    if not _are_whole(entries) or not isinstance(stems, list) or len(stems) != n:
        lacking.add("concepts")
    else:
        table["concepts"] = [{**one, "stem": s} for one, s in zip(entries, stems, strict=True)]
    sizes = table.get("sizes", [])
    if not _are_sizes(sizes):
        lacking.add("sizes")
    table["sizes"] = [] if lacking else [Size(*pair) for pair in sizes]
    table["info"] = {**table, "recipe_toml": table.get("recipe")}
    problems: list[LoraSceneError] = []
    note = build(Note, table, problems, error=AdapterError, ignores_unknown=True)
    if note is None or problems or lacking:
        told = "; ".join([*map(str, problems), *sorted(lacking)])
        raise AdapterError("damaged metadata", where=where, got=ascii(told)[1:201])
    return note


def _are_whole(entries: object) -> TypeGuard[list[dict[str, Any]]]:
    """Tell whether each concept says all that `write_note` says of it."""
    needed = {"is_background", "n_vectors"}
    return isinstance(entries, list) and all(
        isinstance(one, dict) and one.keys() >= needed for one in entries
    )


def _are_sizes(pairs: object) -> TypeGuard[list[list[int]]]:
    return isinstance(pairs, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(side) is int and 0 < side <= MAX_SIDE for side in pair)
        for pair in pairs
    )


def _check_info(info: TrainingInfo, where: object) -> None:
    """Refuse an unknown target, and what would write elsewhere than where it is printed."""
    if info.prediction_type not in PREDICTION_TYPES:
        got = ascii(info.prediction_type[:40])
        raise AdapterError("damaged metadata: an unknown prediction type", where=where, got=got)
    texts = [info.base_model, info.base_hash, info.recipe_name, info.begun, info.taken]
    texts += [*info.versions, *info.versions.values(), *info.image_hashes]
    texts.append(re.sub(r"[\n\t]", "", info.recipe_toml))
    if not all(text.isprintable() for text in texts):
        raise AdapterError("damaged metadata: control characters", where=where)


def _check_concepts(concepts: tuple[ConceptNote, ...], where: object) -> None:
    if not 1 <= len(concepts) <= MAX_CONCEPTS:
        expected = f"1 to {MAX_CONCEPTS} concepts"
        raise AdapterError("damaged metadata", where=where, expected=expected, got=len(concepts))
    problems = check_handles([concept.handle for concept in concepts], where, error=AdapterError)
    if problems:
        raise problems[0]
    for concept in concepts:
        if len(concept.noun) > MAX_NOUN_CHARACTERS or not concept.noun.isprintable():
            got = ascii(concept.noun[:80])
            raise AdapterError("damaged metadata: an odd noun", where=where, got=got)
        is_free = concept.stem.lower() not in RESERVED_STEMS
        if STEM_FORM.fullmatch(concept.stem) is None or not is_free:
            raise AdapterError("not a usable file name", where=where, got=ascii(concept.stem[:80]))
    stems = [concept.stem.lower() for concept in concepts]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise AdapterError("two handles share one file name", where=where, got=", ".join(doubled))
