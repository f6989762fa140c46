from __future__ import annotations

import pytest

from lora_scene.errors import SegmenterError
from lora_scene.scenes.mask_prompts import Box, Point, Prompt, Stroke, check_prompts

ALL = frozenset({"box", "point", "stroke", "words", "pick"})
SHAPE = (60, 100)


def check(*prompts: Prompt, accepted=ALL):
    check_prompts(prompts, SHAPE, accepted=accepted, segmenter="tester")


def test_a_prompt_knows_its_kinds_and_whether_it_says_where():
    prompt = Prompt("<a>", "a", Box(0, 0, 9, 9), strokes=(Stroke(((1, 1), (2, 2)), 3),))
    assert prompt.kinds == {"box", "stroke"}
    assert prompt.says_where
    assert not Prompt("<a>", "a", points=(Point(1, 1, is_inside=False),)).says_where
    assert Prompt("<a>", "a", points=(Point(1, 1),)).says_where


def test_good_prompts_pass_at_the_very_edge():
    check(
        Prompt("<a>", "a", Box(0, 0, 100, 60), (Point(0, 0), Point(99.9, 59.9))),
        Prompt("<d>", "d", Box(9, 9, 20, 20), (Point(30, 15, is_inside=False),)),
        Prompt("<b>", "b", words="a bowl"),
        Prompt("<c>", "c", pick=3),
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("<a>", "a"), r"<a>: nothing tells where it is(.|\n)*no prompt"),
        (
            Prompt("<a>", "a", points=(Point(3, 3, is_inside=False),)),
            r"nothing tells where it is(.|\n)*only places outside",
        ),
        (Prompt("<a>", "a", Box(50, 0, 40, 9)), r"<a>: box: the box is inverted(.|\n)*50,0,40,9"),
        (Prompt("<a>", "a", Box(5, 5, 5, 9)), "inverted or empty"),
        (Prompt("<a>", "a", Box(0, 0, 101, 9)), r"leaves the photo(.|\n)*100 x 60(.|\n)*upright"),
        (Prompt("<a>", "a", Box(-1, 0, 10, 9)), "leaves the photo"),
        (
            Prompt("<a>", "a", Box(9, 9, 20, 20), (Point(30, 15),)),
            r"outside its own box(.|\n)*30,15(.|\n)*widen it",
        ),
        (Prompt("<a>", "a", points=(Point(100, 5),)), r"outside the photo(.|\n)*100,5"),
        (
            Prompt("<a>", "a", strokes=(Stroke(((5, 5), (5, 70)), 3),)),
            r"outside the photo(.|\n)*5,70",
        ),
        (Prompt("a b", "a", Box(0, 0, 9, 9)), "illegal handle"),
        (
            Prompt("<a>", "a", Box(0, 0, 9, 9), points=(Point(3, 3),), pick=1),
            r"<a>: a picked region takes nothing beside it(.|\n)*pick and box, point",
        ),
        (
            Prompt("<a>", "a", strokes=(Stroke(((5, 5), (5, 7)), 1e9),)),
            r"<a>: a stroke is wider than the photo(.|\n)*at most 100 pixels(.|\n)*1e\+09",
        ),
    ],
)
def test_a_wrong_prompt_is_answered_with_what_to_do(prompt, message):
    with pytest.raises(SegmenterError, match=message):
        check(prompt)


def test_no_prompt_at_all_is_refused():
    with pytest.raises(SegmenterError, match=r"no concept is asked for(.|\n)*a box around it"):
        check()


@pytest.mark.parametrize(
    ("prompt", "accepted", "message"),
    [
        (
            Prompt("<a>", "a", words="bowl"),
            {"box"},
            r"tester does not understand words(.|\n)*clipseg",
        ),
        (Prompt("<a>", "a", pick=1), {"box"}, r"understand pick(.|\n)*maskformer"),
        (Prompt("<a>", "a", Box(0, 0, 9, 9)), {"words"}, r"understand box(.|\n)*grabcut"),
    ],
)
def test_a_kind_that_the_segmenter_does_not_follow_names_another(prompt, accepted, message):
    with pytest.raises(SegmenterError, match=message):
        check(prompt, accepted=frozenset(accepted))


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(SegmenterError, match="3 problems") as caught:
        check(Prompt("<a>", "a"), Prompt("<a>", "a", Box(9, 9, 1, 1)))
    for part in ("used twice", "nothing tells", "inverted"):
        assert part in str(caught.value)
