"""Kill verbs at random moments, and let a hub fail in every way; count what went wrong.

    python -m benchmarks.faults --kills 20 --hub 5

A killed verb is run again: it must end well, leave what an unbroken run leaves, and change no
input. Counted are tracebacks, losses (a difference, or an input that changed) and hangs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

HANG = 600.0  # seconds
CLI = (sys.executable, "-m", "lora_scene")
SCENE = Path(str(resources.files("lora_scene.scenes"))) / "demo"
SHORT = ("--set", "phase1.steps=3", "--set", "phase2.steps=3", "--set", "run.checkpoint_every=1")
HUB_FAULTS = ("hang", "drip", "flood", "cut", "flip", "drop_reply", "429", "500", "etag")


def verbs(adapter: Path) -> dict[str, Callable[[Path], list[str]]]:
    """Return the verbs that write, each with its arguments for an output folder."""
    drawn = ["--steps", "2", "--device", "cpu"]
    return {
        "train": lambda out: [str(SCENE), "--recipe", "mini", *SHORT, "--out", str(out)],
        "export": lambda out: [str(adapter), "--out", str(out)],
        "generate": lambda out: [str(adapter), "--prompt", "a house", *drawn, "--out", str(out)],
        "pull": lambda out: [str(adapter), "--out", str(out)],
    }


def digest(folder: Path) -> dict[str, str]:
    """Return the hash of every file of weights or pixels, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".safetensors", ".png") and "checkpoint" not in path.parts
    }


def run(verb: str, arguments: list[str], *, kill_after: float | None = None) -> tuple[str, float]:
    """Run a verb, kill it if it lasts so long; return its stderr and how long it took."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [*CLI, verb, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, told = process.communicate(timeout=kill_after or HANG)
    except subprocess.TimeoutExpired:
        process.kill()
        _, told = process.communicate()
        told += "" if kill_after else "\nHANG"
    if kill_after is None and process.returncode:
        told += "\nFAILED"
    return told, time.monotonic() - begun


def kill_rounds(n_rounds: int, seed: int) -> dict[str, Counter[str]]:
    """Kill each verb so many times; return what was counted."""
    rng, counts = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        run("train", [str(SCENE), "--recipe", "mini", *SHORT, "--out", str(top / "adapter")])
        for verb, arguments in verbs(top / "adapter").items():
            counted = counts[verb] = Counter(kills=0, tracebacks=0, losses=0, hangs=0)
            inputs = {folder: digest(folder) for folder in (SCENE, top / "adapter")}
            told, whole = run(verb, arguments(top / verb))
            wanted = digest(top / verb)
            counted["losses"] += "FAILED" in told or not wanted
            for n in range(n_rounds):
                out = top / f"{verb}-{n}"
                told, _ = run(verb, arguments(out), kill_after=rng.uniform(0.05, whole))
                counted["kills"] += 1
                again, _ = run(verb, arguments(out))
                left = set(digest(out).items()) if verb != "generate" else set()
                is_lost = "FAILED" in again or not left <= set(wanted.items())
                changed = any(digest(folder) != kept for folder, kept in inputs.items())
                counted["losses"] += is_lost or changed
                counted["tracebacks"] += "Traceback" in told + again
                counted["hangs"] += "HANG" in again
    return counts


def hub_rounds(n_rounds: int) -> dict[str, Counter[str]]:
    """Let the hub of the tests fail in each way; return what was counted."""
    from lora_scene.adapters import hub_calls

    hub_calls.PATIENCE = 1.0
    os.environ["HF_TOKEN"] = "hf_" + "x" * 34
    counts = {fault: Counter(faults=0, tracebacks=0, losses=0, hangs=0) for fault in HUB_FAULTS}
    for fault, counted in counts.items():
        for n in range(n_rounds):
            is_push = fault == "drop_reply" or (fault in ("hang", "429", "500") and n % 2 == 1)
            counted["faults"] += 1
            begun = time.monotonic()
            try:
                counted["losses"] += hub_loses(fault, is_push=is_push)
            except Exception:
                counted["tracebacks"] += 1
            counted["hangs"] += time.monotonic() - begun > 60
    return counts


def hub_loses(fault: str, *, is_push: bool) -> bool:
    """Push to, or pull from, a hub with a fault; tell whether anything was lost or strayed."""
    from huggingface_hub import constants

    from lora_scene.adapters.hub import fetch_adapter, publish
    from lora_scene.errors import LoraSceneError
    from tests.adapters import loopback

    name, content = "embeddings/a.safetensors", os.urandom(9000)
    part, method = ("/commit/", "POST") if is_push else ("/resolve/", "GET")
    with loopback.serve() as hub, tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        constants.HF_HUB_CACHE = str(top / "cache")
        hub.repos["a/b"] = {name: content}
        if fault.isdigit():
            hub.fail[method, part], hub.retry_after = int(fault), 86400
        elif fault == "etag":
            hub.etag = "../../../../evil"
        else:
            getattr(hub, fault).add(part)
        (top / "stage").mkdir()
        (top / "stage" / "README.md").write_text("new")
        is_lost = False
        try:
            if is_push:
                publish(top / "stage", "a/b", endpoint=hub.url)
                is_lost = hub.repos["a/b"].get("README.md") != b"new"
            else:
                folder = fetch_adapter("a/b", endpoint=hub.url)
                is_lost = (folder / name).read_bytes() != content
        except LoraSceneError:
            pass
        return is_lost or bool({path.name for path in top.iterdir()} - {"cache", "stage"})


def main() -> None:
    """Count, and print a line a class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each verb")
    parser.add_argument("--hub", type=int, default=4, help="rounds of each fault of a hub")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for kind, counted in {
        **(hub_rounds(given.hub) if given.hub else {}),
        **(kill_rounds(given.kills, given.seed) if given.kills else {}),
    }.items():
        print(json.dumps({"class": kind, **counted}), flush=True)


if __name__ == "__main__":
    main()
