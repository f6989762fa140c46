from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from lora_scene.errors import JudgingError
from lora_scene.judging.encoders import ClipEncoder, DinoEncoder


class _Touch:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("encoder", [ClipEncoder, DinoEncoder])
def test_a_judge_that_is_a_pickle_is_refused_and_not_opened(clip_folder, tmp_path, encoder) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch(tmp_path / "opened")))
    with pytest.raises(JudgingError, match=r"cannot be had(.|\n)*no pickles"):
        encoder(folder)
    assert not (tmp_path / "opened").exists()
