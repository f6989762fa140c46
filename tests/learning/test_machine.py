from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType

import pytest

from lora_scene.errors import BackboneError
from lora_scene.learning import machine
from lora_scene.learning.machine import examine


def by_name(folder, device="cpu"):
    return {finding.name: finding for finding in examine(folder, device)}


def test_on_a_cpu_it_finds_the_libraries_and_makes_a_real_low_bit_step(tmp_path):
    found = by_name(tmp_path)
    assert found["torch"].value.startswith("2.")
    assert "no GPU" in found["device"].problem
    assert found["8-bit optimizer"].value == "yes"
    assert found["nf4 base"].value == found["int8 base"].value == "yes"
    assert found["float8_e4m3fn"].problem is None


def test_a_library_that_does_not_load_is_named_with_what_takes_its_place(tmp_path, monkeypatch):
    class Broken(MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            if fullname.startswith("bitsandbytes"):
                raise ImportError("libcudart is missing")

    for name in [name for name in sys.modules if name.startswith("bitsandbytes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    found = by_name(tmp_path)
    assert found["8-bit optimizer"].value == "no"
    assert "libcudart is missing" in found["8-bit optimizer"].problem
    assert "32-bit state" in found["8-bit optimizer"].problem
    for kind in ("nf4", "int8"):
        assert "bitsandbytes does not load" in found[f"{kind} base"].problem
        assert "fp8" in found[f"{kind} base"].problem


@pytest.mark.parametrize("name", ["peft", "diffusers"])
def test_an_installed_library_that_does_not_load_is_told_of(tmp_path, monkeypatch, name):
    assert by_name(tmp_path)[name].problem is None
    monkeypatch.setitem(sys.modules, name, None)  # as an ImportError
    assert "it does not load" in by_name(tmp_path)[name].problem


def test_a_part_of_diffusers_that_does_not_load_is_told_of(tmp_path, monkeypatch):
    broken = ModuleType("diffusers")

    def fail(name):
        raise RuntimeError("Failed to import it (look up):\ncannot import name LoraConfig")

    vars(broken)["__getattr__"] = fail
    monkeypatch.setitem(sys.modules, "diffusers", broken)
    assert "cannot import name LoraConfig" in by_name(tmp_path)["diffusers"].problem


def test_a_folder_that_does_not_exist_yet_is_looked_at_by_its_parent(tmp_path):
    assert str(tmp_path) in by_name(tmp_path / "not" / "yet")["disk"].value


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="no such device"):
        examine(tmp_path, "cuda:7")


def test_a_cpu_build_beside_an_nvidia_card_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.torch.version, "cuda", None)
    for has_card, said in ((True, "built for the CPU alone"), (False, "no GPU was found")):
        monkeypatch.setattr(machine, "has_nvidia_card", lambda there=has_card: there)
        found = {one.name: one.problem for one in machine.examine(tmp_path, "cpu")}
        assert said in found["device"]


def test_the_recipe_to_begin_with_fits_the_card(monkeypatch):
    assert [machine.fitting_recipe(base) for base in (None, "mini", "x/y")] == [
        "mini",
        "mini",
        "sd15",
    ]
    monkeypatch.setattr(machine, "resolve_device", lambda device: "cuda")
    found = []
    for gib in (4, 6, 8, 24):
        monkeypatch.setattr(
            machine, "device_bytes", lambda device, gib=gib: int(0.98 * gib * 2**30)
        )
        found.append(machine.fitting_recipe())
    assert found == ["sd15-4gb", "sd15-6gb", "sd15", "sd15"]
