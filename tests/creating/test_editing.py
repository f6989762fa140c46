from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_scene.creating import completion
from lora_scene.creating.completion import (
    Growth,
    complete,
    complete_record,
    default_prompt,
    grown,
    plan_windows,
    spread,
)
from lora_scene.creating.editing import (
    Blend,
    Region,
    edit,
    edit_record,
    latent_mask,
    reach_at,
    redraw,
    widened,
)
from lora_scene.creating.generation import draw
from lora_scene.creating.limits import MAX_SEED
from lora_scene.creating.requests import Control, Request, Sampling
from lora_scene.creating.sampling import Step
from lora_scene.creating.windows import (
    SquareWindow,
    feathered,
    next_window,
    prefilled,
    window_around,
)
from lora_scene.errors import CreationError
from tests import tiny
from tests.creating.studios import QUIET, assemble_studio, studio

pytestmark = pytest.mark.filterwarnings(QUIET)

QUICK = Request("a photo of <bear>", 3, sampling=Sampling(2, 3.0))


def photo_of(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(height, width, top, left, bottom, right):
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("shape", [(64, 64), (90, 150), (40, 70)])
def test_outside_the_mask_a_photo_of_any_size_is_unchanged_to_the_bit(family, shape):
    photo = photo_of(*shape)
    mask = mask_of(*shape, 10, 12, 30, 35)
    result = edit(studio(family), photo, [Region(mask, QUICK)])
    assert result.shape == photo.shape
    np.testing.assert_array_equal(result[mask == 0], photo[mask == 0])
    assert (result[mask > 0] != photo[mask > 0]).any()


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler", "heun", "pndm", "unipc"])
def test_every_kind_of_solver_blends(scheduler):
    photo = photo_of(64, 64)
    mask = mask_of(64, 64, 16, 16, 48, 48)
    brush = Request("a <bear>", 1, sampling=Sampling(4, 3.0, scheduler))
    result = edit(studio(), photo, [Region(mask, brush)])
    np.testing.assert_array_equal(result[mask == 0], photo[mask == 0])


def test_a_mask_over_all_is_the_picture_that_generate_draws():
    one = studio()
    drawn = redraw(one, photo_of(64, 64), np.ones((64, 64), np.float32), QUICK)
    request = Request(QUICK.prompt, seed=3, sampling=QUICK.sampling)
    np.testing.assert_array_equal(drawn, next(draw(one, [request]))[1].pixels)


def test_regions_are_edited_one_after_the_other():
    one, photo = studio(), photo_of(64, 64)
    first = Region(mask_of(64, 64, 0, 0, 32, 64), QUICK)
    second = Region(mask_of(64, 64, 20, 0, 64, 64), Request("a <bowl>", 5, sampling=QUICK.sampling))
    both = edit(one, photo, [first, second])
    in_turn = edit(one, edit(one, photo, [first]), [second])
    np.testing.assert_array_equal(both, in_turn)
    assert [r["prompt"] for r in edit_record(one, photo, [first, second], 0.03)["regions"]] == [
        "a photo of <bear>",
        "a <bowl>",
    ]


def test_an_edit_is_the_same_each_time_and_another_with_another_seed():
    one, photo, mask = studio("sd2"), photo_of(64, 64), mask_of(64, 64, 8, 8, 56, 56)
    first = edit(one, photo, [Region(mask, QUICK)])
    np.testing.assert_array_equal(first, edit(one, photo, [Region(mask, QUICK)]))
    other = Request(QUICK.prompt, 4, sampling=QUICK.sampling)
    assert not np.array_equal(first, edit(one, photo, [Region(mask, other)]))


def test_a_small_redrawn_share_stays_nearer_to_the_photo():
    one, mask = studio(), np.ones((64, 64), np.float32)
    photo = np.full((64, 64, 3), 128, np.uint8)
    weak, strong = (
        redraw(one, photo, mask, Request("a <bear>", 1, sampling=Sampling(10, 3.0, "base", share)))
        for share in (0.1, 1.0)
    )
    kept = redraw(one, photo, np.zeros((64, 64), np.float32), QUICK).astype(int)
    assert np.abs(weak - kept).mean() < np.abs(strong - kept).mean()


def test_blending_replaces_the_outside_by_the_source_noised_to_the_next_step():
    scheduler = tiny.scheduler("epsilon")
    scheduler.set_timesteps(4)
    z, eps = torch.full((1, 4, 4, 4), 2.0), torch.ones(1, 4, 4, 4)
    cells = torch.zeros(4, 4)
    cells[:, :3] = 1
    t = scheduler.timesteps
    step = Step(0, 4, t[0], t[0], scheduler, t[1])
    blended = Blend(z, eps, cells).after(torch.zeros(1, 4, 4, 4), step)
    abar = scheduler.alphas_cumprod[scheduler.timesteps[1]]
    assert torch.equal(blended[..., :3], torch.zeros(1, 4, 4, 3))
    expected = abar.sqrt() * 2 + (1 - abar).sqrt()
    torch.testing.assert_close(blended[..., 3], expected.expand(1, 4, 4))
    last = Step(3, 4, t[3], t[3], scheduler, None)
    after = Blend(z, eps, cells).after(torch.zeros(1, 4, 4, 4), last)
    assert torch.equal(after[..., 3], z[..., 3])


def test_a_mask_thinner_than_a_cell_still_marks_cells():
    thin = mask_of(32, 32, 0, 9, 32, 10)
    assert latent_mask(thin, 4)[:, 2].all()
    assert latent_mask(thin, 4).sum() == 8
    half = mask_of(32, 32, 0, 0, 32, 10)
    assert latent_mask(half, 4)[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    less = mask_of(32, 32, 0, 0, 32, 9)  # a quarter of the third column
    assert latent_mask(less, 4)[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_thin_masks_are_wider_in_the_early_steps_and_thick_ones_are_not():
    thin = torch.zeros(9, 9)
    thin[:, 4] = 1
    counts = [int(widened(thin, reach_at(done))[0].sum()) for done in (0.0, 0.3, 0.5, 1.0)]
    assert counts == [5, 3, 1, 1]
    thick = torch.zeros(9, 9)
    thick[:, 2:6] = 1
    assert torch.equal(widened(thick, reach_at(0.0)), thick)


def test_the_window_holds_the_mask_and_stays_in_the_photo():
    mask = mask_of(300, 500, 250, 460, 299, 499)
    window = window_around(mask, 64)
    assert window == SquareWindow(402, 202, 98)  # the mask's 49 px and half as much on each side
    assert window_around(mask, 128) == SquareWindow(372, 172, 128)
    assert window_around(mask_of(40, 70, 10, 10, 20, 20), 64) == SquareWindow(0, -12, 64)


def test_the_seam_rises_inside_the_mask_only():
    mask = mask_of(64, 64, 16, 16, 48, 48)
    alpha = feathered(mask, 64, 0.1)
    assert (alpha[mask == 0] == 0).all()
    assert alpha[32, 32] == 1
    assert 0 < alpha[16, 32] < alpha[18, 32] < 1
    assert np.array_equal(feathered(mask, 64, 0), mask)


def test_thin_parts_of_a_mask_are_shown_whole_and_wide_ones_keep_their_seam():
    side, seam = 512, 0.03 * 512
    wide = mask_of(side, side, 200, 200, 400, 400)
    rows, columns = np.mgrid[:side, :side]
    inner = np.minimum.reduce([rows - 199, 400 - rows, columns - 199, 400 - columns])
    np.testing.assert_allclose(feathered(wide, side), np.clip(inner / seam, 0, 1), atol=1e-6)
    both = np.maximum(wide, mask_of(side, side, 20, 50, 30, 450))  # a strip of 10 rows
    alpha = feathered(both, side)
    np.testing.assert_allclose(alpha[20:30, 250], np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1]) / 5)
    assert (alpha[both == 0] == 0).all()
    np.testing.assert_allclose(alpha[100:], feathered(wide, side)[100:], atol=1e-6)


def test_records_of_parts_hold_weight_size_and_whether_the_base_drew():
    one, photo, mask = studio(), photo_of(64, 80), np.ones((64, 80), np.float32)
    for asked, weight in ((QUICK, 1.0), (replace(QUICK, weight=0.25, is_base=True), 0.25)):
        for told in (
            edit_record(one, photo, [Region(mask, asked)], 0.03),
            complete_record(one, photo, mask, asked),
        ):
            (part,) = told["regions"]
            assert (part["weight"], part["width"], part["height"]) == (weight, 64, 64)
            assert part.get("is_base", False) == asked.is_base


def test_mistakes_in_masks_are_told_before_anything_is_drawn():
    one, photo = studio(), photo_of(64, 64)
    with pytest.raises(CreationError, match=r"(?s)a.png.*64x64.*32x16"):
        edit(one, photo, [Region(np.ones((16, 32), np.float32), QUICK, "a.png")])
    with pytest.raises(CreationError, match="empty region"):
        edit(one, photo, [Region(np.zeros((64, 64), np.float32), QUICK)])
    with pytest.raises(CreationError, match="<cup>"):
        edit(one, photo, [Region(np.ones((64, 64), np.float32), Request("a <cup>"))])
    stray = Request("a <bear>", control=Control(emphases=(("<bowl>", 2.0),)))
    drawn = []
    with pytest.raises(CreationError, match="<bowl>"):
        edit(
            one,
            photo,
            [Region(np.ones((64, 64), np.float32), brush) for brush in (QUICK, stray)],
            tick=lambda *step: drawn.append(step),
        )
    assert not drawn


def test_what_is_asked_of_handles_is_shared_out_to_the_prompts_that_name_them():
    control = Control((), (("bear", 0.5),), (("bowl", 2.0),))
    first, both = control.shared_out(studio(), ["a <bear>", "a <bowl> and a <bear>"])
    assert (first.strengths, first.emphases) == ((("<bear>", 0.5),), ())
    assert set(both.handles) == {"<bear>", "<bowl>"}
    with pytest.raises(CreationError, match="no prompt names <bowl>"):
        control.shared_out(studio(), ["a <bear>"])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_growing_keeps_the_photo_and_fills_all_around_it(family):
    one, photo = studio(family), photo_of(64, 80)
    canvas, hole = grown(photo, Growth(left=30, bottom=20))
    assert canvas.shape == (84, 110, 3)
    result = complete(one, canvas, hole, QUICK)
    np.testing.assert_array_equal(result[:64, 30:], photo)
    assert not np.array_equal(result[:, :30], canvas[:, :30])


def test_windows_cover_a_hole_once_beginning_beside_what_is_known():
    hole = mask_of(64, 200, 0, 64, 64, 200)
    windows = plan_windows(hole, 64)
    covered = np.zeros_like(hole)
    for window in windows:
        covered[window.inside] = 1
    assert covered[hole > 0].all()
    lefts = [window.left for window in windows]
    assert lefts == sorted(lefts)
    assert lefts[0] == 32  # half known, half to fill
    assert len(windows) > 2


def test_every_window_has_its_own_noise(monkeypatch):
    seeds, parts = [], []

    def noted(studio, photo, region, window, **how):
        seeds.append(region.request.seed)
        parts.append(region.mask)
        return photo

    monkeypatch.setattr(completion, "repaint", noted)
    hole = mask_of(64, 200, 0, 64, 64, 200)
    complete(studio(), photo_of(64, 200), hole, Request(QUICK.prompt, MAX_SEED - 1))
    assert seeds[:3] == [MAX_SEED - 1, MAX_SEED, 0]
    np.testing.assert_array_equal(sum(parts), hole)


def test_a_hole_without_rim_is_filled_too():
    assert next_window(np.ones((64, 64), np.float32), 64) == SquareWindow(0, 0, 64)
    pixels = photo_of(8, 8)
    np.testing.assert_array_equal(prefilled(pixels, np.ones((8, 8), np.float32)), pixels)


def test_a_hole_spreads_by_pixels():
    hole = np.zeros((9, 9), np.float32)
    hole[4, 4] = 0.1
    assert spread(hole, 0).sum() == 1
    assert spread(hole, 1).sum() == 5
    assert spread(hole, 8192).all()  # at once, however far


def test_the_background_fills_by_default_where_one_was_learnt():
    assert default_prompt(studio()) == "a photo of <bowl>"
    with pytest.raises(CreationError, match="needs a prompt"):
        default_prompt(assemble_studio(tiny.pipeline("sd1")))


def test_a_canvas_does_not_grow_beyond_what_a_photo_may_have():
    photo = np.zeros((64, 80, 3), np.uint8)
    with pytest.raises(CreationError, match=r"too large(.|\n)*64 megapixels(.|\n)*1000001 x 64"):
        grown(photo, Growth(right=999_921))


def test_growths_are_read():
    assert Growth.parse("32") == Growth(32, 32, 32, 32)
    assert Growth.parse("left=3, bottom=4") == Growth(left=3, bottom=4)
    with pytest.raises(CreationError, match="left=64"):
        Growth.parse("up=3")
