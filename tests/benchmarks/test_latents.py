from pathlib import Path

import numpy as np
import torch

from benchmarks.mini_world.compose import SIDE, Sprites
from benchmarks.mini_world.latents import encode_pool, fold_scale, load_pool, save_pool
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.vae import draw_batch, new_vae
from tests.benchmarks import made


@torch.no_grad()
def test_folding_the_scale_normalises_latents_and_changes_no_picture() -> None:
    torch.manual_seed(0)
    vae = new_vae((4, 4, 4)).eval()
    pictures = draw_batch(made.drawings(), 8, SIDE, np.random.default_rng(0)).pictures
    before = vae.encode(pictures).latent_dist
    rebuilt = vae.decode(before.mean).sample
    fold_scale(vae, pictures)
    after = vae.encode(pictures).latent_dist
    assert after.mean.mean((0, 2, 3)).abs().max() < 1e-4
    assert abs(after.mean.std() - 1) < 1e-3
    difference = (vae.decode(after.mean).sample - rebuilt).abs().max()
    assert difference < 1e-4, difference
    ratio = (after.std / before.std).flatten()
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-4)


def test_a_pool_reads_back_as_it_was_written(tmp_path: Path) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"))
    pool = encode_pool(new_vae((4, 4, 4)).eval(), sprites, 6, seed=1)
    save_pool(tmp_path, pool)
    again = load_pool(tmp_path)
    assert (again.latents == pool.latents).all()
    assert (again.masks == pool.masks).all()
    assert again.placements == pool.placements
    assert again.backgrounds == pool.backgrounds


def test_cell_shares_add_up_to_the_masks() -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"))
    pool = encode_pool(new_vae((4, 4, 4)).eval(), sprites, 30, seed=2)
    for masks, places in zip(pool.masks, pool.placements, strict=True):
        areas = masks.sum((1, 2)) / 255 * 16
        assert (areas[len(places) :] == 0).all()
        for area, place in zip(areas, places, strict=False):
            disc = np.pi / 4 * place.height * place.width
            assert abs(area - disc) < 0.15 * disc
