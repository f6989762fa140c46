"""Whether exported files do what they should: each is loaded as a stranger would load it.

Only diffusers' own loaders touch a file here, in a pipeline that nothing else has touched. What
comes out is held against the adapter merged into the base's weights by the formula, which no
loader has a part in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LoraModule, product
from lora_scene.adapters.embedding_checks import concept_of, load_embeddings, wrong_embeddings
from lora_scene.adapters.fit import check_fit, pipeline_family
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.embeddings import embedding_path
from lora_scene.adapters.formats.factors import PARTS
from lora_scene.adapters.inspection import Inspection, inspect_path
from lora_scene.adapters.layers import base_layer
from lora_scene.adapters.probe import distance, draw_probe, probe_prompt
from lora_scene.adapters.stated import Updates, stated_problems, stated_updates
from lora_scene.adapters.untrusted import read_tensors
from lora_scene.adapters.vocabulary import add_concepts
from lora_scene.backbones.host_memory import give_back
from lora_scene.backbones.loading import quiet_libraries
from lora_scene.errors import AdapterError, VerificationError

NAME = "verified"
LEAST_EFFECT = 1e-6  # relative; float32 noise of two runs of the same pipeline is zero
UPDATE_TOLERANCE: Mapping[str, float] = {"F32": 1e-5, "F16": 3e-3, "BF16": 1e-2}
OUTPUT_TOLERANCE: Mapping[str, float] = {"F32": 1e-3, "F16": 2e-2, "BF16": 2e-1}


@dataclass(frozen=True)
class Check:
    """What became of one file.

    Attributes:
        path: The file.
        layout: See `Inspection.layout`.
        n_expected: LoRA modules, or embedding rows, that the file holds.
        n_matched: Those that found their place.
        effect: ||with - without|| / ||without|| of the output; None where it could not load.
        update_error: Largest relative error of an update `scale * up @ down` against the
            training-time one; None for embeddings, and without a reference.
        output_error: ||output - training-time output|| / ||training-time output||, or None.
        problems: What is wrong; empty when all is well.
    """

    path: Path
    layout: str
    n_expected: int
    n_matched: int
    effect: float | None
    update_error: float | None
    output_error: float | None
    problems: tuple[str, ...]


def verify_path(
    path: Path, open_base: Callable[[], Any], *, reference: Adapter | None
) -> tuple[Check, ...]:
    """Load every file in a folder, or one file, as its readers would.

    Args:
        path: The file or folder.
        open_base: Gives a fresh pipeline of the base, in float32.
        reference: The adapter as it was trained; without it, what a file should do is not known,
            only that it does something.

    Raises:
        AdapterError: A file is damaged, or the reference does not fit the base.
    """
    expected = None if reference is None else _trained_output(open_base(), reference)
    checks = []
    for found in inspect_path(path):
        give_back()  # the base before goes before the next one comes, whoever opens it
        problem = _unusable(found)
        if problem:
            n = _n_expected(found)
            checks.append(Check(found.path, found.layout, n, 0, None, None, None, (problem,)))
        elif found.layout == "embedding":
            checks.append(_check_embedding(found, open_base(), reference))
        else:
            checks.append(_check_lora(found, open_base(), reference, expected))
    return tuple(checks)


def _unusable(found: Inspection) -> str:
    """Return why no reader should be given a file at all; empty for one that may be loaded."""
    if found.layout == "unknown":
        return "holds neither LoRA modules nor embeddings"
    try:
        read_tensors(found.path)
    except AdapterError as error:
        return str(error)
    return ""


def _n_expected(found: Inspection) -> int:
    is_embedding = found.layout == "embedding"
    return sum((found.n_vectors if is_embedding else found.n_modules).values())


def own_reference(path: Path) -> Adapter | None:
    """Return the adapter in an export's diffusers files, or None where they are not all there."""
    if not path.is_dir():
        return None
    notes = [one.note for one in inspect_path(path) if one.note is not None]
    wanted = {embedding_path(concept.stem) for note in notes for concept in note.concepts}
    if any(note.n_modules for note in notes):
        wanted.add(FILE)
    is_whole = bool(wanted) and all((path / name).is_file() for name in wanted)
    return read_adapter(path) if is_whole else None


def refuse_failures(checks: tuple[Check, ...]) -> None:
    """Raise what is wrong with any file.

    Raises:
        VerificationError: At least one file has a problem.
    """
    failures = [
        VerificationError(problem, where=check.path)
        for check in checks
        for problem in check.problems
    ]
    if failures:
        raise VerificationError.collect(failures, "verification failed")


def _trained_output(pipeline: Any, reference: Adapter) -> torch.Tensor:
    check_fit(pipeline, reference, name="the adapter")
    merge_by_formula(pipeline, reference)
    return draw_probe(pipeline, probe_prompt(reference))


def merge_by_formula(pipeline: Any, adapter: Adapter) -> None:
    """Write W + scale * up @ down into a float32 pipeline's own weights, and add the handles."""
    for key, module in adapter.modules.items():
        layer = base_layer(pipeline, key)
        if layer is None:
            raise VerificationError("the base lacks a module of the adapter", where=key)
        with torch.no_grad():
            layer.weight += module.update.to(layer.weight)
    add_concepts(pipeline, adapter)


