from __future__ import annotations

import pytest

from lora_scene.scenes.handle_names import check_handles, default_noun, handle_stem


@pytest.mark.parametrize(
    ("handle", "noun"),
    [("<bear>", "bear"), ("<teddy-bear_2>", "teddy bear"), ("<v0>", "object"), ("<x>", "object")],
)
def test_a_noun_is_guessed_from_the_handle(handle, noun):
    assert default_noun(handle) == noun


def test_a_stem_is_the_handle_without_brackets():
    assert handle_stem("<my-mug>") == "my-mug"


def test_good_handles_have_no_problems():
    assert check_handles(["<bear>", "<my-mug_2>", "<A>"], "x") == []
