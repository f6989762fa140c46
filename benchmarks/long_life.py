"""Load an adapter and unload it, again and again, then in threads at once: what stays behind.

    python -m benchmarks.long_life [--rounds 200] [--threads 2] [--out FILE]

On a tiny random base, on the CPU. Prints JSON lines: whether weights, vocabulary and a picture are
bit for bit as before and with the adapter, how much the process grew, and whether threads that open
a pipeline of their own and load into it leave meta tensors, patched torch or other pictures behind.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch

import lora_scene
from benchmarks.records import write
from lora_scene.adapters.folder import save_adapter
from lora_scene.backbones.loading import load_pipeline
from tests import tiny
from tests.adapters import made

PATCHED = ("register_parameter", "register_buffer", "__init__")  # by libraries, while they load
PARTS = ("unet", "text_encoder", "vae")


def state(pipeline: Any) -> str:
    """Return the sha256 of a pipeline's weights, its vocabulary and a picture of it."""
    digest = hashlib.sha256(str(len(pipeline.tokenizer)).encode())
    for part in PARTS:
        for name, tensor in sorted(getattr(pipeline, part).state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    seeded = torch.Generator().manual_seed(0)
    drawn = pipeline("a <bear>", num_inference_steps=2, generator=seeded, output_type="np",
                     height=tiny.RESOLUTION, width=tiny.RESOLUTION)  # fmt: skip
    digest.update(drawn.images.tobytes())
    return digest.hexdigest()


def opened(base: str) -> Any:
    """Open the base without a bar and without the safety checker."""
    pipeline = load_pipeline(base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def rounds(base: str, adapter: Path, n_rounds: int) -> dict[str, Any]:
    """Load and unload; count the rounds after which anything is other than it was."""
    pipeline = opened(base)
    before, sizes, differences = state(pipeline), [], 0
    loaded = ""
    for _ in range(n_rounds):
        lora_scene.load_adapter(pipeline, adapter, name="a")
        inside = state(pipeline)
        lora_scene.unload_adapter(pipeline, "a")
        differences += state(pipeline) != before or inside == before
        differences += inside != (loaded or inside)
        loaded = inside
        gc.collect()
        sizes.append(psutil.Process().memory_info().rss)
    quarter = n_rounds // 4
    return {"what": "rounds", "rounds": n_rounds, "differences": differences,
            "mb_after_a_quarter": sizes[quarter] >> 20,
            "mb_at_the_end": sizes[-1] >> 20}  # fmt: skip


def threads(base: str, adapter: Path, n_threads: int, n_rounds: int) -> dict[str, Any]:
    """Let threads open a pipeline each and load into it, all at once, so many times."""
    before = [getattr(torch.nn.Module, name) for name in PATCHED]
    pipeline = opened(base)
    lora_scene.load_adapter(pipeline, adapter, name="a")
    wanted, found, errors = state(pipeline), [], []
    barrier = threading.Barrier(n_threads)

    def work() -> None:
        try:
            for _ in range(n_rounds):
                barrier.wait()
                own = opened(base)
                lora_scene.load_adapter(own, adapter, name="a")
                metas = [p for part in PARTS for p in getattr(own, part).parameters() if p.is_meta]
                found.append("meta" if metas else state(own))
        except Exception as error:
            errors.append(repr(error))
            barrier.abort()

    workers = [threading.Thread(target=work) for _ in range(n_threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    after = [getattr(torch.nn.Module, name) for name in PATCHED]
    return {"what": "threads", "threads": n_threads, "loaded": len(found),
            "with_meta_tensors": found.count("meta"), "errors": errors[:3],
            "differences": sum(one not in ("meta", wanted) for one in found),
            "torch_is_patched": after != before}  # fmt: skip


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="Lines are added here  [default: stdout]")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        base = tiny.folder("sd1", place)
        adapter = save_adapter(made.adapter(tiny.pipeline("sd1"), "sd1"), Path(place) / "adapter")
        write(rounds(base, adapter, given.rounds), given.out)
        write(threads(base, adapter, given.threads, given.rounds // 10), given.out)


if __name__ == "__main__":
    main()
