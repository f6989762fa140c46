"""How good the built-in segmenter is: IoU with known masks, from boxes and points derived of them.

    python -m benchmarks.masks [SCENE ...] [--drawn 12] [--first-seed 0]

SCENE is a folder that `lora-scene check` accepts. Prints the tables of docs/masks.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time

import cv2
import numpy as np

from benchmarks.drawn_scenes import draw_scene
from lora_scene.scenes import mask_files
from lora_scene.scenes.coverage import bounding_box
from lora_scene.scenes.mask_prompts import Box, Point, Prompt
from lora_scene.scenes.masking import make_masks
from lora_scene.scenes.pictures import Mask
from lora_scene.scenes.scene import INSIDE, Photo, load_scene

SLACKS = (0.05, 0.15)  # of the box's width and height, on each side
N_POINTS = (0, 1, 2)
MOST_POINTS = 5
CAMOUFLAGES = (0.0, 0.6, 0.8)


def derive_prompts(photo: Photo, *, slack: float, n_points: int) -> list[Prompt]:
    """Make the prompts that a user with a steady hand would give for known masks.

    Args:
        photo: The photo and its true masks.
        slack: How much wider the box is than the mask, on each side, as a fraction of it.
        n_points: How many places inside are pointed at.
    """
    prompts = []
    for k, mask in enumerate(photo.masks):
        box = bounding_box(photo, k)
        assert box is not None
        left, top, right, bottom = box
        across, down = slack * (right - left), slack * (bottom - top)
        loose = Box(
            max(left - across, 0.0),
            max(top - down, 0.0),
            min(right + across, float(photo.width)),
            min(bottom + down, float(photo.height)),
        )
        prompts.append(Prompt(f"<c{k}>", "thing", loose, tuple(_deep_points(mask, n_points))))
    return prompts


def correct_prompt(prompt: Prompt, found: Mask, true: Mask) -> Prompt:
    """Add the point that a user would: in the middle of the larger kind of mistake."""
    missing, wrong = ((a >= INSIDE) & (b < INSIDE) for a, b in ((true, found), (found, true)))
    is_inside = bool(missing.sum() >= wrong.sum())
    (point,) = _deep_points((missing if is_inside else wrong).astype(np.float32), 1)
    return replace(prompt, points=(*prompt.points, replace(point, is_inside=is_inside)))


def iou(found: Mask, true: Mask) -> float:
    """Return the intersection over the union of two masks, 0..1."""
    return mask_files.iou(found >= INSIDE, true >= INSIDE)


def measure(photos: Sequence[tuple[str, Photo]]) -> dict[str, dict[tuple[float, int], float]]:
    """Return the IoU of each concept of each photo, for every slack and number of points."""
    rows: dict[str, dict[tuple[float, int], float]] = defaultdict(dict)
    for name, photo in photos:
        for slack in SLACKS:
            for n_points in N_POINTS:
                prompts = derive_prompts(photo, slack=slack, n_points=n_points)
                found = make_masks(photo.pixels, prompts).scene.photos[0].masks
                for k, true in enumerate(photo.masks):
                    rows[f"{name} {k}"][slack, n_points] = iou(found[k], true)
    return rows


def measure_points(photos: Sequence[tuple[str, Photo]]) -> dict[str, list[float]]:
    """Return the IoU of each concept alone after 1 to `MOST_POINTS` correcting points, no box."""
    rows: dict[str, list[float]] = defaultdict(list)
    for name, photo in photos:
        for k, true in enumerate(photo.masks):
            prompt, found = Prompt(f"<c{k}>", "thing"), np.zeros_like(true)
            for _ in range(MOST_POINTS):
                prompt = correct_prompt(prompt, found, true)
                found = make_masks(photo.pixels, [prompt]).scene.photos[0].masks[0]
                rows[f"{name} {k}"].append(iou(found, true))
    return rows


def _deep_points(mask: Mask, n_points: int) -> list[Point]:
    """Return the deepest place of a mask, then deep places far from those before."""
    depth = cv2.distanceTransform(np.pad((mask >= INSIDE).astype(np.uint8), 1), cv2.DIST_L2, 5)
    depth = depth[1:-1, 1:-1]
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]]
    far = np.full(mask.shape, np.inf)
    points: list[Point] = []
    for _ in range(n_points):
        worth = np.minimum(depth / depth.max(), 0.35) * far if points else depth
        y, x = np.unravel_index(int(worth.argmax()), mask.shape)
        points.append(Point(float(x), float(y)))
        far = np.minimum(far, np.hypot(ys - y, xs - x))
    return points


def _table(rows: dict[str, dict[tuple[float, int], float]], *, has_details: bool) -> str:
    settings = [(slack, n_points) for slack in SLACKS for n_points in N_POINTS]
    heads = [f"{100 * slack:.0f} %, {n} points" for slack, n in settings]
    lines = ["| mask | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    details = rows.items() if has_details else ()
    for name, row in details:
        lines.append(f"| {name} | " + " | ".join(f"{row[s]:.2f}" for s in settings) + " |")
    for name, summary in (("mean", np.mean), ("worst", np.min)):
        values = [float(summary([row[s] for row in rows.values()])) for s in settings]
        lines.append(f"| **{name}** | " + " | ".join(f"**{value:.3f}**" for value in values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", type=Path, help="scene folders with known masks")
    parser.add_argument("--drawn", type=int, default=12, help="how many scenes to draw")
    parser.add_argument("--first-seed", type=int, default=0, help="of the drawn scenes")
    options = parser.parse_args()
    photos = [(path.name, load_scene(path).photos[0]) for path in options.scenes]
    groups = {"Photos": photos}
    for camouflage in CAMOUFLAGES:
        title = f"Drawn scenes, colours {100 * camouflage:.0f} % towards the ground's"
        groups[title] = [
            (f"drawn {seed}", draw_scene(seed, camouflage=camouflage))
            for seed in range(options.first_seed, options.first_seed + options.drawn)
        ]
    cv2.setNumThreads(1)
    for name, values in measure_points(photos).items():
        print(f"points alone: {name}: {' '.join(f'{value:.2f}' for value in values)}")
    for title, group in groups.items():
        if group:
            start = process_time()
            rows = measure(group)
            seconds = (process_time() - start) / (len(rows) * len(SLACKS) * len(N_POINTS))
            table = _table(rows, has_details=group is photos)
            print(f"## {title} ({len(rows)} masks, {seconds:.2f} CPU s each)\n\n{table}\n")


if __name__ == "__main__":
    main()
