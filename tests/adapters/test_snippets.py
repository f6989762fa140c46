"""The snippets of the README, the docs and the cards, run as they stand on tiny bases."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from diffusers import DDIMScheduler
from PIL import Image

from lora_scene.adapters.folder import save_adapter
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.cli.main import root
from tests import tiny
from tests.adapters import made

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", "docs/using-adapters.md", "docs/sharing.md")
OWN_VERBS = ("export", "verify", "inspect", "merge", "card")
ON_CPU = {'"cuda"': '"cpu"', "torch.float16": "torch.float32"}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def page(name):
    return (REPOSITORY / name).read_text("utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with `base`, `adapter` and `other`, as the pages assume."""
    path = tmp_path_factory.mktemp("place")
    pipe = tiny.pipeline()
    pipe.save_pretrained(path / "base")
    save_adapter(made.adapter(pipe, "sd1"), path / "adapter")
    save_adapter(made.adapter(pipe, "sd1", handles=("<mug>",), seed=4), path / "other")
    Image.new("RGB", (64, 64), "teal").save(path / "photo.jpg")
    return path


@pytest.fixture
def two_steps(monkeypatch):
    """Draw in two steps, whatever a snippet's default."""
    set_timesteps = DDIMScheduler.set_timesteps
    monkeypatch.setattr(
        DDIMScheduler, "set_timesteps", lambda self, _n, device=None: set_timesteps(self, 2, device)
    )


def run_python(code, **names):
    for there, here in ON_CPU.items():
        code = code.replace(there, here)
    code = code.replace("strength=0.7", "strength=1.0")  # of two steps, one would be left
    exec(compile(code, "snippet", "exec"), dict(names))


@pytest.mark.filterwarnings("ignore:.torch_dtype. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("name", "index"), [(n, i) for n in PAGES for i in range(len(blocks(page(n), "python")))]
)
def test_a_page_s_python_runs(name, index, place, monkeypatch, two_steps):
    monkeypatch.chdir(place)
    for picture in place.glob("*.png"):
        picture.unlink()
    run_python(blocks(page(name), "python")[index], BASE=str(place / "base"))
    assert list(place.glob("*.png"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_s_commands_run(name, place, monkeypatch):
    monkeypatch.chdir(place)
    inline = re.findall(r"`(lora-scene [^`\n]+)`", page(name))
    lines = [line for block in blocks(page(name), "") for line in block.splitlines()]
    for line in [*lines, *inline]:
        if not line.startswith("lora-scene "):
            continue
        words = shlex.split(line, comments=True)
        is_whole = len(words) > 2 and words[1] in OWN_VERBS
        if not is_whole or not (place / words[2]).exists():
            continue
        arguments = [str(place / "base") if word == "BASE" else word for word in words[1:]]
        result = CliRunner().invoke(root, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("unet", [True, False])
def test_a_card_s_python_runs(family, unet, tmp_path, monkeypatch, two_steps):
    pipe = tiny.pipeline(family)
    pipe.save_pretrained(tmp_path / "base")
    adapter = made.adapter(pipe, family, n_vectors=2, unet=unet)
    info = dataclasses.replace(adapter.info, base_model=str(tmp_path / "base"))
    adapter = dataclasses.replace(adapter, info=info)
    save_adapter(adapter, tmp_path / "adapter")
    card = write_card(adapter, CardFacts("plush", folder="adapter"))
    monkeypatch.chdir(tmp_path)
    snippets = blocks(card, "python")
    assert len(snippets) == 2
    for code in snippets:
        run_python(code)
        (tmp_path / "picture.png").unlink()


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("mini", "pipeline = load_pipeline('mini')"),
        ("someone/base", "pipeline = DiffusionPipeline.from_pretrained('someone/base')"),
        ("a.safetensors", "pipeline = StableDiffusionPipeline.from_single_file('a.safetensors')"),
    ],
)
def test_a_card_opens_the_base_as_its_kind_is_opened(base, expected):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    info = dataclasses.replace(adapter.info, base_model=base)
    card = write_card(dataclasses.replace(adapter, info=info), CardFacts("plush"))
    assert expected in card
