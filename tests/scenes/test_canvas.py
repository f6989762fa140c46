from __future__ import annotations

import math

import pytest

from lora_scene.scenes.canvas import Canvas
from lora_scene.size import Size

SD = {"multiple": 64, "latent_cell": 8, "map_cell": 32}
SDXL = {"multiple": 32, "latent_cell": 8, "map_cell": 32}
PHOTOS = [(w, h) for w in range(300, 3001, 270) for h in range(300, 3001, 390)]


@pytest.mark.parametrize(
    ("resolution", "cells", "photo", "size"),
    [
        (512, SD, (6000, 4000), (576, 384)),  # 3:2 without a cut
        (512, SD, (4000, 3000), (576, 448)),
        (512, SD, (1080, 1920), (384, 704)),
        (768, SD, (6000, 4000), (960, 640)),
        (768, SD, (1080, 1920), (576, 1024)),  # 9:16 without a cut
        (1024, SDXL, (6000, 4000), (1248, 832)),
        (1024, SDXL, (1080, 1920), (768, 1376)),
        (512, SD, (2000, 2000), (512, 512)),
        (512, SD, (4000, 1000), (768, 320)),  # 1:2.4, and no longer
        (512, SD, (20, 3000), (320, 768)),
    ],
)
def test_shapes_that_are_known(resolution, cells, photo, size):
    assert Canvas(resolution, **cells, shape="photo").size_for(Size(*photo)) == size


@pytest.mark.parametrize(("resolution", "cells"), [(512, SD), (768, SD), (1024, SDXL)])
def test_every_photo_has_nearly_its_aspect_and_the_area(resolution, cells):
    canvas = Canvas(resolution, **cells, shape="photo")
    for width, height in PHOTOS:
        size = canvas.size_for(Size(width, height))
        aspect = min(max(width / height, 1 / 2.4), 2.4)
        assert size.width % canvas.multiple == size.height % canvas.multiple == 0
        assert max(size) <= 2.4 * min(size)
        assert abs(math.log(size.width / size.height / aspect)) < 0.13, (width, height, size)
        assert abs(math.log(size.area / resolution**2)) < 0.21, (width, height, size)


def test_a_turned_photo_has_the_turned_size_and_a_square_one_the_square():
    canvas = Canvas(512, **SD, shape="photo")
    for width, height in PHOTOS:
        if width != height:
            turned = canvas.size_for(Size(height, width))
            assert canvas.size_for(Size(width, height)) == (turned.height, turned.width)
    assert canvas.size_for(Size(1, 1)) == Canvas(512, **SD).size_for(Size(1080, 1920))


def test_grids_cover_the_size_in_cells():
    canvas = Canvas(768, **SD, shape="photo")
    size = Size(1152, 768)
    assert (canvas.latents(size), canvas.maps(size)) == ((144, 96), (36, 24))
    assert canvas.maps(Size(33, 32)) == (2, 1)


def test_the_canvas_that_enlarges_nothing_is_the_nearest_one():
    square, photo = Canvas(512, **SD), Canvas(512, **SD, shape="photo")
    assert square.without_enlarging(Size(1000, 400)) == photo  # 768x320 lies inside
    smaller = photo.without_enlarging(Size(450, 300))
    assert (smaller.resolution, smaller.size_for(Size(450, 300))) == (320, (384, 256))
    assert photo.without_enlarging(Size(200, 100)) is None
    trained_small = Canvas(256, **SD, shape="photo", own=512)
    assert trained_small.without_enlarging(Size(230, 150)) is None  # half of its own size already
    assert Canvas(1024, **SD, own=512).without_enlarging(Size(300, 300)).resolution == 256
