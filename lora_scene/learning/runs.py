"""A run's folder: whose it is, whether it is finished, where it can go on.

out/
├── pytorch_lora_weights.safetensors, embeddings/   the adapter
├── recipe.toml                                     every setting of the run
├── training.json                                   written last: the run is finished
├── samples/                                        pictures drawn on the way
├── pipeline/                                       the whole model, where it was fine-tuned
└── checkpoint/                                     only while the run is not finished
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.adapter_folder import read_adapter
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.errors import CheckpointError, TrainingError
from lora_scene.learning.checkpoints import Checkpoint, load_checkpoint
from lora_scene.recipe import Recipe, dump_recipe
from lora_scene.scenes.scene import Scene

SUMMARY = "training.json"
CHECKPOINT = Path("checkpoint") / "state.safetensors"
LAST_GOOD = "last_good"
FULL_MODEL = "pipeline"  # where a fully fine-tuned base lies


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        adapter: What was learnt.
        folder: Where it lies.
        seconds: Wall time, loading included; of an earlier run if nothing was left to do.
        peak_bytes: Peak memory, of the device on CUDA, of the process elsewhere.
        n_trained: Numbers that were trained: rows, and adapters or the base's own weights.
    """

    adapter: Adapter
    folder: Path
    seconds: float
    peak_bytes: int
    n_trained: int


def fingerprint(scene: Scene, recipe: Recipe, base_hash: str) -> str:
    """Return the sha256 of all that decides a run's result; how often it is saved does not."""
    run = replace(recipe.run, checkpoint_every=0, sample_every=0, sample_prompts=())
    digest = hashlib.sha256(dump_recipe(replace(recipe, run=run)).encode())
    digest.update(base_hash.encode())
    for part in scene_bytes(scene):
        digest.update(part)
    return digest.hexdigest()


def scene_bytes(scene: Scene) -> Iterator[bytes]:
    """Yield all of a scene that decides what is learnt from it."""
    for concept in scene.concepts:
        yield repr(concept).encode()
    for photo in scene.photos:
        yield photo.pixels.tobytes()
        yield photo.masks.tobytes()


def finished(out: Path, fingerprint: str) -> TrainingResult | None:
    """Return the result that `out` holds, if it is this run's.

    Raises:
        TrainingError: It is another run's.
    """
    path = out / SUMMARY
    if not path.is_file():
        return None
    summary = json.loads(path.read_text("utf-8"))
    if summary["fingerprint"] != fingerprint:
        raise _other_run(TrainingError, out)
    costs = (summary[name] for name in ("seconds", "peak_bytes", "n_trained"))
    return TrainingResult(read_adapter(out), out, *costs)


def resumable(out: Path, fingerprint: str) -> Checkpoint | None:
    """Return the checkpoint that `out` holds, if it is this run's.

    Raises:
        CheckpointError: It is another run's, or damaged.
    """
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    checkpoint = load_checkpoint(path)
    if checkpoint.fingerprint != fingerprint:
        raise _other_run(CheckpointError, out)
    return checkpoint


def _other_run(kind: type[TrainingError], out: Path) -> TrainingError:
    return kind(
        "the folder holds a run with another recipe, scene or base",
        where=out,
        hint="take another --out, or pass --restart to discard it",
    )


def write_summary(result: TrainingResult, fingerprint: str) -> None:
    """Mark a run as finished."""
    summary: dict[str, Any] = {
        "fingerprint": fingerprint,
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "n_trained": result.n_trained,
        "handles": result.adapter.handles,
    }
    write_text(result.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text aside and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(text, "utf-8")
    os.replace(aside, path)


def clear(out: Path) -> None:
    """Delete an earlier run's marks and pictures, so that nothing of it is taken up."""
    for name in (CHECKPOINT.parent, LAST_GOOD, SAMPLES, FULL_MODEL):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / SUMMARY).unlink(missing_ok=True)
