"""Rows of a benchmark that nobody ran, with pictures of plain colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lora_scene.creating.picture_files import save_picture
from lora_scene.workshop.results import keep_row
from tests.judging import fakes

METHODS = ("ours", "full", "naive")
PROMPTS = ("a photo of bear and bowl on grass", "a photo of bear in the snow")


def marks(index: int, *, is_wrong: bool) -> dict[str, Any]:
    plain = PROMPTS[index % 2]
    return {
        "prompt": plain.replace("bear", "<bear>").replace("bowl", "<bowl>"),
        "plain": plain,
        "seed": 0,
        "subset": [0, 1] if "bowl" in plain else [0],
        "missing": ["<bowl>"] if is_wrong else [],
        "mixed": [],
        "file": f"pictures/{index:03}.png",
    }


def write(out: Path, *, n_scenes: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Write rows, pictures and scenes as a benchmark leaves them."""
    rng = np.random.default_rng(seed)
    rows = []
    for m, method in enumerate(METHODS):
        for n in range(n_scenes):
            key = f"{method}/all-s{n}-s0"
            pictures = [marks(i, is_wrong=m == 2 and i == 0) for i in range(2)]
            for i, one in enumerate(pictures):
                colour = tuple(int(v) for v in rng.integers(0, 255, 3))
                pixels = fakes.picture(fakes.RED, colour)
                pixels[:4, :, :] = (60 * m, 40 * n, 90 * i)
                save_picture(out / "runs" / key / one["file"], pixels, {})
            summary = {
                "identity": 0.8 - 0.1 * m + 0.02 * n,
                "prompt_similarity": 0.3 + 0.05 * m + 0.01 * n,
                "missing_rate": 0.5 * (m == 2),
                "mixing_rate": 0.0,
                "drift": None,
            }
            row = {
                "key": key, "method": method, "group": "all", "scene": f"s{n}", "seed": 0,
                "fingerprint": "0", "terms": {"base": "b", f"scene all/s{n}": "0"},
                "n_concepts": 2, "judge": "fake", "course_of": "",
                "seconds": 60.0, "judging_seconds": 30.0,
                "n_parameters": 1000 * (m + 1), "n_bytes": 4000, "peak_bytes": 10**9,
                "image_forwards": 100, "nouns": ["bear", "bowl"], "summary": summary,
                "curve": {"0": summary, "1": summary} if m == 0 else {}, "pictures": pictures,
            }  # fmt: skip
            keep_row(row, out / "runs" / key)
            rows.append(row)
    photo = fakes.picture(fakes.RED, fakes.BLUE)
    for n in range(n_scenes):
        save_picture(out / "scenes" / f"all-s{n}" / "photo0.png", photo, {})
        for k in range(2):
            look = fakes.picture(fakes.RED, None) if k == 0 else fakes.picture(None, fakes.BLUE)
            save_picture(out / "scenes" / f"all-s{n}" / f"concept{k}.png", look, {})
    return rows


def write_twins(out: Path) -> dict[int, np.ndarray]:
    """Write a scene of two cats, each drawn alone by two methods; return the first's pictures."""
    drawn = {}
    for m, row in enumerate(write(out, n_scenes=1)[:2]):
        row["nouns"] = ["cat", "cat"]
        for k, one in enumerate(row["pictures"]):
            handle = ("<bear>", "<bowl>")[k]
            one |= {"plain": "a photo of cat", "prompt": f"a photo of {handle}", "subset": [k]}
            pixels = np.full((32, 32, 3), (200 * k, 50 + 100 * m, 90), np.uint8)
            one["file"] = f"pictures/cat{k}.png"
            save_picture(out / "runs" / row["key"] / one["file"], pixels, {})
            if m == 0:
                drawn[k] = pixels
        keep_row(row, out / "runs" / row["key"])
    return drawn
