"""Whatever a stranger's file says stays text in a card."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from lora_scene.adapters.gallery import SamplePicture
from lora_scene.adapters.model_card import CardFacts, write_card
from tests import tiny
from tests.adapters import made

HOSTILE = [
    "![x](https://evil.example/x.png)",
    "<script>alert(1)</script>",
    "<img src=https://evil.example/x.png>",
    "a | b | c\n| d",
    "```\n# heading\n```",
    "`code` **bold** [link](https://evil.example)",
    "&lt;b&gt; $x$ @someone www.evil.example http://evil.example",
    "---\nlicense: mit\n---",
    "{{ 7 * 7 }} {% raw %}",
]


@pytest.fixture(scope="module")
def adapter():
    return made.adapter(tiny.pipeline(), "sd1", handles=("<Bear>", "<bowl>"), n_vectors=2)


def told(adapter, text, **facts):
    noun = " ".join(text.split())  # nouns and names of files read hold no line ends
    info = dataclasses.replace(adapter.info, recipe_name=noun, versions={noun: noun})
    concepts = tuple(dataclasses.replace(c, noun=noun) for c in adapter.concepts)
    other = dataclasses.replace(adapter, info=info, concepts=concepts)
    return write_card(other, CardFacts("plush", **facts))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(adapter, text, tmp_path):
    samples = [SamplePicture(tmp_path / "00001-0.png", text)]
    plain, card = (told(adapter, t, repo="a/b", samples=samples) for t in ("thing", text))
    card = card.replace("(samples/sheet.png)", "").replace("![Pictures by", "Pictures by")
    _, front, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    data = yaml.safe_load(front)
    assert data["license"] == "creativeml-openrail-m"
    assert data["widget"][0]["text"] == text
    assert body.count("\n") == plain.partition("\n---\n")[2].count("\n") + 1
    bare = re.sub(r"\\.", "", re.sub(r"(`+).*?\1", "", body, flags=re.DOTALL))
    for live in ("![", "](", "<script", "<img", "**", "{{", "@someone", "$x$"):
        assert live not in bare
    assert not re.search(r"https?:|www[.]", bare)
    rows = [line for line in body.splitlines() if line.startswith("| `<")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4, 4]


def test_a_local_card_names_no_repository_and_no_path(adapter):
    info = dataclasses.replace(adapter.info, base_model="/home/jane-doe/stranger/model")
    local = dataclasses.replace(adapter, info=info)
    card = write_card(local, CardFacts("plush", folder="plush"))
    assert "snapshot_download" not in card
    assert "base_model" not in card
    assert "jane-doe" not in card
    assert "stranger/model" not in card
    assert "from_pretrained('model')  # the path of your copy of this base" in card


def test_stock_pipelines_are_told_the_spelling_that_they_expand(adapter):
    card = write_card(adapter, CardFacts("plush", "someone/plush"))
    assert "{'<bear>': 'plush_Bear', '<bowl>': 'plush_bowl'}" in card
    assert "a photo of <bear> and <bowl>" in card
    assert "embedding:plush_Bear" in card
    assert "`a photo of <plush_Bear> and <plush_bowl>`" in card
