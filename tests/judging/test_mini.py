from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from lora_scene.errors import JudgingError, SegmenterError
from lora_scene.judging import encoders
from lora_scene.judging.encoders import ClipEncoder, DinoEncoder, load_processor
from lora_scene.judging.judge import load_judge, open_finder
from lora_scene.judging.mini import connected_parts, embedded_folder, read_things, with_article
from lora_scene.scenes.scene import Concept
from tests.clip_folder import save_processor
from tests.judging import fakes

SIDE = 64


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    ViTModel(
        ViTConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            image_size=SIDE, patch_size=16,
        )
    ).save_pretrained(folder)  # fmt: skip
    save_processor("ViTImageProcessor", folder)
    return folder


def pictures() -> list[np.ndarray]:
    return [fakes.picture(fakes.RED, None), np.zeros((40, 90, 3), np.uint8)]


def test_clip_embeds_pictures_of_any_size_and_texts_as_unit_rows(clip_folder) -> None:
    clip = ClipEncoder(clip_folder)
    rows = [clip.embed_pictures(pictures()), clip.embed_texts(["a bear", "a bowl"])]
    for vectors in rows:
        assert vectors.shape == (2, 16)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_batches_change_no_embedding(clip_folder, monkeypatch) -> None:
    clip = ClipEncoder(clip_folder)
    whole = clip.embed_pictures(pictures())
    monkeypatch.setattr(encoders, "BATCH", 1)
    np.testing.assert_allclose(clip.embed_pictures(pictures()), whole, atol=1e-5)
    assert clip.embed_pictures([]).shape[0] == 0


def test_dino_embeds_pictures_by_its_class_token(dino_folder) -> None:
    dino = DinoEncoder(dino_folder)
    vectors = dino.embed_pictures(pictures())
    model = ViTModel.from_pretrained(dino_folder).eval()
    processor = load_processor("ViTImageProcessor", dino_folder)
    with torch.no_grad():
        states = model(**processor(pictures(), return_tensors="pt")).last_hidden_state
    expected = torch.nn.functional.normalize(states[:, 0], dim=-1).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_the_two_encoders_make_a_judge(clip_folder, dino_folder) -> None:
    judge = load_judge("clip+dino", clip=clip_folder, dino=dino_folder)
    assert judge.finder is None
    assert judge.identity.name == str(dino_folder)


def test_the_small_judge_is_encoder_and_finder_in_one(clip_folder) -> None:
    judge = load_judge("mini", folder=clip_folder)
    concepts = [Concept("<bear>", "bear"), Concept("<ground>", "grass", True)]
    found = judge.finder.find(fakes.picture(fakes.RED, fakes.BLUE), concepts)
    assert all(one.region.shape == (SIDE, SIDE) and one.region.any() for one in found)
    assert {one.owner for one in found} <= {0, None}


def test_things_are_parts_of_one_class_that_hang_together() -> None:
    classes = np.full((SIDE, SIDE), 9)
    classes[8:32, 4:28] = 0
    classes[40:60, 40:60] = 0
    classes[0:4, 60:64] = 1  # a speck
    found = read_things(classes, 5, least=160)
    assert [number for _, number in found] == [0, 0]
    assert [int(region.sum()) for region, _ in found] == [24 * 24, 400]


def test_specks_go_to_the_thing_that_they_lie_next_to() -> None:
    classes = np.full((SIDE, SIDE), 9)
    classes[8:32, 4:28] = 0
    classes[8:32, 28:52] = 3
    classes[8:12, 24:28] = 2  # a misread edge of the first
    first, second = read_things(classes, 5, least=160)
    assert (first[1], second[1]) == (0, 3)
    assert not (first[0] & second[0]).any()
    assert ((first[0] | second[0]) == (classes < 9)).all()
    assert first[0][8:12, 24:26].all()
    alone = np.where(classes == 3, 9, classes)
    [(region, number)] = read_things(alone, 5, least=160)
    assert (int(region.sum()), number) == (24 * 24, 0)


def test_parts_hang_together_by_edges_and_not_by_corners() -> None:
    parts = connected_parts(np.eye(2, dtype=bool))
    assert [part.sum() for part in parts] == [1, 1]


def test_nouns_get_their_article() -> None:
    assert (with_article("apple"), with_article("cat")) == ("an apple", "a cat")


@pytest.mark.parametrize("name", ["clip", "mimi"])
def test_an_unknown_judge_is_named_with_those_there_are(name) -> None:
    with pytest.raises(JudgingError, match=r"mini or clip\+dino"):
        load_judge(name)


def test_missing_weights_are_said_in_one_sentence(tmp_path) -> None:
    with pytest.raises(JudgingError, match=r"cannot be had[\s\S]*--judge mini"):
        load_judge("clip+dino", dino="nobody/nothing", clip="nobody/nothing")
    with pytest.raises(JudgingError, match="incomplete"):
        ClipEncoder(tmp_path)


def test_a_missing_embedded_judge_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("lora_scene.judging.mini.resources.files", lambda name: tmp_path)
    with pytest.raises(JudgingError, match="no embedded judge"):
        embedded_folder()


def test_a_finder_is_the_attention_or_a_segmenter_that_follows_words() -> None:
    assert open_finder("attention") is None
    with pytest.raises(JudgingError, match="does not follow words"):
        open_finder("grabcut")
    with pytest.raises(SegmenterError, match="nobody"):
        open_finder("nobody")


@pytest.mark.parametrize(
    ("name", "part"),
    [("mini", "clip"), ("mini", "dino"), ("mini", "finder"), ("clip+dino", "folder")],
)
def test_a_part_of_the_other_judge_is_refused(name, part):
    with pytest.raises(JudgingError, match=rf"{re.escape(name)}: a part (?s:.)*got: +{part}\n"):
        load_judge(name, **{part: "anything"})
