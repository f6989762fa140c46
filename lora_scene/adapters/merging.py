"""Several adapters made one: exactly, along the rank, or to a smaller rank by SVD.

W + sum_i w_i up_i @ down_i = W + [w_1 up_1 | w_2 up_2 | ...] @ [down_1; down_2; ...]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from lora_scene.adapters.adapter import Adapter, LoraModule, TrainingInfo
from lora_scene.adapters.whole_model import needs_whole_model
from lora_scene.backbones.sources import is_same_base, other_base, public_name
from lora_scene.errors import AdapterError
from lora_scene.size import Size


@dataclass(frozen=True)
class Merge:
    """The outcome.

    Attributes:
        adapter: One adapter with the handles of all.
        error: ||merged - exact||_F / ||exact||_F over all modules together; 0 without SVD.
        worst_error: The largest such ratio of a single module.
        notes: What one should know.
    """

    adapter: Adapter
    error: float
    worst_error: float
    notes: tuple[str, ...]


def merge_adapters(
    adapters: Sequence[Adapter], weights: Sequence[float], *, rank: int | None = None
) -> Merge:
    """Merge adapters of one family into one.

    Args:
        adapters: At least two.
        weights: Factor of each one's LoRA update; rows are taken as they are.
        rank: The highest rank a module may keep; None keeps all, which is exact.

    Raises:
        AdapterError: Differing families, a handle that two of them have, rows of a whole model, or
            weights that are no finite numbers, one an adapter, or overflow.
    """
    _check(adapters, weights)
    exact = concatenate([adapter.modules for adapter in adapters], weights)
    beyond = [key for key, module in exact.items() if not torch.isfinite(module.up).all()]
    if beyond:
        raise AdapterError(
            "weights so large that numbers overflow", where=beyond[0], got=list(weights)
        )
    modules, error, worst = (exact, 0.0, 0.0) if rank is None else _truncated(exact, rank)
    concepts = tuple(concept for adapter in adapters for concept in adapter.concepts)
    notes = _notes_on_bases([adapter.info for adapter in adapters])
    notes += [
        f"at weight 0 nothing but the row is left of {', '.join(one.handles)}"
        for one, weight in zip(adapters, weights, strict=True)
        if weight == 0 and one.modules
    ]
    notes += [
        f"{', '.join(one.handles)} has no LoRA: its weight changes nothing"
        for one, weight in zip(adapters, weights, strict=True)
        if weight != 1 and not one.modules
    ]
    adapter = replace(
        adapters[0], concepts=concepts, modules=modules, info=_joined_info(adapters, weights)
    )
    return Merge(adapter, error, worst, tuple(notes))


def _truncated(
    exact: Mapping[str, LoraModule], rank: int
) -> tuple[dict[str, LoraModule], float, float]:
    """Return the modules of at most `rank`, and `Merge`'s two errors."""
    modules, squares, losses, worst = {}, 0.0, 0.0, 0.0
    for key, module in exact.items():
        modules[key], size, loss = _truncate(module, rank)
        squares, losses = squares + size**2, losses + loss**2
        worst = max(worst, loss / size if size else 0.0)
    return modules, math.sqrt(losses / squares) if squares else 0.0, worst


def _truncate(module: LoraModule, rank: int) -> tuple[LoraModule, float, float]:
    """Return the nearest module of at most `rank` (Eckart-Young), its size, and the error.

    With up = Q_u R_u and down' = Q_d R_d, the singular values of up @ down are those of the small
    matrix R_u R_d'. Where nothing is cut, the size alone: ||up @ down||^2 = <up' up, down down'>.

    Args:
        module: A folded module.
        rank: At least 1.

    Returns:
        The module, ||up @ down||_F, and ||difference||_F: 0 where nothing was cut.
    """
    up, down = module.up.flatten(1).double(), module.down.flatten(1).double()
    if rank >= module.rank:
        square = ((up.T @ up) * (down @ down.T)).sum()
        return module, math.sqrt(max(float(square), 0.0)), 0.0
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    left, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    kept = values[:rank].sqrt()
    up = (q_up @ left[:, :rank]) * kept
    down = kept[:, None] * (right[:rank] @ q_down.T)
    smaller = LoraModule(
        down.to(module.down).view(-1, *module.down.shape[1:]),
        up.to(module.up).view(len(up), -1, *module.up.shape[2:]),
        float(min(rank, len(kept))),
    )
    return smaller, float(values.norm()), float(values[rank:].norm())


