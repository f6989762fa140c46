"""No network, few threads; and what takes long to load, where tests are run and not handed out."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LORA_SCENE_CACHE"] = tempfile.mkdtemp(prefix="lora-scene-cache-")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as the command line sets it


def pytest_configure(config: pytest.Config) -> None:
    """Load the libraries and the fixtures."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", 0):
        config.pluginmanager.import_plugin("tests.prepared")
