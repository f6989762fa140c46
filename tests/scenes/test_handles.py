from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from lora_scene.scenes.handles import (
    Concept,
    check_handles,
    default_noun,
    handle_stem,
    noun_doubts,
    word_notes,
)


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


@pytest.mark.parametrize("name", ["con", "AUX", "nul", "prn", "com1", "LPT9"])
def test_a_handle_that_windows_keeps_for_a_device_is_refused(name):
    assert PureWindowsPath(f"{name}.safetensors").is_reserved()
    (problem,) = check_handles([f"<{name}>"], "scene.toml")
    assert "Windows" in str(problem)
    assert check_handles([f"<{name}x>", f"<my-{name}>"], "scene.toml") == []


def test_words_as_names_of_files_are_told():
    (said,) = word_notes(["<bear>", "<v0>", "<my-mug>", "<42>"])
    assert said.startswith("embeddings called bear, 42 would take over these words")
    assert "lora-scene export" in said
    assert word_notes(["<v0>", "<bear_1>"]) == []


@pytest.mark.parametrize(
    ("noun", "without"),
    [("a cat", "cat"), ("An old owl", "old owl"), ("the  dog", "dog"), ("A cat", "cat")],
)
def test_a_noun_with_an_article_is_told_with_the_one_without(noun, without):
    (said,) = noun_doubts([Concept("<pet>", noun), Concept("<b>", "bowl")])
    assert said.startswith(f"<pet>: the article in {noun!r} counts")
    assert said.endswith(f"; write {without!r}")


def test_nouns_that_only_begin_like_an_article_are_not_doubted():
    assert (
        noun_doubts([Concept("<x>", "antenna"), Concept("<y>", "theatre"), Concept("<z>", "a")])
        == []
    )


def test_one_noun_in_two_capitals_is_told_as_one():
    (said,) = noun_doubts([Concept("<x>", "Cat"), Concept("<y>", "cat")])
    assert said.startswith("<x> and <y> have one noun, 'cat'")


@pytest.mark.parametrize("noun", ["red\x1b[31mcar", "a\ncar", "c" * 201])
def test_a_noun_that_no_adapter_s_file_may_hold_is_refused(noun):
    (problem,) = check_handles(["<car>"], "scene", nouns=[noun])
    assert "an illegal noun" in str(problem)


def test_a_noun_that_holds_a_handle_is_refused():
    (problem,) = check_handles(["<a>", "<b>"], "scene", nouns=["bear in <b>", "a < b"])
    assert "a noun that holds a handle" in str(problem)
    assert "bear in <b>" in str(problem)
