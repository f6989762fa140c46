from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from lora_scene.backbones import hub_folder
from lora_scene.backbones.hub_folder import download_base, download_configurations
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import BackboneError
from lora_scene.learning.preparation import load_base
from lora_scene.recipe import load_recipe
from tests import tiny

SHA = "a" * 40


class Hub:
    """A hub with one repository, whose files lie in a folder; it keeps what was asked for."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def model_info(self, model, timeout):
        assert 0 < timeout <= 15
        if self.failure is not None:
            raise self.failure
        names = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*")]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in names], sha=SHA)

    def snapshot_download(
        self, model, *, revision=None, allow_patterns=None, local_files_only=False
    ):
        if local_files_only:
            if not self.cache.is_dir():
                raise LocalEntryNotFoundError("no copy of s3cret")
            return str(self.cache)
        assert revision == SHA
        for pattern in allow_patterns:
            for path in self.folder.glob(pattern):
                name = path.relative_to(self.folder)
                self.asked.append(name.as_posix())
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.cache / name)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(tmp_path / "there", tmp_path / "here")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


def refused(kind, status):
    response = SimpleNamespace(status_code=status, headers={}, request=SimpleNamespace(url="u"))
    return kind("Bearer s3cret", response=response)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_only_what_is_needed_is_downloaded(variant, hub):
    pipe = tiny.pipeline("sd1")
    pipe.save_pretrained(hub.folder, variant=variant)
    pipe.save_pretrained(hub.folder, safe_serialization=False)
    (hub.folder / "v1-5.safetensors").write_bytes(b"the same again")
    (hub.folder / "safety_checker").mkdir()
    (hub.folder / "safety_checker" / "model.safetensors").write_bytes(b"unused")
    loaded = load_pipeline("someone/base")
    assert len(loaded.tokenizer) == len(pipe.tokenizer)
    ending = ".fp16.safetensors" if variant else ".safetensors"
    weights = sorted(name for name in hub.asked if not name.endswith(("json", "txt")))
    assert weights == [
        f"text_encoder/model{ending}",
        f"unet/diffusion_pytorch_model{ending}",
        f"vae/diffusion_pytorch_model{ending}",
    ]


def test_what_is_no_base_is_refused_before_its_weights_are_downloaded(hub):
    tiny.pipeline("sd1").save_pretrained(hub.folder)
    path = hub.folder / "model_index.json"
    path.write_text(path.read_text("utf-8").replace("StableDiffusionP", "FluxP"), "utf-8")
    with pytest.raises(BackboneError, match="someone/base: not a Stable Diffusion"):
        load_pipeline("someone/base")
    assert not any(name.endswith(".safetensors") for name in hub.asked)


def test_a_size_is_refused_before_weights_are_downloaded(hub, scene):
    tiny.pipeline("sd1").save_pretrained(hub.folder)
    settings = load_recipe("sd15", ["base.model=someone/base", "base.resolution=100"])
    with pytest.raises(BackboneError, match="a multiple of 32 pixels, such as 96"):
        load_base(scene, settings, "cpu", lambda said: None)
    assert "unet/config.json" in hub.asked
    assert not any(name.endswith(".safetensors") for name in hub.asked)


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (refused(GatedRepoError, 403), "licence must be accepted"),
        (refused(RepositoryNotFoundError, 404), "no such base on the hub"),
        (ConnectionError("to https://s3cret@host"), "the hub cannot be reached"),
        (TimeoutError(), "the hub cannot be reached"),
    ],
)
def test_hub_that_refuses_is_one_sentence_without_secrets(failure, sentence, hub):
    hub.failure = failure
    with pytest.raises(BackboneError, match=sentence) as caught:
        download_base("someone/base")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_base_that_was_downloaded_once_is_used_when_the_hub_is_away(hub):
    tiny.pipeline("sd1").save_pretrained(hub.cache)
    hub.failure = ConnectionError()
    assert load_pipeline("someone/base").unet is not None
    assert download_configurations("someone/base") == hub.cache


def test_half_a_copy_is_said_to_lack_weights(hub):
    tiny.pipeline("sd1").save_pretrained(hub.cache)
    shutil.rmtree(hub.cache / "unet")
    (hub.cache / "unet").mkdir()
    shutil.copy(
        Path(tiny.folder("sd1", str(hub.cache.parent))) / "unet" / "config.json",
        hub.cache / "unet",
    )
    hub.failure = ConnectionError()
    with pytest.raises(BackboneError, match=r"safetensors in unet[\s\S]*no weights"):
        load_pipeline("someone/base")


def test_download_that_breaks_off_says_so(hub, monkeypatch):
    tiny.pipeline("sd1").save_pretrained(hub.folder)

    def break_off(*_, **__):
        raise OSError(28, "No space left on device", "/home/jane/s3cret")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", break_off)
    with pytest.raises(BackboneError, match="broke off") as caught:
        download_base("someone/base")
    assert "No space left on device" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_dead_hub_is_told_within_seconds():
    script = (
        "from lora_scene.backbones.hub_folder import download_base\n"
        "from lora_scene.errors import BackboneError\n"
        "try: download_base('nobody/no-such')\n"
        "except BackboneError as error: print(error)\n"
    )
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_s3cret"}
    env.pop("HF_HUB_OFFLINE")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True
    )
    assert "the hub cannot be reached" in done.stdout
    assert "Retrying" not in done.stdout + done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert time.monotonic() - begun < 30, done.stderr
    assert hub_folder.TIMEOUT <= 10