def _check(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    if len(adapters) < 2 or len(weights) != len(adapters):
        raise AdapterError(
            "merging needs at least two adapters and a weight for each",
            got=f"{len(adapters)} adapters, {len(weights)} weights",
        )
    if not all(math.isfinite(weight) for weight in weights):
        raise AdapterError("a weight must be a finite number", got=list(weights))
    families = [adapter.family for adapter in adapters]
    if len(set(families)) > 1:
        raise AdapterError("adapters of differing families cannot be merged", got=families)
    handles = [handle.lower() for adapter in adapters for handle in adapter.handles]
    doubled = sorted({handle for handle in handles if handles.count(handle) > 1})
    if doubled:
        raise AdapterError(
            "two adapters have the same handle",
            got=", ".join(doubled),
            hint="rename one: --rename OLD=NEW, or Adapter.renamed",
        )
    _check_base_sizes(adapters)
    whole = [adapter for adapter in adapters if needs_whole_model(adapter)]
    if whole:
        raise AdapterError(
            "its run trained a whole model, of which an adapter holds the rows alone",
            where=", ".join(whole[0].handles),
            hint="they mean nothing on another base, and cannot be merged",
        )


def _notes_on_bases(infos: Sequence[TrainingInfo]) -> list[str]:
    """Return how the bases differ; where one of two tells no hash, their names are compared."""
    notes = []
    pairs = list(combinations([(info.base_model, info.base_hash) for info in infos], 2))
    if not all(is_same_base(one[1], other[1]) for one, other in pairs):
        notes.append("they were trained on different bases")
    elif any(all(name for name, _ in pair) and _differ(*pair) for pair in pairs):
        names = ", ".join(dict.fromkeys(public_name(info.base_model) for info in infos))
        notes.append(f"they were trained on bases of other names ({names}) and unknown weights")
    targets = list(dict.fromkeys(info.prediction_type for info in infos))
    if len(targets) > 1:
        notes.append(f"they were trained to predict {' and '.join(targets)}, a base predicts one")
    return notes


def _differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Tell whether two bases, each its name and hash, differ in what both tell."""
    return other_base(one, other, is_rounded=False) is not None


def _check_base_sizes(adapters: Sequence[Adapter]) -> None:
    """Refuse adapters of one family whose bases have layers of other sizes."""
    sizes: dict[str, tuple[object, ...]] = {}
    for adapter in adapters:
        own: dict[str, tuple[object, ...]] = {
            key: (*module.down.shape[1:], len(module.up)) for key, module in adapter.modules.items()
        }
        own["rows"] = tuple(rows.shape[1] for rows in adapter.concepts[0].rows)
        for key, size in own.items():
            if sizes.setdefault(key, size) != size:
                raise AdapterError(
                    "adapters of differently sized bases cannot be merged",
                    where=key,
                    got=" and ".join(adapter.info.base_model for adapter in adapters),
                )


def concatenate(
    updates: Sequence[Mapping[str, LoraModule]], weights: Sequence[float]
) -> dict[str, LoraModule]:
    """Return modules whose updates are the weighted sums of those given, exactly.

    Args:
        updates: Each as `Adapter.modules`.
        weights: One factor each.
    """
    parts: dict[str, list[tuple[LoraModule, float]]] = {}
    for modules, weight in zip(updates, weights, strict=True):
        for key, module in modules.items():
            parts.setdefault(key, []).append((module.folded(), weight))
    return {
        key: LoraModule(
            down=torch.cat([module.down for module, _ in found]),
            up=torch.cat([weight * module.up for module, weight in found], dim=1),
            alpha=float(sum(module.rank for module, _ in found)),
        )
        for key, found in parts.items()
    }


def _joined_info(adapters: Sequence[Adapter], weights: Sequence[float]) -> TrainingInfo:
    pairs = zip(adapters, weights, strict=True)
    recipes = [f"# weight {weight:g}: {_told(adapter)}" for adapter, weight in pairs]
    return replace(
        adapters[0].info,
        recipe_name="merge",
        recipe_toml="\n".join(recipes) + "\n",
        image_hashes=tuple(h for adapter in adapters for h in adapter.info.image_hashes),
        sizes=_joined_sizes([adapter.info for adapter in adapters]),
        taken="",
        begun="; ".join(filter(None, dict.fromkeys(adapter.info.begun for adapter in adapters))),
    )


def _told(adapter: Adapter) -> str:
    info = adapter.info
    told = [*adapter.handles, f"recipe {info.recipe_name}"]
    if not info.merged:
        told += [f"{info.steps[0]} + {info.steps[1]} steps", f"seed {info.seed}"]
    return ", ".join([*told, *([info.taken] if info.taken else [])])


def _joined_sizes(infos: Sequence[TrainingInfo]) -> tuple[Size, ...]:
    """Return the sizes of all photos, in order; none where all were learnt in squares."""
    if not any(info.sizes for info in infos):
        return ()
    own = [
        info.sizes or (Size(info.resolution, info.resolution),) * len(info.image_hashes)
        for info in infos
    ]
    return tuple(size for sizes in own for size in sizes)
