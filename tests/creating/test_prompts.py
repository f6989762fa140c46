from __future__ import annotations

import pytest

from lora_scene.creating.prompts import PromptLine, parse_line, read_prompts
from lora_scene.creating.requests import Request, Sampling
from lora_scene.errors import CreationError


def test_a_file_gives_one_prompt_a_line_with_its_own_options(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(
        "# the first three\n\n"
        "a photo of <bear>\n"
        'a <bear> --seed 7 --steps 40 --negative "dark, blurry" --weight 0.7\n'
        "<bowl> --size 512x768 --guidance=5 --scheduler euler\n",
        "utf-8",
    )
    assert read_prompts(path) == [
        PromptLine("a photo of <bear>"),
        PromptLine("a <bear>", {"seed": 7, "steps": 40, "negative": "dark, blurry", "weight": 0.7}),
        PromptLine("<bowl>", {"width": 512, "height": 768, "guidance": 5.0, "scheduler": "euler"}),
    ]


def test_short_names_of_other_prompt_files_are_read():
    line = parse_line("a <bear> --n dark --w 64 --h 96 --d 3 --s 9 --l 2.5 --am 0.5")
    asked = Request("").with_settings(line.settings)
    assert (asked.negative, asked.size, asked.seed, asked.weight) == ("dark", (64, 96), 3, 0.5)
    assert asked.sampling == Sampling(9, 2.5)


def test_a_prompt_may_hold_dashes():
    assert parse_line("a well-lit <my-bear> - red").prompt == "a well-lit <my-bear> - red"


def test_a_value_may_hold_an_equals_sign():
    assert parse_line("a --negative x = y").settings == {"negative": "x = y"}


@pytest.mark.parametrize("line", ["a --seed 3 --seed 4", "a --seed 3 --d 3", "a --size 64 --w 96"])
def test_an_option_has_one_value_in_a_line(line):
    with pytest.raises(CreationError, match="two values"):
        parse_line(line)


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a --sed 3\nfine\nb --steps many\n--seed 3\n", "utf-8")
    with pytest.raises(CreationError) as caught:
        read_prompts(path)
    told = str(caught.value)
    for part in (":1", "did you mean seed", ":3", "a whole number", ":4", "without a prompt"):
        assert part in told


def test_a_table_is_refused_whose_lines_would_be_read_as_prompts(tmp_path):
    (tmp_path / "prompts.JSON").write_text('[\n "a photo of <bear>"\n]\n', "utf-8")
    with pytest.raises(CreationError, match="one prompt a line"):
        read_prompts(tmp_path / "prompts.JSON")


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n", "utf-8")
    with pytest.raises(CreationError, match="no prompt"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(CreationError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")


def test_a_size_is_one_number_or_two():
    assert parse_line("a <bowl> --size 512").settings == {"width": 512, "height": 512}
    assert parse_line("a <bowl> --size 512x768").settings == {"width": 512, "height": 768}
    with pytest.raises(CreationError, match="WIDTHxHEIGHT"):
        parse_line("a <bowl> --size 512by768")
