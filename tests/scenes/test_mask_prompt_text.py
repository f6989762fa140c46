from __future__ import annotations

import pytest

from lora_scene.errors import SegmenterError
from lora_scene.scenes.mask_prompt_text import (
    BRUSH_WIDTH,
    PromptText,
    parse_background,
    parse_prompts,
    to_handle,
)
from lora_scene.scenes.mask_prompts import Box, Point, Prompt, Stroke
from lora_scene.scenes.scene import Concept


def test_every_kind_of_prompt_is_read():
    prompts = parse_prompts(
        PromptText(
            boxes=["bear=40,60,300.5,420"],
            points=["bear=1,2", "<bowl>=120,400"],
            outside=["bear=7,8"],
            strokes=["bowl=1,2;3,4", "bowl=5,6;7,8@20"],
            words=["shell=a brown shell"],
            picks=["stone=3"],
            nouns=["bear=teddy bear"],
        )
    )
    assert prompts == (
        Prompt(
            "<bear>",
            "teddy bear",
            Box(40, 60, 300.5, 420),
            (Point(1, 2), Point(7, 8, is_inside=False)),
        ),
        Prompt(
            "<bowl>",
            "bowl",
            points=(Point(120, 400),),
            strokes=(Stroke(((1, 2), (3, 4)), BRUSH_WIDTH), Stroke(((5, 6), (7, 8)), 20)),
        ),
        Prompt("<stone>", "stone", pick=3),
        Prompt("<shell>", "shell", words="a brown shell"),
    )


def test_words_may_name_themselves():
    (prompt,) = parse_prompts(PromptText(words=["Panda plush"]))
    assert prompt == Prompt("<panda-plush>", "Panda plush", words="Panda plush")


def test_a_name_may_have_its_brackets():
    assert to_handle("bear") == to_handle("<bear>") == "<bear>"


@pytest.mark.parametrize(("text", "noun"), [("room", "room"), ("<room>=empty room", "empty room")])
def test_a_background_is_read_with_or_without_its_noun(text, noun):
    assert parse_background(text) == Concept("<room>", noun, is_background=True)


@pytest.mark.parametrize("text", ["a room", "room=", "=x"])
def test_a_background_that_is_no_name_is_refused(text):
    with pytest.raises(SegmenterError, match="an illegal name"):
        parse_background(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PromptText(boxes=["bear"]), r"NAME=left,top,right,bottom"),
        (PromptText(boxes=["bear=1,2,3"]), r"bear=1,2,3: cannot be read(.|\n)*left,top"),
        (PromptText(boxes=["bear=1,2,3,x"]), "cannot be read"),
        (PromptText(boxes=["bear=1,2,3,nan"]), "cannot be read"),
        (PromptText(boxes=["bear=1,2,3,inf"]), "cannot be read"),
        (PromptText(boxes=["bear=1,2,3,4", "bear=1,2,3,5"]), "box is given twice"),
        (PromptText(boxes=["bear=1,2,3,4"], nouns=["bear=a", "bear=b"]), "noun is given twice"),
        (PromptText(points=["bear=1"]), "NAME=x,y"),
        (PromptText(strokes=["bear=1,2"]), "NAME=x,y;x,y"),
        (PromptText(strokes=["bear=1,2;3,4@0"]), "NAME=x,y;x,y"),
        (PromptText(picks=["bear=two"]), "NAME=number"),
        (PromptText(words=["bear="]), "some words"),
        (PromptText(words=["bear=a", "bear=b"]), "words is given twice"),
        (PromptText(boxes=["be ar=1,2,3,4"]), r"an illegal name(.|\n)*'be ar'"),
        (
            PromptText(boxes=["shell=1,2,3,4"], nouns=["shel=x"]),
            r"unknown concept(.|\n)*<shel>(.|\n)*did you mean <shell>",
        ),
        (PromptText(nouns=["shell"]), "NAME=some words"),
    ],
)
def test_what_cannot_be_read_is_answered_with_the_form(text, message):
    with pytest.raises(SegmenterError, match=message):
        parse_prompts(text)


def test_all_that_cannot_be_read_is_told_at_once():
    with pytest.raises(SegmenterError, match="3 problems"):
        parse_prompts(PromptText(boxes=["a=1"], points=["b=2"], nouns=["cc=d"]))
