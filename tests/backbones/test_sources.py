from __future__ import annotations

from pathlib import Path

import pytest

from lora_scene.backbones.sources import (
    find_base,
    is_hub_id,
    note_base,
    other_base,
    public_name,
    resolve_model,
)
from lora_scene.errors import BackboneError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_SCENE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize(
    "name",
    [
        "plainword",
        "./nowhere",
        "a/b/c",
        "~/nowhere",
        "~nobody/x",
        "some/model.safetensors",
        "",
        "a/",
    ],
)
def test_name_that_is_neither_path_nor_hub_id_is_refused(name):
    with pytest.raises(BackboneError, match="no such base"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_name_that_no_system_takes_is_refused(name):
    with pytest.raises(BackboneError, match=r"expected: a hub id \(user/name\)"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mini", "mini"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("/home/jane-doe/models/noob.safetensors", "noob.safetensors"),
        ("~/models/my base/", "my base"),
        ("./base", "base"),
        ("C:\\Users\\jane\\models\\noob.safetensors", "noob.safetensors"),
        ("/", "base"),
    ],
)
def test_public_name_holds_no_place_of_this_machine(model, name):
    assert public_name(model) == name


def test_relative_path_that_looks_like_a_hub_id_is_known_for_a_path_while_it_exists():
    assert is_hub_id("models/noob")
    Path("models/noob").mkdir(parents=True)
    assert not is_hub_id("models/noob")
    assert public_name("models/noob") == "noob"
    assert public_name(".") == "work"


def test_base_is_found_where_a_base_of_its_hash_was_last_seen(tmp_path, monkeypatch):
    base = tmp_path / "jane" / "base"
    base.mkdir(parents=True)
    (tmp_path / "work" / "base").mkdir()  # another one of the same name
    monkeypatch.chdir(tmp_path)
    note_base("jane/base", "ab12")
    monkeypatch.chdir(tmp_path / "work")
    assert find_base("base", base_hash="ab12") == str(base)
    assert find_base("base", base_hash="cd34") == "base"


def test_moved_base_is_found_beside_its_adapter(tmp_path):
    note_base(tmp_path / "work", "ab12")
    for near in (tmp_path / "set" / "base", tmp_path / "set" / "adapter" / "base.safetensors"):
        near.mkdir(parents=True)
        found = find_base(near.name, base_hash="0" * 64, near=tmp_path / "set" / "adapter")
        assert found == str(near)


@pytest.mark.parametrize("base_hash", ["", "ab12", "../../work", "a" * 5000])
def test_base_that_is_nowhere_is_asked_for_by_its_option(base_hash):
    with pytest.raises(BackboneError, match=r"base: the base .* is not here") as caught:
        find_base("base", base_hash=base_hash)
    assert "--base PATH" in str(caught.value)


@pytest.mark.parametrize("name", ["mini", "runwayml/stable-diffusion-v1-5"])
def test_base_on_the_hub_or_in_the_package_is_itself(name):
    assert find_base(name, base_hash="ab12") == name
    note_base(name, "ab12")
    assert find_base("base-of-nobody/x", base_hash="ab12") == "base-of-nobody/x"


A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("trained", "here", "said"),
    [
        (("x/y", f"{A}.{B}"), ("z", f"{A}.{B}"), None),
        (("x/y", A), ("z", f"{A}.{B}"), None),  # an earlier file's hash, of the UNet alone
        (("x/y", f"{A}.{B}"), ("z", f"{A}.{C}"), "another base (x/y, sha256 bbbbbbbbbbbb) than "),
        (("~/m/y", A), ("./y", B), "other weights (y, sha256 aaaaaaaaaaaa) than here (y, bbb"),
        (("y", A), ("y", B), "or float16 rounds the same ones"),
        (("x/y", A), ("x/y", ""), None),  # low-bit weights have no hash
        (("x/y", A), ("z", ""), "another name (x/y) than here (z); their weights cannot be"),
        (("", ""), ("z", A), None),
    ],
)
def test_another_base_is_told_by_its_weights_and_where_they_are_unknown_by_its_name(
    trained, here, said
):
    told = other_base(trained, here, is_rounded=trained[0] == "y")
    assert told is None if said is None else said in (told or "")
