from __future__ import annotations

import pytest

from lora_scene.adapters.location import locate, name_in_pipeline, plain_name
from lora_scene.errors import AdapterError
from tests import tiny
from tests.adapters import made


def test_an_adapter_is_called_after_its_folder_or_its_things(tmp_path):
    assert plain_name(tmp_path / "bear & bowl (2)") == "bear_bowl_2"
    assert plain_name(tmp_path / "日本") == "adapter"
    assert plain_name("user/scene") == "scene"
    assert plain_name(made.adapter(tiny.pipeline(), "sd1")) == "bear_bowl"


def test_no_adapter_is_called_in_a_pipeline_what_torch_keeps_for_itself(tmp_path):
    assert name_in_pipeline(tmp_path / "keys") == "keys_adapter"  # ModuleDict.keys
    assert name_in_pipeline(tmp_path / "bear") == "bear"


def test_a_place_is_a_folder_or_the_fault_says_what_it_should_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert locate(str(tmp_path)) == tmp_path
    for place, told in (("file", "give the folder it lies in"), ("a/b/c", "such as user/name")):
        with pytest.raises(AdapterError, match=told):
            locate(tmp_path / place)
    with pytest.raises(AdapterError, match="a folder has no revisions"):
        locate(tmp_path, revision="v1")
