"""Libraries are silent in there; this package is not, nor is anything after it."""

from __future__ import annotations

import threading
import warnings

import pytest

from lora_scene.backbones.loading import quiet_libraries
from lora_scene.errors import LoraSceneWarning
from lora_scene.silence import quiet_warnings


def told(*categories):
    """Return which of some warnings are shown now."""
    with warnings.catch_warnings(record=True) as seen:
        for category in categories:
            warnings.warn("something", category, stacklevel=1)
    return [each.category for each in seen]


def test_own_warnings_are_told_within():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with quiet_warnings(), quiet_libraries():
            assert told(LoraSceneWarning, UserWarning, FutureWarning) == [LoraSceneWarning]
        assert told(LoraSceneWarning, UserWarning) == [LoraSceneWarning, UserWarning]


def test_what_is_done_with_own_warnings_stays_as_it_was():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoraSceneWarning)
        with quiet_warnings(), pytest.raises(LoraSceneWarning):
            warnings.warn("something", LoraSceneWarning, stacklevel=1)
        warnings.simplefilter("ignore", UserWarning)
        with quiet_warnings():
            assert told(LoraSceneWarning, UserWarning) == []


def test_a_thread_that_leaves_last_puts_no_silence_back():
    """One loads a base; a photo is read meanwhile, and that goes on when the base is there."""
    loads, reads, loaded = threading.Event(), threading.Event(), threading.Event()

    def load():
        with quiet_libraries():
            loads.set()
            assert reads.wait(10)
        loaded.set()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        thread = threading.Thread(target=load)
        thread.start()
        assert loads.wait(10)
        with quiet_warnings():
            reads.set()
            assert loaded.wait(10)
            assert told(LoraSceneWarning, UserWarning) == [LoraSceneWarning]
        thread.join()
        assert told(LoraSceneWarning, UserWarning) == [LoraSceneWarning, UserWarning]
