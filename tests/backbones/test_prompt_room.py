"""What is told of prompts before a base is loaded is what training then says of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from lora_scene.backbones import prompt_room
from lora_scene.backbones.prompt_room import report_on_prompts
from lora_scene.backbones.sources import resolve_model
from lora_scene.errors import SceneError
from lora_scene.recipe import load_recipe
from tests.learning import made

BASE_READS_NOUNS = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
PRIOR = ("prior.weight=1", "prior.n_images=1", "prior.n_steps=1")


def with_noun(scene, noun):
    return replace(scene, concepts=(replace(scene.concepts[0], noun=noun), *scene.concepts[1:]))


@pytest.mark.parametrize(
    ("given", "noun"),
    [
        (BASE_READS_NOUNS, "bear " * 30),
        (["handles.with_nouns=true"], "bear " * 30),
        (["handles.n_vectors=16"], "bear"),
        ([*PRIOR], "bear " * 30),
        ([*made.ON_GROUNDS, "grounds.far=1e-6"], "bear " * 30),
        ([*made.ON_GROUNDS, "grounds.far=0", f"grounds.phrases=['{'far ' * 40}']"], "bear"),
        (["run.sample_every=1", f"run.sample_prompts=['<bear> {'far ' * 40}']"], "bear"),
    ],
)
def test_where_the_base_lies_here_the_count_is_training_s_own(given, noun, bases, scene, tmp_path):
    wordy = with_noun(scene, noun.strip())
    settings = made.recipe(bases["sd1"], *given)
    (told, *_) = report_on_prompts(wordy, settings).refusals
    with pytest.raises(SceneError, match="a prompt is too long") as refused:
        made.run(wordy, settings, tmp_path)
    where, n, room = re.match(
        r"(\S+): a prompt has (\d+) tokens, and the text encoder reads (\d+): training refuses it",
        told,
    ).groups()
    said = str(refused.value)
    assert said.startswith(f"{where}: ")
    assert f"at most {room} tokens" in said
    assert re.search(r"got: +(\d+):", said)[1] == n


@pytest.mark.parametrize("given", [(), BASE_READS_NOUNS, PRIOR, made.ON_GROUNDS])
def test_what_training_takes_is_not_doubted(given, bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], *given, steps=(1, 1))
    assert report_on_prompts(scene, settings) == prompt_room.PromptReport()
    made.run(scene, settings, tmp_path)


def test_what_hangs_on_far_colours_is_a_doubt(bases, scene):
    long = ("grounds.far=20", f"grounds.phrases=['{'far ' * 40}']")
    told = report_on_prompts(scene, made.recipe(bases["sd1"], *made.ON_GROUNDS, *long))
    assert told.refusals == ()
    (doubt,) = told.doubts
    assert doubt.startswith("where a thing has colours that the base does not expect: grounds.ph")


@pytest.mark.parametrize(
    ("n_words", "outcome"),  # "a photo of", three joined by two "and": 5 words, and both ends
    [(40, ""), (61, "doubted"), (67, "doubted"), (68, "refused")],
)
def test_of_a_base_that_is_not_here_words_are_counted(n_words, outcome, scene):
    """Beside them stand 'red bowl' and 'grass': 5 + 3 + 2 tokens, so that 67 more fill all 77."""
    told = report_on_prompts(with_noun(scene, "a " * (n_words - 1) + "b"), load_recipe("sd15"))
    assert bool(told.refusals) == (outcome == "refused")
    assert bool(told.doubts) == (outcome == "doubted")
    if told.refusals:
        assert (
            "has 78 tokens at least, one a word, and the text encoder reads 77" in told.refusals[0]
        )
    if told.doubts:
        assert "guessed by its words" in told.doubts[0]


def test_words_of_other_languages_are_doubted_by_their_letters(scene):
    told = report_on_prompts(with_noun(scene, "熊" * 120), load_recipe("sd15"))
    assert told.refusals == ()
    assert told.doubts


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a red ceramic coffee mug, 2nd-hand",
        "the bear's bowl, isn't it?!",
        "don't 'start' it's they're we've i'll i'd i'm",
        "snake_case and 1234 m² of «grass»",
        "Teekanne aus Ton, 茶壶, чайник, चायदानी",
        "o'stuff '' \"quoted\" (x) [y] {z} <not-a-handle>",
    ],
)
def test_words_and_signs_are_never_more_than_their_tokens(text):
    """mini's tokenizer splits a text as CLIP's does, and each part further."""
    own = CLIPTokenizer.from_pretrained(Path(resolve_model("mini")) / "tokenizer")
    assert len(prompt_room.PIECES.findall(text)) <= len(own(text).input_ids) - 2
