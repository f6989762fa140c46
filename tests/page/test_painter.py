from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lora_scene.adapters.folder import save_adapter
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.generation import generate
from lora_scene.creating.records import picture_hash
from lora_scene.creating.requests import Place, Request, Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.errors import CreationError
from lora_scene.page import pictures_step
from lora_scene.page.desk import Work
from lora_scene.page.painter import INPUTS, Painter, keep_inputs, kept_input
from lora_scene.page.pictures_step import PicturesStep
from tests import tiny
from tests.adapters import made
from tests.creating import studios


def test_what_a_picture_was_made_from_comes_back_by_its_hash(tmp_path: Path) -> None:
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.eye(4, dtype=np.float32)
    keep_inputs(tmp_path, photo, mask)
    np.testing.assert_array_equal(kept_input(tmp_path, picture_hash(photo)), photo)
    np.testing.assert_array_equal(kept_input(tmp_path, picture_hash(mask)), mask * 255)


@pytest.mark.parametrize("name", ["../secret", "", None, "f" * 64, 3])
def test_a_record_reaches_no_other_picture(tmp_path: Path, name: object) -> None:
    (tmp_path / INPUTS).mkdir()
    for path in (tmp_path / "secret.png", tmp_path / INPUTS / "3.png"):
        Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(CreationError, match="not there any more"):
        kept_input(tmp_path, name)


def test_a_region_and_a_strength_go_with_every_prompt_that_names_the_handle(monkeypatch) -> None:
    monkeypatch.setattr(pictures_step, "_handles", lambda work: ["<bear>", "<bowl>"])
    step = PicturesStep.__new__(PicturesStep)  # without the page around it
    step._desk = SimpleNamespace(need=lambda: Work(Path("mine")))
    step._others, step._weights = {}, {("mine", "<bear>"): 0.5, ("mine", "<bowl>"): 2.0}
    step._places = {("mine", "<bear>"): Place("<bear>", (0.0, 0.0, 0.5, 1.0))}
    control = step._request("a photo of <Bear>", 0, 1, "").control
    assert control.places == (Place("<bear>", (0.0, 0.0, 0.5, 1.0)),)
    assert control.strengths == (("<bear>", 0.5),)


@pytest.mark.filterwarnings(studios.QUIET)
def test_a_picture_with_a_renamed_handle_leaves_the_next_one_its_own_handles(tmp_path) -> None:
    """As of `generate --rename bear=cub`, made again here before <bear> is drawn."""
    pipeline = tiny.pipeline()
    pipeline.save_pretrained(tmp_path / "base")
    adapter = made.adapter(pipeline, "sd1")
    adapter = replace(adapter, info=replace(adapter.info, base_model="base", base_hash=""))
    folder = save_adapter(adapter, tmp_path / "adapter")
    asked, few = "a photo of <bear>", Sampling(1)
    renamed = open_studio([folder], device="cpu", rename=["bear=cub"])
    (cub,) = generate(renamed, [Request("a photo of <cub>", sampling=few)], out=tmp_path / "cli")

    def drawn(painter: Painter, out: Path) -> bytes:
        (path,) = painter.draw(
            [AdapterChoice(folder)],
            Request(asked, sampling=few),
            out=out,
            n_pictures=1,
            is_grid=False,
        )
        return np.asarray(Image.open(path)).tobytes()

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    painter = Painter()
    (again,) = painter.again([damaged, folder], cub.path, out=tmp_path / "again")
    assert np.array_equal(np.asarray(Image.open(again)), cub.pixels)
    assert drawn(painter, tmp_path / "after") == drawn(Painter(), tmp_path / "alone")
