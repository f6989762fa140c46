from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_scene.creating.picture_files import read_record, save_gif, save_image, save_picture
from lora_scene.creating.sheets import contact_sheet, enlargement, strip
from lora_scene.errors import FileError


def colour(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


def test_a_record_of_any_language_survives_the_file(tmp_path):
    record = {"verb": "edit", "regions": [{"prompt": "ein <bär> 熊"}]}
    path = save_picture(tmp_path / "deep" / "x.png", colour(7), record)
    assert read_record(path) == record
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), colour(7))


def test_nothing_half_written_is_left_behind(tmp_path):
    class Broken:
        def save(self, file, **options):
            file.write(b"half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        save_image(tmp_path / "x.png", Broken())
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(FileError, match="not a folder"):
        save_picture(tmp_path / "taken" / "x.png", colour(1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_gif_holds_every_frame(tmp_path):
    path = save_gif(tmp_path / "x.gif", [colour(0), colour(128), colour(255)], milliseconds=50)
    with Image.open(path) as gif:
        assert gif.n_frames == 3
        assert gif.info["duration"] == 50


def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_are_not():
    assert enlargement([colour(0, 64, 64)]) == 3
    assert enlargement([colour(0, 512, 512)]) == 1
    sheet = np.asarray(strip([colour(200, 64, 64), colour(90, 64, 64)]))
    assert (sheet == 200).all(axis=2).sum() == (64 * 3) ** 2
    assert (sheet == 90).all(axis=2).sum() == (64 * 3) ** 2


def test_labels_are_written_above_columns_and_left_of_rows_on_the_paper_only():
    cells = [[colour(100, 64, 64), None]]
    plain = np.asarray(contact_sheet(cells))
    labelled = contact_sheet(cells, columns=["one", "two"], rows=["a rather long label of a row"])
    ink = (np.asarray(labelled) < 50).all(axis=2)
    assert not (plain < 50).any()
    assert ink[:, :192].any()
    assert ink[:20, 192:].any()
    assert not ink[30:, 204:].any()