def _check_lora(
    found: Inspection, pipeline: Any, reference: Adapter | None, expected: torch.Tensor | None
) -> Check:
    problems = stated_problems(found)
    if found.has_magnitudes:
        problems.append("holds DoRA magnitudes, which its readers apply in ways that differ")
    if reference is not None:
        load_embeddings(pipeline, reference)
    prompt = probe_prompt(reference)
    without = draw_probe(pipeline, prompt)
    try:
        with quiet_libraries():
            pipeline.load_lora_weights(_as_readers_see_it(found), adapter_name=NAME)
    except Exception as error:  # whatever a foreign loader raises is the finding
        return _checked(found, problems, error=error)
    layers = loaded_layers(pipeline, NAME)
    output = draw_probe(pipeline, prompt)
    read: Updates = {key: partial(_loaded_update, layer) for key, layer in layers.items()}
    stated = stated_updates(found, layers, pipeline_family(pipeline))
    if _worst_error({key: read[key] for key in stated}, stated) > UPDATE_TOLERANCE["F32"]:
        problems.append("diffusers scales it otherwise than its own alphas say")
    update_error = output_error = None
    if reference is not None and expected is not None:
        wanted = {key: partial(_flat_update, each) for key, each in reference.modules.items()}
        update_error = max(_worst_error(read, wanted), _worst_error({**read, **stated}, wanted))
        output_error = distance(output, expected)
        n_shared = len(read.keys() & wanted.keys())
        if found.note is None and n_shared < len(wanted):  # a file of ours states its own number
            problems.append(f"holds {n_shared} of the adapter's {len(wanted)} modules")
        problems += _error_problems(found, update_error, output_error)
        problems += wrong_embeddings(found, reference) if found.layout == "bundle" else []
    check = _checked(found, problems, n_matched=len(layers), effect=distance(output, without))
    return replace(check, update_error=update_error, output_error=output_error)


def _check_embedding(found: Inspection, pipeline: Any, reference: Adapter | None) -> Check:
    problems = stated_problems(found)
    concept = concept_of(found.path.stem, found, reference) if reference is not None else None
    token = (concept.handle if concept is not None else f"<{found.path.stem}>").lower()
    without = draw_probe(pipeline, "a photo of")
    try:
        n_matched = load_embeddings(pipeline, {token: found.path})
    except Exception as error:  # whatever a foreign loader raises is the finding
        return _checked(found, problems, error=error)
    effect = distance(draw_probe(pipeline, f"a photo of {token}"), without)
    if reference is not None:
        problems += wrong_embeddings(found, reference)
    return _checked(found, problems, n_matched=n_matched, effect=effect)


def _checked(
    found: Inspection,
    problems: list[str],
    *,
    n_matched: int = 0,
    effect: float | None = None,
    error: Exception | None = None,
) -> Check:
    """Return what became of a file; judge how much of it loaded, and whether it does anything."""
    n = _n_expected(found)
    if error is not None:
        problems.append(f"diffusers refuses it: {type(error).__name__}: {error}"[:400])
    elif n_matched != n:
        rows = found.layout == "embedding"
        ending = "rows are in the vocabulary" if rows else "modules matched"
        problems.append(f"{n_matched} of {n} {ending}; the rest are ignored")
    if effect is not None and not math.isfinite(effect):
        problems.append("its output holds numbers that are none: it would draw black pictures")
    elif effect is not None and effect < LEAST_EFFECT:
        problems.append("it loads and does nothing: the output is that of the base")
    return Check(found.path, found.layout, n, n_matched, effect, None, None, tuple(problems))


def _as_readers_see_it(found: Inspection) -> Any:
    """Return what to hand to diffusers: a bundle without its embeddings, else the file's path."""
    if found.layout != "bundle":
        return str(found.path)
    tensors, _ = read_tensors(found.path)
    return {key: value for key, value in tensors.items() if not key.startswith("bundle_emb.")}


def loaded_layers(pipeline: Any, name: str) -> dict[str, Any]:
    """Return the LoRA layers of one adapter, keyed as in `Adapter.modules`."""
    from peft.tuners.lora import LoraLayer

    found = {}
    for part in PARTS:
        component = getattr(pipeline, part, None)
        for path, layer in component.named_modules() if component is not None else ():
            if isinstance(layer, LoraLayer) and name in layer.lora_A:
                is_bare = part != "unet" and not path.startswith("text_model.")
                found[f"{part}.{'text_model.' if is_bare else ''}{path}"] = layer
    return found


def _loaded_update(layer: Any) -> torch.Tensor:
    up, down = layer.lora_B[NAME].weight, layer.lora_A[NAME].weight
    update: torch.Tensor = layer.scaling[NAME] * product(up, down)
    return update.detach()


def _flat_update(module: LoraModule) -> torch.Tensor:
    return module.update.flatten(1)


def _worst_error(found: Updates, wanted: Updates) -> float:
    """Return the largest ||found - wanted|| / ||wanted|| of a module; inf where one has none.

    Updates are as large as the layers, so that one of each is made at a time.
    """
    if found.keys() != wanted.keys():
        return float("inf")
    return max((_error(found[key](), make()) for key, make in wanted.items()), default=0.0)


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    error = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
    return float("inf") if math.isnan(error) else error  # which a maximum would lose


def _error_problems(found: Inspection, update_error: float, output_error: float) -> list[str]:
    coarsest = max(found.dtypes, key=lambda name: OUTPUT_TOLERANCE.get(name, 0.0))
    problems = []
    if math.isinf(update_error):
        problems.append("not all of its modules can be compared with the adapter's")
    elif update_error > UPDATE_TOLERANCE.get(coarsest, 0.0):
        problems.append(f"its updates are off by up to {update_error:.1e}: a wrong scale?")
    if not output_error <= OUTPUT_TOLERANCE.get(coarsest, 0.0):
        problems.append(f"its output is off the training-time output by {output_error:.1e}")
    return problems
