from __future__ import annotations

import pytest

from lora_scene.creating.choices import AdapterChoice
from lora_scene.errors import CreationError


@pytest.mark.parametrize(
    ("text", "source", "weight"),
    [
        ("scene", "scene", 1.0),
        ("scene:0.7", "scene", 0.7),
        ("user/name:-1", "user/name", -1.0),
        ("C:\\scenes\\bear", "C:\\scenes\\bear", 1.0),
        ("C:\\scenes\\bear:.5", "C:\\scenes\\bear", 0.5),
    ],
)
def test_a_choice_is_a_folder_and_maybe_a_weight(text, source, weight):
    assert AdapterChoice.parse(text) == AdapterChoice(source, weight)


def test_a_folder_whose_name_ends_like_a_weight_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v:2").mkdir()
    assert AdapterChoice.parse("v:2") == AdapterChoice("v:2")
    assert AdapterChoice.parse("v:2:1.5e-1") == AdapterChoice("v:2", 0.15)
    with pytest.raises(CreationError, match="no weight"):
        AdapterChoice.parse("v:2:half")
