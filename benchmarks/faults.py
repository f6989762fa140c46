"""Kill verbs at random moments, and let a hub fail in every way; count what went wrong.

    python -m benchmarks.faults --kills 20 --hub 5

A killed verb is run again: it must end well, leave what an unbroken run leaves and no debris, and
change no input. Counted are tracebacks, losses (any of these not so) and hangs. Verbs run on tiny
random bases in forks of a process that has imported all, so that kills fall into their work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lora_scene.adapters.folder import save_adapter
from lora_scene.cli.main import main as main_of_cli
from tests import tiny
from tests.adapters import made
from tests.scenes import factory

HANG = 300.0  # seconds
HUB_FAULTS = ("hang", "drip", "flood", "cut", "flip", "drop_reply", "429", "500", "etag")
SHORT = ("phase1.steps=3", "phase2.steps=3", "run.checkpoint_every=1", "prior.weight=0",
         "lora.rank=4", f"base.resolution={tiny.RESOLUTION}")  # fmt: skip
OUT, PICTURE, RUN = "OUT", "OUT.png", "RUN"  # a new folder, a new file, a finished run
KINDS = (".safetensors", ".png", ".toml")  # what the same call writes again byte for byte


def verbs(top: Path) -> dict[str, list[str]]:
    """Return calls of the verbs that write, by name."""
    adapter, scene, base = str(top / "adapter"), str(top / "scene"), str(top / "sd1-0")
    drawn = ["--base", base, "--steps", "3", "--device", "cpu", "--seed", "1"]
    photo = ["--photo", f"{scene}/img.png"]
    train = ["train", scene, "--base", base, "--device", "cpu", *_settings(), "--out", OUT]
    asked = ["--mask", f"{scene}/mask0.png", "--prompt", "a <bear>"]
    return {
        "train": train,
        "train --from": [*train, "--from", adapter, "--set", "run.snapshots=2"],
        "generate": ["generate", adapter, *asked[2:], "--count", "3", *drawn, "--out", OUT],
        "edit": ["edit", adapter, *photo, *asked, *drawn, "--out", PICTURE],
        "complete": ["complete", adapter, *photo, "--grow", "right=16", *drawn, "--out", PICTURE],
        "mask": ["mask", f"{scene}/img.png", "--box", "bear=8,8,40,40", "--replace", "--out", OUT],
        "check": ["check", scene, "--out", PICTURE],
        "export": ["export", adapter, "--out", OUT],
        "merge": ["merge", adapter, str(top / "other"), "--weights", "1,1", "--out", OUT],
        "pull": ["pull", adapter, "--out", OUT],
        "report": ["report", RUN],
        "pick": ["pick", RUN, "--seeds", "1", "--steps", "2", "--weights", "1", *drawn[:2]],
        "pick --take": ["pick", RUN, "--take", "2:0.5"],
    }


def _settings() -> list[str]:
    return [word for setting in SHORT for word in ("--set", setting)]


def prepare(top: Path) -> None:
    """Write a base, a scene, two adapters and a run, in a process of its own: forks come."""
    tiny.folder("sd1", str(top))
    side = tiny.RESOLUTION
    example = factory.photo(side, side)
    example.pixels[14:36, 14:36] = (250, 20, 20)  # for the segmenter to find
    factory.write_toml_folder(top / "scene", example=example)
    pipe = tiny.pipeline("sd1")
    save_adapter(made.adapter(pipe, "sd1"), top / "adapter")
    save_adapter(made.adapter(pipe, "sd1", handles=("<dog>",)), top / "other")
    words = [*verbs(top)["train"][:-1], str(top / "run"), "--set", "run.snapshots=2"]
    told, _ = run(words)
    if "FAILED" in told:
        raise SystemExit(told)


def digest(folder: Path, *, whole: bool = False) -> dict[str, str]:
    """Return the hash of every file, by relative path; of a result, of what comes out again."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return {
        path.relative_to(folder.parent if path == folder else folder).as_posix():
            hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and (whole or (path.suffix in KINDS and "checkpoint" not in path.parts))
    }  # fmt: skip


def run(words: list[str], *, kill_after: float | None = None) -> tuple[str, float]:
    """Run a verb in a fork, kill it if it lasts so long; return what it told and its seconds."""
    begun = time.monotonic()
    with tempfile.NamedTemporaryFile("r") as told:
        process = multiprocessing.get_context("fork").Process(target=_call, args=(words, told.name))
        process.start()
        process.join(kill_after or HANG)
        is_late = process.is_alive()
        process.kill()
        process.join()
        text = told.read()
    seconds = time.monotonic() - begun
    if kill_after is None and process.exitcode:
        text += "\nHANG" if is_late else "\nFAILED"
    return text, seconds


def _call(words: list[str], told: str) -> None:
    with open(told, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["lora-scene", "--debug", *words]
    main_of_cli()


def kill_rounds(n_rounds: int, seed: int, names: list[str]) -> None:
    """Kill each verb, or those named, so many times; print what was counted."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        maker = multiprocessing.get_context("spawn").Process(target=prepare, args=(top,))
        maker.start()
        maker.join()
        inputs = digest(top, whole=True)
        for verb, call in verbs(top).items():
            if names and verb not in names:
                continue
            counted = _kill(top, call, n_rounds, rng)
            changed = {name for name, mark in digest(top, whole=True).items()
                       if inputs.get(name) != mark}  # fmt: skip
            counted["losses"] += len(changed)
            print(json.dumps({"class": verb, **counted}), flush=True)


def _kill(top: Path, call: list[str], n_rounds: int, rng: random.Random) -> Counter[str]:
    """Kill one verb at random moments; each time it is run again, and its result compared."""
    counted = Counter(kills=0, tracebacks=0, losses=0, hangs=0)
    with tempfile.TemporaryDirectory() as temporary:

        def words(place: str) -> list[str]:
            out = Path(temporary) / place / "x"
            if RUN in call and not out.exists():
                shutil.copytree(top / "run", out)
            return [f"{out}{word[3:]}" if word in (OUT, PICTURE, RUN) else word for word in call]

        told, whole = run(words("whole"))
        wanted = digest(Path(temporary) / "whole")
        if "FAILED" in told or not wanted:
            raise SystemExit(f"{call} fails without a kill: {told[-2000:]}")
        for n in range(n_rounds):
            told, _ = run(words(str(n)), kill_after=rng.uniform(0.02, whole))
            again, _ = run(words(str(n)))
            left = digest(Path(temporary) / str(n))
            is_lost = "FAILED" in again or not set(left.values()) <= set(wanted.values())
            debris = list((Path(temporary) / str(n)).rglob("*.part"))
            counted["kills"] += 1
            counted["losses"] += is_lost or not wanted.keys() <= left.keys() or bool(debris)
            counted["tracebacks"] += "Traceback" in told + again
            counted["hangs"] += "HANG" in again
            if is_lost or debris:
                print(again[-2000:], sorted(left), debris, file=sys.stderr)
    return counted


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
    parser.add_argument("verbs", nargs="*", help="to kill  [default: all]")
    given = parser.parse_args()
    for kind, counted in (hub_rounds(given.hub) if given.hub else {}).items():
        print(json.dumps({"class": kind, **counted}), flush=True)
    if given.kills:
        kill_rounds(given.kills, given.seed, given.verbs)


if __name__ == "__main__":
    main()
