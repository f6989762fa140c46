from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.adapters.adapter import LearnedConcept
from lora_scene.adapters.vocabulary import noun_rows
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.generation import draw
from lora_scene.creating.rendering import strengthened
from lora_scene.creating.requests import Control, Request, Sampling, parse_amount
from lora_scene.errors import CreationError
from tests import tiny
from tests.adapters import made
from tests.creating.studios import assemble_studio, studio

QUICK = Sampling(2, 3.0)


def pixels(one, **asked):
    request = Request("a photo of <bear>", sampling=QUICK, control=Control(**asked))
    return next(draw(one, [request]))[1].pixels


def test_an_amount_is_read_with_or_without_brackets():
    assert parse_amount("bear=0.5") == ("<bear>", 0.5)
    assert parse_amount("<bear>=-1") == ("<bear>", -1.0)
    with pytest.raises(CreationError, match=r"bear=0\.5"):
        parse_amount("bear")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rows_move_on_the_line_from_the_noun_and_come_back_bit_for_bit(family):
    one = studio(family)
    for tokenizer, encoder in zip(one.backbone.tokenizers, one.backbone.text_encoders, strict=True):
        matrix = encoder.get_input_embeddings().weight
        before = matrix.detach().clone()
        (row,) = tokenizer.convert_tokens_to_ids(["<bear>"])
        noun = noun_rows(tokenizer, matrix, "noun 0", 1)[0]
        with strengthened(one, {"<bear>": 0.25}):
            torch.testing.assert_close(matrix[row], 0.75 * noun + 0.25 * before[row])
            others = [index for index in range(len(matrix)) if index != row]
            assert torch.equal(matrix[others], before[others])
        assert torch.equal(matrix, before)


def test_rows_come_back_after_an_error_too():
    one = studio()
    matrix = one.backbone.text_encoders[0].get_input_embeddings().weight
    before = matrix.detach().clone()
    with pytest.raises(RuntimeError), strengthened(one, {"<bear>": 0.0}):
        raise RuntimeError
    assert torch.equal(matrix, before)


def test_strength_zero_reads_as_the_noun_when_the_noun_is_one_piece():
    pipeline = tiny.pipeline("sd1")
    plain = made.adapter(pipeline, "sd1", handles=("<bear>",), unet=False)
    rows = plain.concepts[0].rows
    adapter = type(plain)("sd1", (LearnedConcept("<bear>", "dog", rows=rows),), {}, plain.info)
    one = assemble_studio(pipeline, [AdapterChoice(adapter)])
    request = Request("a photo of dog", sampling=QUICK)
    noun = next(draw(one, [request]))[1].pixels
    np.testing.assert_array_equal(pixels(one, strengths=(("<bear>", 0.0),)), noun)
    assert not np.array_equal(pixels(one), noun)


def test_strength_one_and_emphasis_one_change_nothing():
    one = studio()
    plain = pixels(one).astype(int)
    for asked in ({"strengths": (("<bear>", 1.0),)}, {"emphases": (("<bear>", 1.0),)}):
        assert np.abs(pixels(one, **asked) - plain).max() <= 1
    for asked in ({"strengths": (("<bear>", 0.3),)}, {"emphases": (("<bear>", 5.0),)}):
        assert np.abs(pixels(one, **asked) - plain).max() > 1


def test_noun_pieces_are_spread_over_several_vectors():
    tokenizer = tiny.tokenizer()
    matrix = torch.randn(len(tokenizer), 8, generator=torch.Generator().manual_seed(0))
    red, dog = tokenizer("red dog", add_special_tokens=False).input_ids
    rows = noun_rows(tokenizer, matrix, "red dog", 3)
    expected = torch.stack([matrix[red], matrix[dog], (matrix[red] + matrix[dog]) / 2])
    torch.testing.assert_close(rows, expected)


def test_unknown_handles_and_negative_emphases_are_refused():
    with pytest.raises(CreationError, match="no adapter knows"), strengthened(studio(), {"<x>": 1}):
        pass
    with pytest.raises(CreationError, match="negative emphasis"):
        Control(emphases=(("<bear>", -1.0),))
