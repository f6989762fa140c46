"""What the base expects is taken out where its attention lies, and the photo's colour put there."""

from __future__ import annotations

import torch

from benchmarks.recoloured import recoloured


def scene(expected: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a ground of 1 with a thing that the base expects, its attention, and the photo's."""
    clean, attention = torch.ones(2, 16, 16), torch.zeros(1, 16, 16)
    clean[:, 2:6, 2:6], attention[:, 2:6, 2:6] = expected, 1.0
    masks, z = torch.zeros(1, 16, 16), torch.zeros(2, 16, 16)
    masks[:, 10:14, 10:14], z[:, 10:14, 10:14] = 1.0, -2.0
    return clean, attention, masks, z


def test_a_thing_that_is_sure_to_be_there_has_the_photos_colour() -> None:
    made = recoloured(*scene(expected=5.0))
    torch.testing.assert_close(made[:, 2:6, 2:6], torch.full((2, 4, 4), -2.0))
    ring = torch.ones(16, 16, dtype=torch.bool)
    ring[1:7, 1:7] = False
    torch.testing.assert_close(made[:, ring], torch.ones(2, int(ring.sum())))


def test_one_that_may_be_anywhere_is_there_by_its_share_of_the_cells() -> None:
    clean, attention, masks, z = scene(expected=5.0)
    attention[:, 0:8, :] = 1.0
    clean[:, 0:8, :] = 1.5
    made = recoloured(clean, attention, masks, z)
    share = 16 / 128
    wanted = (1 - share) * 1.0 + share * -2.0
    torch.testing.assert_close(made[:, 7, 4], torch.full((2,), wanted), atol=0.01, rtol=0)
