from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.editing import Region, edit_record
from lora_scene.creating.generation import batches, draw, generate, grid_sheet, plan
from lora_scene.creating.interpolation import interpolate
from lora_scene.creating.picture_files import read_record, save_image
from lora_scene.creating.prompts import PromptLine
from lora_scene.creating.records import differences, parse_record
from lora_scene.creating.requests import Control, Request, Sampling
from lora_scene.errors import CreationError
from tests import tiny
from tests.adapters import made
from tests.creating.studios import QUIET, assemble_studio, studio

pytestmark = pytest.mark.filterwarnings(QUIET)

QUICK = Sampling(2, 3.0)
BEAR = Request("a photo of <bear>", sampling=QUICK)
PHOTO, MASK = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)


def pixels_of(one, *requests, **kwargs):
    pictures = dict(draw(one, requests, **kwargs))
    return [pictures[index].pixels for index in range(len(requests))]


def test_prompts_seeds_and_weights_are_crossed_but_for_what_a_line_sets():
    lines = [PromptLine("a"), PromptLine("b", {"seed": 9, "weight": 0.5, "width": 96})]
    default = Request("", size=(64, 64), negative="dark")
    planned = plan(studio(), lines, seeds=(1, 2), weights=(0.0, 1.0), default=default)
    told = [(r.prompt, r.seed, r.weight, r.size, r.negative) for r in planned]
    assert told == [
        ("a", 1, 0.0, (64, 64), "dark"),
        ("a", 1, 1.0, (64, 64), "dark"),
        ("a", 2, 0.0, (64, 64), "dark"),
        ("a", 2, 1.0, (64, 64), "dark"),
        ("b", 9, 0.5, (96, 64), "dark"),
    ]


def test_weight_zero_keeps_the_handles_and_drops_the_lora():
    one = studio()
    zero, whole, base = pixels_of(
        one,
        Request("a photo of <bear>", sampling=QUICK, weight=0.0),
        BEAR,
        Request("a photo of <bear>", sampling=QUICK, weight=0.0, is_base=True),
    )
    assert not np.array_equal(zero, whole)
    assert not np.array_equal(zero, base)
    bare = assemble_studio(tiny.pipeline("sd1"))
    (expected,) = pixels_of(bare, Request("a photo of noun 0", sampling=QUICK))
    np.testing.assert_array_equal(base, expected)


def test_the_bare_base_reads_no_handle_in_a_negative_prompt_either():
    guided = replace(QUICK, guidance=6.0)
    asked = Request("a photo of <bear>", negative="<Bowl>, dark", sampling=guided)
    ((_, drawn),) = draw(studio(), [replace(asked, weight=0.0, is_base=True)])
    plain = Request("a photo of noun 0", negative="noun 1, dark", sampling=guided)
    (expected,) = pixels_of(assemble_studio(tiny.pipeline("sd1")), plain)
    np.testing.assert_array_equal(drawn.pixels, expected)
    assert drawn.record["negative"] == "noun 1, dark"


def test_drawing_leaves_the_adapters_weights_as_they_were():
    one = studio()
    (before,) = pixels_of(one, BEAR)
    pixels_of(one, Request("a photo of <bear>", sampling=QUICK, weight=0.3))
    (after,) = pixels_of(one, BEAR)
    np.testing.assert_array_equal(before, after)


def test_a_batch_draws_the_same_pictures_up_to_rounding():
    one = studio()
    requests = [Request("a photo of <bear>", seed=seed, sampling=QUICK) for seed in range(3)]
    alone = pixels_of(one, *requests)
    together = pixels_of(one, *requests, batch_size=3)
    for left, right in zip(alone, together, strict=True):
        assert np.abs(left.astype(int) - right).max() <= 1


def test_only_requests_of_like_settings_share_a_batch():
    other = Request("b", sampling=QUICK, weight=0.5)
    assert batches([BEAR, other, BEAR, BEAR], 2) == [[0, 2], [3], [1]]
    loud = replace(BEAR, control=Control(emphases=(("<bear>", 2.0),)))
    assert batches([BEAR, loud, BEAR], 3) == [[0, 2], [1]]


def test_a_picture_is_made_again_from_its_own_file(tmp_path):
    one = studio("sd2")
    request = Request(
        "a <bear>",
        seed=5,
        negative="red",
        size=(96, 64),
        sampling=Sampling(3, 2.5, "unipc"),
        weight=0.4,
    )
    (first,) = generate(one, [request], out=tmp_path / "one")
    told = parse_record(read_record(first.path))
    again = told.request
    assert again == request
    assert differences(one, told) == ()
    (second,) = generate(one, [again], out=tmp_path / "two")
    assert first.path.read_bytes() == second.path.read_bytes()


def test_weights_by_name_and_the_bare_base_are_made_again_too(tmp_path):
    one = studio()
    (name,) = [loaded.name for loaded in one.adapters]
    weighed = replace(BEAR, size=(64, 64), weight=((name, 0.4),))
    bare = replace(BEAR, size=(64, 64), weight=0.0, is_base=True)
    for asked, drawn in zip(
        (weighed, bare), generate(one, (weighed, bare), out=tmp_path), strict=True
    ):
        again = parse_record(read_record(drawn.path)).request
        assert (again.weight, again.is_base) == (asked.weight, asked.is_base)
        (second,) = generate(one, [again], out=tmp_path / "again")
        assert drawn.path.read_bytes() == second.path.read_bytes()


