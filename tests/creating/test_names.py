from __future__ import annotations

from dataclasses import replace

import pytest

from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.studio import read_cast
from lora_scene.errors import AdapterError, CreationError
from tests import tiny
from tests.adapters import made


def cast(**how):
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1", handles=("<bear>", "<bowl>"))
    return read_cast([adapter], **how)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("(<bear>:1.3) on grass", "--emphasis"),
        ("((<bear>)) on grass", "--emphasis"),
        ("[<bear>] on grass", "square brackets"),
        ("<lora:a:1> a photo of <bear>", "loads an adapter"),
        ("embedding:bear and <bowl>", "ComfyUI"),
        ("<bear> BREAK <bowl>", "joins prompts"),
        ("<bear> in __place__", "wildcard"),
        ("a <bear> \u2014seed 9", "an option"),
        ("a <bear> --Seed 9", "an option"),
        ("(<bear>:-1.2) on grass", "--emphasis"),
        ("(a (big) <bear>:1.3)", "--emphasis"),
        ("a <bear>++ on grass", "--emphasis"),
        ("a (big <bear>)+", "--emphasis"),
        ("a <bear>--seed 7", "an option"),
        ("a <bear> -- seed 7", "an option"),
        ("a <bear> \u2014d 7", "an option"),
        ("a <bear>\u2014width=512", "an option"),
        ("a <bear> --w 512", "an option"),
        ("a <bear>--negative dark", "an option"),
        ("a <bear > and <bowl>", "did you mean <bear>"),
        ("a \uff1cBear\uff1e and <bowl>", "did you mean <bear>"),
        ("a &lt;bear&gt; and <bowl>", "did you mean <bear>"),
        ("a photo of a bear", "names no handle; there are <bear> (noun 0), <bowl> (noun 1)"),
    ],
)
def test_what_would_be_drawn_otherwise_than_meant_is_told(prompt, told):
    (note,) = cast().notes_on(prompt)
    assert told in note
    assert prompt in note


@pytest.mark.parametrize(
    "prompt",
    [
        "a <bear> (brown)",
        "a <Bear>, 2:30 pm",
        "a <bear> and brea",
        "a <bear> (at 12:30)",
        "a <bear> (drawn at 1:2)",
        "a <bear> on a book: C++ (an introduction)",
        "a <bear> + <bowl>, 2+2",
        "a <bear>-like <bowl>",
        "a <bear> -- brown, 3-5 years old -- on grass",
        "a <bear> \u2014 a 7-year-old's, size 7 \u2014 on grass",
        "a <bear>\u2014height of fashion\u2014in 1950\u20131960",
        "a <bear>'s shoe -- size 7, weight 3 kg",
        "a <bear> beside the words me@site.com & \u00abBear\u00bb",
    ],
)
def test_plain_prompts_are_not_commented_on(prompt):
    assert cast().notes_on(prompt) == []


def test_a_negative_prompt_that_nothing_reads_is_told():
    asked = [
        Request("a <bear>", negative="dark", sampling=Sampling(guidance=guidance))
        for guidance in (None, 7.0, 1.0, 0.0)
    ]
    assert cast().notes_on_all(asked[:2]) == []
    (told,) = cast().notes_on_all(asked)
    assert "'dark': a negative prompt changes nothing" in told


def test_foreign_syntax_in_a_negative_prompt_is_told_once():
    negative = "(worst quality:1.4), embedding:bad, <bear >"
    asked = [Request("a <bear>", seed=seed, negative=negative) for seed in (1, 2)]
    told = cast().notes_on_all([*asked, Request("a <bowl>", negative="dark, a bowl")])
    assert all(note.startswith(f"{negative!r}: ") for note in told)
    assert [note.count("read as plain words") for note in told] == [1, 1, 1]
    for word, note in zip(("--emphasis", "ComfyUI", "did you mean <bear>"), told, strict=True):
        assert word in note


def test_a_handle_is_renamed_in_the_last_adapter_that_has_it():
    pipeline = tiny.pipeline("sd1")
    pair = [made.adapter(pipeline, "sd1", handles=("<ground>",), seed=seed) for seed in (1, 2)]
    with pytest.raises(CreationError, match=r"(?s)<ground>: two adapters.*--rename"):
        read_cast(pair)
    one = read_cast(pair, rename=["ground=lawn"])
    assert [concept.handle for concept in one.concepts] == ["<ground>", "<lawn>"]
    assert [dict(member.renamed) for member in one.members] == [{}, {"<ground>": "<lawn>"}]
    plain = read_cast(pair[1:])
    assert one.members[1].fingerprint == plain.members[0].fingerprint
    with pytest.raises(AdapterError, match="no adapter has the handle <cup>"):
        cast(rename=["cup=hat"])


def test_a_weight_of_rows_alone_is_told():
    pipeline = tiny.pipeline("sd1")
    rows = made.adapter(pipeline, "sd1", handles=("<mug>",), unet=False)
    full = made.adapter(pipeline, "sd1")
    asked = [Request("a <mug>", weight=weight) for weight in (0.0, 1.0)]
    alone, weighed = (read_cast([AdapterChoice(rows, weight)]) for weight in (1.0, 0.3))
    (name,) = [member.name for member in alone.members]
    told = [f"{name} has no LoRA: weights change nothing"]
    assert alone.notes_on_all(asked) == weighed.notes_on_all(asked[1:]) == told
    assert alone.notes_on_all([asked[1], replace(asked[0], is_base=True)]) == []
    both = read_cast([full, rows])
    last = both.members[1].name
    assert both.notes_on_all(asked) == []
    assert len(both.notes_on_all([replace(asked[0], weight=((last, 0.5),))])) == 1
