from __future__ import annotations

import contextlib
import re
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lora_scene.backbones.families import identify
from lora_scene.backbones.loading import (
    load_pipeline,
    quiet_libraries,
    resolve_device,
    resolve_dtype,
)
from lora_scene.errors import BackboneError
from tests import tiny
from tests.backbones import ldm


def assert_same_weights(ours, theirs):
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(theirs, part, None) is not None:
            expected = getattr(theirs, part).state_dict()
            found = getattr(ours, part).state_dict()
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_folder_is_loaded_as_it_was_saved(family, bases):
    pipe = load_pipeline(bases[family])
    assert identify(pipe.unet.config).key == family
    assert_same_weights(pipe, tiny.pipeline(family))
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_have_the_dtype_that_was_asked_for(dtype, bases):
    pipe = load_pipeline(bases["sdxl"], dtype=dtype)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        assert {p.dtype for p in part.parameters()} == {kind}


def test_single_file_in_the_original_layout_is_loaded_with_a_folders_configurations(
    bases, tmp_path
):
    original = tiny.pipeline("sd1", seed=7)
    path = ldm.write(original, tmp_path / "checkpoint.safetensors")
    pipe = load_pipeline(path, config=bases["sd1"])
    assert_same_weights(pipe, original)
    assert len(pipe.tokenizer) == len(original.tokenizer)
    assert pipe.safety_checker is None


def test_the_configurations_of_a_single_file_are_looked_at_before_its_weights(
    bases, tmp_path, monkeypatch
):
    path = ldm.write(tiny.pipeline("sd1"), tmp_path / "checkpoint.safetensors")
    monkeypatch.setattr("diffusers.StableDiffusionPipeline.from_single_file", None)

    def look(folder):
        raise BackboneError("seen", where=folder)

    with pytest.raises(BackboneError, match=f"{re.escape(str(Path(bases['sd1'])))}: seen"):
        load_pipeline(path, config=bases["sd1"], look=look)


def test_single_file_without_configurations_says_what_is_missing_offline(tmp_path):
    path = ldm.write(tiny.pipeline("sd1"), tmp_path / "checkpoint.safetensors")
    said = r"checkpoint.safetensors: .*of \S+stable-diffusion-v1-5 .*hub cannot be reached"
    with pytest.raises(BackboneError, match=rf"{said}(.|\n)*--base-config"):
        load_pipeline(path)


def test_no_file_stays_mapped_once_a_base_is_loaded(bases, tmp_path):
    path = ldm.write(tiny.pipeline("sd1"), tmp_path / "checkpoint.safetensors")
    pipes = [load_pipeline(path, config=bases["sd1"]), load_pipeline(bases["sdxl"])]
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    mapped = maps.read_text("utf-8")
    assert str(path) not in mapped
    assert bases["sdxl"] not in mapped
    assert len(pipes) == 2


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
@pytest.mark.parametrize("source", ["folder", "file"])
def test_low_bit_storage_predicts_about_the_same(quantization, source, bases, tmp_path):
    model, config = bases["sd1"], None
    if source == "file":
        config = model
        model = ldm.write(tiny.pipeline("sd1"), tmp_path / "checkpoint.safetensors")
    pipe = load_pipeline(model, quantization=quantization, config=config)
    exact = tiny.pipeline("sd1").unet
    noise = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(1, 4, 16, 16, generator=noise),
        torch.tensor([500]),
        torch.randn(1, 24, 32, generator=noise),
    )
    with torch.no_grad():
        expected = exact(*inputs).sample
        found = pipe.unet(*inputs).sample
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.15, float(error)
    stored = sum(p.numel() * p.element_size() for p in pipe.unet.state_dict().values())
    assert stored < sum(p.numel() * p.element_size() for p in exact.state_dict().values())


def test_a_folder_takes_no_other_configurations(bases):
    for model in (bases["sd1"], "mini", "somebody/base"):
        with pytest.raises(BackboneError, match=r"base\.config=x: .*configurations of its own"):
            load_pipeline(model, config="x")


def test_auto_dtype_is_float32_without_a_gpu():
    assert resolve_dtype("auto", "cpu") == torch.float32
    assert resolve_dtype("bf16", "cpu") == torch.bfloat16


@pytest.mark.parametrize(("is_ampere", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_auto_dtype_takes_no_bf16_that_is_only_emulated(is_ampere, dtype, monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation or is_ampere

    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_dtype("auto", "cuda:1") == getattr(torch, dtype)


def test_device_that_is_not_there_is_refused(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(BackboneError, match="no such device here"):
        resolve_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    for name in ("cuda:2", "cuda:x"):
        with pytest.raises(BackboneError, match="no such device here"):
            resolve_device(name)


def test_a_library_that_does_not_load_is_not_taken_for_a_damaged_base(monkeypatch):
    wrapped = ModuleType("diffusers")

    def fail(name):
        raise RuntimeError("Failed to import diffusers.pipelines (look up):\nCUDA setup failed")

    vars(wrapped)["__getattr__"] = fail
    for broken in (wrapped, None):
        monkeypatch.setitem(sys.modules, "diffusers", broken)
        with pytest.raises(BackboneError, match=r"does not load(.|\n)*lora-scene doctor") as caught:
            load_pipeline("mini")
        assert "damaged" not in str(caught.value)
        assert ("CUDA setup failed" in str(caught.value)) == (broken is wrapped)


def test_libraries_are_quieted_and_given_their_voice_back():
    from diffusers.utils import logging

    before = logging.get_verbosity()
    with pytest.raises(RuntimeError, match="on purpose"), quiet_libraries():
        raise RuntimeError("on purpose")
    assert logging.get_verbosity() == before
    with quiet_libraries():
        assert logging.get_verbosity() == logging.ERROR


def test_threads_that_quieten_the_libraries_at_once_leave_them_as_they_were():
    from diffusers.utils import logging

    before = logging.get_verbosity()
    inside = threading.Barrier(2, timeout=0.2)

    def load():
        with quiet_libraries(), contextlib.suppress(threading.BrokenBarrierError):
            inside.wait()  # both meet here only if they do not take turns

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside.broken
    assert logging.get_verbosity() == before
