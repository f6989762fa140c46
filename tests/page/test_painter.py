from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_scene.creating.records import picture_hash
from lora_scene.errors import CreationError
from lora_scene.page.painter import INPUTS, keep_inputs, kept_input


def test_what_a_picture_was_made_from_comes_back_by_its_hash(tmp_path: Path) -> None:
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.eye(4, dtype=np.float32)
    keep_inputs(tmp_path, photo, mask)
    np.testing.assert_array_equal(kept_input(tmp_path, picture_hash(photo)), photo)
    np.testing.assert_array_equal(kept_input(tmp_path, picture_hash(mask)), mask * 255)


@pytest.mark.parametrize("name", ["../secret", "", None, "f" * 64, 3])
def test_a_record_reaches_no_other_picture(tmp_path: Path, name: object) -> None:
    (tmp_path / INPUTS).mkdir()
    for path in (tmp_path / "secret.png", tmp_path / INPUTS / "3.png"):
        Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(CreationError, match="not there any more"):
        kept_input(tmp_path, name)
