"""Make rough masks good ones: components, holes, edges that follow the photo, feathering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE

KEPT_PART = 0.15  # of the largest component's area: smaller ones are specks
EDGE_SIDE = 1024  # of the picture whose edges are followed, pixels
FILLED_HOLE = 0.02  # of the mask's area: larger holes are real, as under an arm
GROWTH = 0.01  # of the square root of the area: hand-painted masks lie this far outside the edge

Flags = npt.NDArray[np.bool_]


def keep_main_parts(mask: Flags, seeds: Sequence[tuple[int, int]] = ()) -> Flags:
    """Keep the largest component, those not much smaller, and those under a seed; fill holes.

    Args:
        mask: (H, W).
        seeds: (x, y) pixels that the user pointed at.
    """
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    n_parts, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if n_parts == 1:
        return mask.copy()
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = {k for k in range(1, n_parts) if areas[k] >= KEPT_PART * areas.max()}
    kept |= {int(labels[y, x]) for x, y in seeds} - {0}
    regrown = cv2.dilate(np.isin(labels, list(kept)).astype(np.uint8), kernel)
    return fill_holes(mask & regrown.astype(bool))


def fill_holes(mask: Flags) -> Flags:
    """Fill the holes of a mask that are small beside it."""
    import cv2

    n_gaps, labels, stats, _ = cv2.connectedComponentsWithStats(
        (~mask).astype(np.uint8), connectivity=4
    )
    rim = {int(k) for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]) for k in edge}
    limit = FILLED_HOLE * mask.sum()
    small = [k for k in range(1, n_gaps) if k not in rim and stats[k, cv2.CC_STAT_AREA] <= limit]
    return mask | np.isin(labels, small)


def follow_edges(mask: Mask, pixels: Pixels, *, radius: int, eps: float = 1e-3) -> Mask:
    """Let a mask's edge follow the photo's: the guided filter with a colour guide.

    He, Sun and Tang, *Guided image filtering* (TPAMI 2013), equations 14-16: in every window the
    mask is a linear function of the colours, a = (cov(I, I) + eps)^-1 cov(I, p), b = mean(p - a I).

    Args:
        mask: (H, W) in 0..1.
        pixels: (H, W, 3) uint8.
        radius: Half the window's side, pixels: how far the edge may move.
        eps: Variance of colour, in 0..1 squared, below which the guide is taken for flat.

    Returns:
        (H, W) float32 in 0..1.
    """
    import cv2

    def mean(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        side = (2 * radius + 1, 2 * radius + 1)
        blurred: npt.NDArray[np.float32] = cv2.boxFilter(
            values.astype(np.float32), -1, side, borderType=cv2.BORDER_REFLECT
        )
        return blurred

    guide = pixels.astype(np.float32) / 255
    mean_I, mean_p = mean(guide), mean(mask)
    cov_Ip = mean(guide * mask[:, :, None]) - mean_I * mean_p[:, :, None]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    cov_II = [
        mean(guide[:, :, i] * guide[:, :, j])
        - mean_I[:, :, i] * mean_I[:, :, j]
        + np.float32(eps * (i == j))
        for i, j in pairs
    ]
    a = _solve_symmetric(cov_II, cov_Ip)
    b = mean_p - (a * mean_I).sum(axis=2)
    refined: Mask = ((mean(a) * guide).sum(axis=2) + mean(b)).clip(0.0, 1.0)
    return refined


def _solve_symmetric(
    matrix: Sequence[npt.NDArray[np.float32]], right: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Solve a symmetric 3 x 3 system at every pixel, by cofactors.

    Args:
        matrix: The six (H, W) entries of the upper triangle, row by row.
        right: (H, W, 3).

    Returns:
        (H, W, 3).
    """
    m00, m01, m02, m11, m12, m22 = matrix
    c00, c01, c02 = m11 * m22 - m12 * m12, m02 * m12 - m01 * m22, m01 * m12 - m02 * m11
    c11, c12, c22 = m00 * m22 - m02 * m02, m01 * m02 - m00 * m12, m00 * m11 - m01 * m01
    x, y, z = right[:, :, 0], right[:, :, 1], right[:, :, 2]
    rows = (c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z)
    determinant = m00 * c00 + m01 * c01 + m02 * c02
    return np.stack(rows, axis=2) / determinant[:, :, None]


def feather(mask: Mask, *, growth: float = GROWTH) -> Mask:
    """Soften a mask's edge and move it outwards a little, in proportion to the mask's size.

    A Gaussian blur turns the edge into a ramp; cutting it below the middle moves the edge.

    Args:
        mask: (H, W) in 0..1.
        growth: Width of the blur, as a fraction of the square root of the mask's area; the edge
            moves by half of it.
    """
    import cv2

    sigma = max(growth * float(np.sqrt(mask.sum())), 0.5)
    ramp = cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    level = 0.3  # the normal distribution's 30 % lies at -0.52 sigma
    soft: Mask = ((ramp - level) * 2.0 + 0.5).clip(0.0, 1.0)
    return soft


def finish(
    rough: Flags,
    pixels: Pixels,
    *,
    reach: float,
    growth: float,
    seeds: Sequence[tuple[int, int]] = (),
) -> Mask:
    """Turn a small rough mask into a soft one of the pixels' size whose edge follows theirs.

    Args:
        rough: (h, w), of the pixels' shape, any scale.
        pixels: (H, W, 3) uint8.
        reach: How far the edge may move, pixels of `rough`.
        growth: As in `feather`.
        seeds: (x, y) pixels of `rough` that the user pointed at.
    """
    import cv2

    clean = keep_main_parts(rough, seeds).astype(np.float32)
    height, width = pixels.shape[:2]
    scale = min(EDGE_SIDE / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    guide = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(clean, size, interpolation=cv2.INTER_LINEAR)
    radius = max(round(reach * size[0] / rough.shape[1]), 1)
    soft = feather(follow_edges(mask, guide, radius=radius), growth=growth)
    full: Mask = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return full


def settle_overlaps(masks: Mask) -> Mask:
    """Give what several masks share to the smallest of them.

    Args:
        masks: (K, H, W) in 0..1.

    Returns:
        (K, H, W) whose sum is at most 1 everywhere.
    """
    areas = (masks >= INSIDE).sum(axis=(1, 2))
    settled = np.empty_like(masks)
    room = np.ones(masks.shape[1:], dtype=np.float32)
    for k in np.argsort(areas, kind="stable"):
        settled[k] = np.minimum(masks[k], room)
        room -= settled[k]
    return settled
