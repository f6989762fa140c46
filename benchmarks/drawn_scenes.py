"""Scenes drawn in code, whose masks are known exactly: blobs with texture on textured ground."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_scene.scenes.scene import Photo

SIDE = 256  # pixels
PLACES = ((0.27, 0.30), (0.72, 0.34), (0.48, 0.74))  # (x, y) of the concepts, of the side


def draw_scene(seed: int, *, camouflage: float = 0.0) -> Photo:
    """Draw three concepts with soft shadows, uneven light, blur and sensor noise.

    Args:
        seed: Chooses shapes, colours and textures.
        camouflage: How far the concepts' colours are drawn towards the ground's, 0..1.
    """
    generator, side = np.random.default_rng(seed), SIDE
    ground = generator.uniform(60, 200, 3)
    canvas = _texture(generator, side, ground, contrast=14)
    masks = []
    for x, y in PLACES:
        centre = np.array([x, y]) * side + generator.uniform(-0.03, 0.03, 2) * side
        mask = _blob(generator, side, centre, generator.uniform(0.11, 0.19) * side)
        shadow = cv2.GaussianBlur(
            np.roll(mask, (side // 40, side // 60), (0, 1)), (0, 0), side / 50
        )
        canvas *= 1 - 0.35 * shadow[:, :, None]
        colour = camouflage * ground + (1 - camouflage) * generator.uniform(20, 235, 3)
        skin = _texture(generator, side, colour, contrast=22)
        patch = _blob(
            generator, side, centre + generator.uniform(-0.06, 0.06, 2) * side, 0.06 * side
        )
        skin += patch[:, :, None] * generator.uniform(-90, 90, 3)
        canvas = mask[:, :, None] * skin + (1 - mask[:, :, None]) * canvas
        masks = [other * (1 - mask) for other in masks] + [mask]
    light = np.linspace(0.8, 1.15, side)[None, :, None]
    canvas = cv2.GaussianBlur(canvas * light, (0, 0), 0.7)
    canvas += generator.normal(0, 4, canvas.shape)
    pixels = np.rint(canvas).clip(0, 255).astype(np.uint8)
    return Photo(pixels, np.stack(masks).astype(np.float32), f"drawn {seed}")


def _texture(
    generator: np.random.Generator, side: int, colour: npt.NDArray[np.float64], *, contrast: float
) -> npt.NDArray[np.float64]:
    """Return (side, side, 3) of one colour, with stripes, specks or clouds."""
    ys, xs = np.mgrid[:side, :side] / side
    turn = generator.uniform(0, np.pi)
    waves = np.sin((xs * np.cos(turn) + ys * np.sin(turn)) * generator.uniform(20, 120))
    clouds = cv2.resize(generator.normal(size=(9, 9)), (side, side), interpolation=cv2.INTER_CUBIC)
    specks = cv2.GaussianBlur(generator.normal(size=(side, side)), (0, 0), 1.2) * 3
    kinds = generator.dirichlet((1, 1, 1))
    pattern = kinds[0] * waves + kinds[1] * clouds + kinds[2] * specks
    return colour + contrast * pattern[:, :, None] * generator.uniform(0.5, 1.5, 3)


def _blob(
    generator: np.random.Generator, side: int, centre: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.float64]:
    """Return a (side, side) mask in 0..1: a circle whose radius swings a few times."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radii = np.ones_like(angles)
    for n_swings in (2, 3, 5):
        radii += generator.uniform(0, 0.22) * np.cos(n_swings * angles + generator.uniform(0, 6.3))
    outline = centre + radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    canvas = np.zeros((side, side), dtype=np.uint8)
    cv2.fillPoly(canvas, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas / 255.0
