from __future__ import annotations

import numpy as np

from lora_scene.sheets import contact_sheet, enlargement


def colour(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_are_not():
    assert enlargement([colour(0, 64, 64)]) == 3
    assert enlargement([colour(0, 512, 512)]) == 1
    sheet = np.asarray(contact_sheet([[colour(200, 64, 64), colour(90, 64, 64)]]))
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


def test_a_large_photo_is_fitted_into_a_cell_of_the_pictures_size():
    drawn = colour(90, 64, 64)
    plain = contact_sheet([[drawn, drawn]])
    sheet = contact_sheet([[colour(200, 600, 1200), drawn]], like=drawn)
    assert sheet.size == plain.size
    shown = np.asarray(sheet)
    assert (shown == 90).all(axis=2).sum() == 192 * 192
    assert (shown == 200).all(axis=2).sum() == 192 * 96  # twice as wide as high, as the photo


def test_a_long_label_has_room_and_a_long_word_is_broken():
    drawn = colour(90, 64, 64)
    label = "a photo of <a-handle-of-many-letters-without-a-single-space-in-it> " * 8
    sheet = np.asarray(contact_sheet([[drawn], [drawn]], rows=[label, "short"]))
    assert sheet.shape[0] > 2 * (192 + 6)
    assert (sheet == 90).all(axis=2).sum() == 2 * 192 * 192
    assert not (sheet[:, 199:204] < 50).all(axis=2).any()
