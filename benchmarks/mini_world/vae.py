"""Train the autoencoder on thousands of drawings, none of them of the held-out style.

    python -m benchmarks.mini_world.vae --cache DIR --minutes 14 --ranks 2 --resume

Most of the time goes to tiles of half a scene: for an autoencoder of this depth they teach
the same as whole scenes, at four times as many drawings a second.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.mini_world.averaging import Average
from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.drawings import TRAINING_STYLES, Drawings, load_drawings
from benchmarks.mini_world.loop import Loss, Plan, add_run_options, launch, train
from benchmarks.mini_world.prefetch import Prefetched, Share

LATENT_CHANNELS = 12
TILE = 32
"""Side of a training tile, px."""

_KL_WEIGHT = 3e-4
_OBJECT_WEIGHT = 3.0
_EDGE_WEIGHT = 0.5
_SQUARE_WEIGHT = 4.0


@dataclass(frozen=True)
class Batch:
    """Pictures (B, 3, S, S) in -1..1 and where their drawings are, (B, 1, S, S) in 0..1."""

    pictures: Tensor
    masks: Tensor


def new_vae(channels: tuple[int, ...] = (16, 32, 64)) -> AutoencoderKL:
    """Return an untrained autoencoder that shrinks pictures four times.

    Four norm groups: with as many groups as channels the norm would erase each channel's
    mean, and with it the colour.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def draw_tile(
    drawings: Drawings, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Compose a random tile: any background, drawings at any scale, turned, tinted, cut off.

    Returns:
        (side, side, 3) uint8 RGB and (side, side) bool, true on drawings.
    """
    picture = _any_background(side, rng)
    mask = np.zeros((side, side), bool)
    for _ in range(max(1, (side // TILE) ** 2 - int(rng.integers(0, 2)))):
        sprite = _any_drawing(drawings, rng)
        size = len(sprite)
        top, left = rng.integers(-size // 3, side - size * 2 // 3, 2)
        y, x = max(0, top), max(0, left)
        part = sprite[y - top : side - top, x - left : side - left]
        height, width = part.shape[:2]
        alpha = part[..., 3:].astype(np.float32) / 255
        here = picture[y : y + height, x : x + width]
        here[:] = np.rint(part[..., :3] * alpha + here * (1 - alpha))
        mask[y : y + height, x : x + width] |= alpha[..., 0] >= 0.5
    return picture, mask


def _any_background(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < 0.3:
        corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.uint8)
        return np.array(Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR))
    name = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    picture = paint_background(name, side, rng)
    if rng.random() < 0.3:
        picture = picture[..., rng.permutation(3)]
    return np.ascontiguousarray(picture)


def _any_drawing(drawings: Drawings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return any drawing, (size, size, 4) uint8, 20 to 44 px, mirrored, turned or tinted."""
    size = int(rng.integers(20, 45))
    sprite = Image.fromarray(drawings.rgba[rng.integers(len(drawings))])
    if rng.random() < 0.2:
        sprite = sprite.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR)
    pixels = np.array(sprite.resize((size, size), Image.Resampling.BILINEAR))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.3:
        pixels[..., :3] = pixels[..., rng.permutation(3)]
    if rng.random() < 0.3:
        gain = rng.uniform(0.6, 1.3, 3) * pixels[..., :3] + rng.uniform(-30, 30)
        pixels[..., :3] = np.clip(gain, 0, 255).astype(np.uint8)
    return pixels


def draw_batch(drawings: Drawings, n: int, side: int, rng: np.random.Generator) -> Batch:
    """Draw n random tiles."""
    tiles = [draw_tile(drawings, side, rng) for _ in range(n)]
    pictures = torch.from_numpy(np.stack([tile[0] for tile in tiles]))
    masks = torch.from_numpy(np.stack([tile[1] for tile in tiles]))
    return Batch(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1, masks[:, None].float())


def vae_loss(vae: AutoencoderKL, batch: Batch, generator: torch.Generator) -> Tensor:
    """Return L1 + squares + edges, heavier on drawings, plus the KL term; a scalar mean."""
    posterior = vae.encode(batch.pictures).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(batch.pictures)
    rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
    error = rebuilt - batch.pictures
    weights = (1 + (_OBJECT_WEIGHT - 1) * batch.masks) / (
        1 + (_OBJECT_WEIGHT - 1) * batch.masks.mean()
    )
    pixels = (weights * (error.abs() + _SQUARE_WEIGHT * error.square())).mean()
    down, across = error.diff(dim=2).abs(), error.diff(dim=3).abs()
    edges = (weights[:, :, 1:] * down).mean() + (weights[..., 1:] * across).mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - posterior.logvar - 1).mean()
    loss: Tensor = pixels + _EDGE_WEIGHT * edges + _KL_WEIGHT * kl
    return loss


def objective(vae: AutoencoderKL, drawings: Drawings, share: Share, *, tile_share: float) -> Loss:
    """Return the loss of a step: tiles for `tile_share` of the run, then whole scenes."""

    def draw(step: int, side: int) -> Batch:
        n = share.batch if side == TILE else max(1, share.batch // 4)
        return draw_batch(drawings, n, side, np.random.default_rng((1, share.rank, step)))

    batches = Prefetched(draw, share.n_workers)

    def loss(step: int, progress: float) -> Tensor:
        batch = batches(step, 2 * TILE if progress > tile_share else TILE)
        batch = Batch(batch.pictures.to(vae.device), batch.masks.to(vae.device))
        return vae_loss(vae, batch, torch.Generator().manual_seed(2 * step + share.rank))

    return loss


def run(options: argparse.Namespace, rank: int, average: Average | None) -> None:
    """Train one rank's share; rank 0 saves the averaged weights as `vae/` in the cache."""
    torch.manual_seed(0)
    vae = new_vae().to(options.device).train()
    drawings = load_drawings(options.cache).of(*TRAINING_STYLES)
    share = Share(options.batch, rank, options.workers)
    loss = objective(vae, drawings, share, tile_share=options.tile_share)
    plan = Plan(
        folder=Path(options.cache) / "checkpoint_vae",
        lr=3e-3,
        minutes=options.minutes,
        leave_minutes=options.leave_minutes,
        flat_share=0.4,
        weight_decay=1e-4,
    )
    train(vae, loss, plan, rank=rank, average=average, resume=options.resume)
    if rank == 0:
        vae.save_pretrained(Path(options.cache) / "vae")


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_options(parser)
    parser.add_argument("--tile-share", type=float, default=0.85, help="of the time, on tiles")
    launch(run, parser.parse_args())


if __name__ == "__main__":
    main()