def test_a_record_without_the_newer_keys_is_read_as_before():
    (picture,) = [p for _, p in draw(studio(), [BEAR])]
    old = {k: v for k, v in picture.record.items() if k not in ("weights", "is_base")}
    assert parse_record(old).request == replace(BEAR, size=(64, 64))


def test_a_strength_without_a_picture_to_start_from_is_refused():
    partly = replace(BEAR, sampling=Sampling(10, strength=0.3))
    with pytest.raises(CreationError, match=r"none to start from(.|\n)*got: +0\.3"):
        list(draw(studio(), [partly]))
    with pytest.raises(CreationError, match="none to start from"):
        list(interpolate(studio(), partly, replace(partly, seed=2), n_frames=2))


def test_a_weight_of_no_adapter_is_refused():
    for draws in (draw, lambda one, asked: [edit_record(one, PHOTO, [Region(MASK, *asked)], 0.1)]):
        with pytest.raises(CreationError, match=r"typo: no such adapter(.|\n)*expected"):
            list(draws(studio(), [replace(BEAR, weight=(("typo", 0.0),))]))


def test_another_adapter_or_base_cannot_make_a_picture_again():
    one = studio()
    (picture,) = [p for _, p in draw(one, [BEAR])]
    pipeline = tiny.pipeline("sd1", seed=1)
    adapter = made.adapter(pipeline, "sd1", seed=2)
    other = assemble_studio(pipeline, [AdapterChoice(adapter)], name="other")
    with pytest.raises(CreationError, match=r"(?s)2 problems.*another base.*tiny.*adapters"):
        differences(other, parse_record(picture.record))


def test_another_base_is_told_where_dtypes_differ_too():
    one = studio()
    (picture,) = [p for _, p in draw(one, [BEAR])]
    base = {"name": "elsewhere", "hash": "00" * 32}
    with pytest.raises(CreationError, match="another base"):
        differences(one, parse_record({**picture.record, "dtype": "bfloat16", "base": base}))
    notices = differences(one, parse_record({**picture.record, "dtype": "float16", "base": base}))
    assert "made on elsewhere, now tiny: their weights cannot be compared" in notices[-1]


def test_a_changed_dtype_or_version_is_told():
    one = studio()
    (picture,) = [p for _, p in draw(one, [BEAR])]
    notices = differences(one, parse_record({**picture.record, "dtype": "float16"}))
    assert "made with dtype float16, now float32" in notices[0]


def test_files_are_named_by_prompt_seed_and_weight_and_the_grid_shows_all(tmp_path):
    one = studio()
    requests = plan(
        one, [PromptLine("a photo of <bear>")], weights=(0.0, 1.0), default=BEAR, with_base=True
    )
    pictures = generate(one, requests, out=tmp_path)
    save_image(tmp_path / "grid.png", grid_sheet(pictures))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000_a_photo_of_bear_s0_base.png",
        "001_a_photo_of_bear_s0_w0.png",
        "002_a_photo_of_bear_s0.png",
        "grid.png",
    ]
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 3 * 160


def test_the_grid_puts_seeds_across_at_one_weight():
    one = studio()
    requests = plan(
        one, [PromptLine("a"), PromptLine("b", {"seed": 3})], seeds=(1, 2), default=BEAR
    )
    sheet = grid_sheet([picture for _, picture in draw(one, requests)])
    cell = 64 * 3 + 6
    assert sheet.width == 64 * 3 + 6 + 3 * cell + 6


def test_the_grid_shows_every_setting_of_a_prompt():
    one = studio()
    lines = [PromptLine("a", {"guidance": guidance}) for guidance in (1.0, 8.0)]
    for weights in ((1.0,), (0.5, 1.0)):
        pictures = [p for _, p in draw(one, plan(one, lines, weights=weights, default=BEAR))]
        sheet = np.asarray(grid_sheet(pictures))
        shown = {tuple(row) for row in sheet.reshape(-1, 3)}
        missing = [p.request for p in pictures if not set(map(tuple, p.pixels[0])) <= shown]
        assert not missing


def test_the_picture_tells_user_interfaces_its_settings(tmp_path):
    one = studio()
    (picture,) = generate(
        one, [Request("a <bear>", seed=5, negative="red", sampling=QUICK)], out=tmp_path
    )
    with Image.open(picture.path) as image:
        text = image.info["parameters"]
    assert text.startswith(
        "a <bear>\nNegative prompt: red\nSteps: 2, Sampler: base, CFG scale: 3.0"
    )
    assert "Seed: 5, Size: 64x64" in text


def test_nothing_is_drawn_when_one_of_the_requests_is_wrong(tmp_path):
    with pytest.raises(CreationError, match="<cup>"):
        generate(studio(), [BEAR, Request("a <cup>")], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_strangers_picture_does_not_say_how_it_was_made(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(CreationError, match="does not say how"):
        read_record(tmp_path / "x.png")
    (tmp_path / "x.txt").write_text("no picture", "utf-8")
    with pytest.raises(CreationError, match="not a readable"):
        read_record(tmp_path / "x.txt")
