"""Encode a pool of scenes once, so that the denoiser trains on latents alone.

    python -m benchmarks.mini_world.latents --cache DIR --n 24000
    python -m benchmarks.mini_world.latents --cache DIR --n 60000 --wide --vae FOLDER

First the autoencoder's own latent scale is folded into its 1x1 convolutions: one shift a
channel and one common factor, so that latents have mean 0 and deviation 1 and stock
pipelines work with `scaling_factor` = 1. The factor is common because the channels' relative
sizes say how much each matters to the picture. With `--vae` the scale is folded already: that of
an earlier version of the base, which the next one keeps. `--wide` composes the wide world.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.mini_world.compose import (
    SIDE,
    Composition,
    Placement,
    Sprites,
    compose,
    draw_combination,
)
from benchmarks.mini_world.drawings import load_drawings
from benchmarks.mini_world.nouns import noun_set, noun_sets
from benchmarks.mini_world.wide import WideSprites, compose_wide

N_PROBS = (0.03, 0.33, 0.42, 0.16, 0.06)
"""Share of scenes with 0, 1, 2, 3 and 4 drawings."""

MASK_SIDE = 16
"""Side of the stored masks: that of the latents."""

_BATCH = 64
_N_MEASURED = 1024


@dataclass(frozen=True)
class Pool:
    """Encoded scenes.

    Attributes:
        latents: (N, C, h, w) float16.
        masks: (N, 4, h, w) uint8, the share of each cell that a drawing covers, 0..255;
            drawings in reading order, zeros after the last.
        placements: what stands in each scene.
        backgrounds: the background of each.
    """

    latents: NDArray[np.float16]
    masks: NDArray[np.uint8]
    placements: list[tuple[Placement, ...]]
    backgrounds: list[str]

    def __len__(self) -> int:
        return len(self.latents)


def to_pictures(scenes: list[Composition]) -> Tensor:
    """Stack scenes as the autoencoder takes them: (B, 3, S, S) in -1..1."""
    pictures = torch.from_numpy(np.stack([scene.picture for scene in scenes]))
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Shift and scale the latents, in place, to mean 0 a channel and deviation 1 in all.

    Args:
        vae: an autoencoder with quant convolutions.
        pictures: (B, 3, S, S) in -1..1, on which mean and deviation are measured.
    """
    means = vae.encode(pictures).latent_dist.mean
    shift = means.mean((0, 2, 3))
    factor = (means - shift[:, None, None]).std()
    n = len(shift)
    vae.quant_conv.weight[:n] /= factor
    vae.quant_conv.bias[:n] = (vae.quant_conv.bias[:n] - shift) / factor
    vae.quant_conv.bias[n:] -= 2 * factor.log()
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[..., 0, 0] @ shift
    vae.post_quant_conv.weight *= factor


@torch.no_grad()
def encode_pool(
    vae: AutoencoderKL, sprites: Sprites | WideSprites, n: int, *, seed: int, device: str = "cpu"
) -> Pool:
    """Compose and encode n scenes that training may show, of the world that the sprites are for."""
    latents: list[NDArray[np.float16]] = []
    scenes: list[Composition] = []
    masks, placements, backgrounds = [], [], []
    rng = np.random.default_rng(seed)
    for number in range(n):
        scene = _compose_any(sprites, rng)
        scenes.append(scene)
        masks.append(_cell_shares(scene.masks))
        placements.append(scene.placements)
        backgrounds.append(scene.background)
        if len(scenes) == _BATCH or number == n - 1:
            encoded = vae.encode(to_pictures(scenes).to(device)).latent_dist.mean
            latents.append(encoded.cpu().numpy().astype(np.float16))
            scenes = []
    return Pool(np.concatenate(latents), np.stack(masks), placements, backgrounds)


def _compose_any(sprites: Sprites | WideSprites, rng: np.random.Generator) -> Composition:
    if isinstance(sprites, WideSprites):
        return compose_wide(sprites, rng)
    n = int(rng.choice(len(N_PROBS), p=N_PROBS))
    return compose(sprites, *draw_combination(sprites.nouns, n, rng), rng)


def save_pool(folder: Path, pool: Pool) -> None:
    """Write a pool."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "pool.npz", latents=pool.latents, masks=pool.masks)
    words = [[asdict(place) for place in places] for places in pool.placements]
    facts = {"placements": words, "backgrounds": pool.backgrounds}
    (folder / "pool.json").write_text(json.dumps(facts))


def load_pool(folder: Path) -> Pool:
    """Read what `save_pool` wrote."""
    with np.load(folder / "pool.npz") as data:
        latents, masks = data["latents"], data["masks"]
    facts = json.loads((folder / "pool.json").read_text())
    placements = [tuple(Placement(**place) for place in places) for places in facts["placements"]]
    return Pool(latents, masks, placements, facts["backgrounds"])


def _cell_shares(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return how much of each latent cell each drawing covers, (4, h, w) uint8."""
    step = SIDE // MASK_SIDE
    shares = np.zeros((4, MASK_SIDE, MASK_SIDE))
    cells = masks.reshape(-1, MASK_SIDE, step, MASK_SIDE, step)
    shares[: len(masks)] = cells.mean((2, 4))
    return np.rint(255 * shares).astype(np.uint8)


def main() -> None:
    """Fold the scale and encode the pool from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of working data")
    parser.add_argument("--nouns", choices=noun_sets(), default="mini16")
    parser.add_argument("--n", type=int, default=24_000, help="scenes")
    parser.add_argument("--wide", action="store_true", help="compose the wide world")
    parser.add_argument("--vae", type=Path, help="a folded autoencoder, of a base")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    drawings, nouns = load_drawings(options.cache), noun_set(options.nouns)
    if options.vae:
        vae = AutoencoderKL.from_pretrained(options.vae, torch_dtype=torch.float32).eval()
    else:
        vae = AutoencoderKL.from_pretrained(options.cache / "vae").eval()
        sprites, rng = Sprites(drawings, nouns), np.random.default_rng(3)
        measured = [
            compose(sprites, *draw_combination(sprites.nouns, 2, rng), rng)
            for _ in range(_N_MEASURED)
        ]
        fold_scale(vae, to_pictures(measured))
    vae.save_pretrained(options.cache / "vae_folded")
    world = WideSprites(drawings, nouns) if options.wide else Sprites(drawings, nouns)
    pool = encode_pool(vae.to(options.device), world, options.n, seed=4, device=options.device)
    save_pool(options.cache, pool)
    print(f"{len(pool)} scenes, latent deviation {pool.latents.astype(np.float32).std():.3f}")


if __name__ == "__main__":
    main()
