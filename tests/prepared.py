"""What every test may rely on: little collected and plotted, tiny bases, a small scene."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch

from lora_scene.learning import run_charts
from lora_scene.scenes.scene import Concept, Photo, Scene
from tests import tiny
from tests.forked import Processes
from tests.mapped_files import refuse_mapped

gc.set_threshold(20_000, 20, 20)  # the libraries' own objects are not worth a tenth of the suite
refuse_mapped()
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
os.fsync = os.fstat  # what tests write need not outlive a power cut
torch.backends.mps.is_available = lambda: False  # on a Mac too the suite's numbers are the CPU's
PLOT = run_charts._draw
run_charts._draw = lambda *_, **__: "<svg></svg>"  # a page of them takes as long as a tiny run
PROCESSES = Processes() if os.name == "posix" else None


def pytest_collection_finish() -> None:
    """Let no collection look through what the libraries and the tests' modules made."""
    gc.freeze()


@pytest.fixture
def processes() -> Processes:
    """Return what starts a process with everything loaded."""
    assert PROCESSES
    return PROCESSES


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folder of a saved tiny pipeline of each family; tests only read them."""
    root = tmp_path_factory.mktemp("bases").as_posix()  # TOML has no backslashes
    return {family: tiny.folder(family, root) for family in tiny.FAMILIES}


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Return a photo of 64 px with a bear, a bowl that touches it, and the background."""
    side = tiny.RESOLUTION
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[8:40, 4:30] //= 3
    pixels[30:60, 30:62, 0] = 250
    masks = np.zeros((3, side, side), dtype=np.float32)
    masks[0, 8:40, 4:30] = 1.0
    masks[1, 30:60, 30:62] = 1.0
    masks[2] = 1.0 - masks[:2].max(axis=0)
    concepts = (
        Concept("<bear>", "bear"),
        Concept("<bowl>", "red bowl"),
        Concept("<ground>", "grass", is_background=True),
    )
    return Scene(concepts, (Photo(pixels, masks, "img.png"),), "tiny scene")
