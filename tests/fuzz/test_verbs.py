"""A short part of `python -m benchmarks.fuzz`: the verbs."""

from __future__ import annotations

import pytest

from tests.fuzz import profile
from tests.fuzz.verbs import calls, check, prepare, verbs

VERBS = verbs()
N_CASES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the inputs."""
    home = tmp_path_factory.mktemp("verbs")
    prepare(home)
    return home


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VERBS)
def test_every_verb_ends_with_a_sentence(name, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    profile.run(calls(VERBS[name]), lambda words: check(words, folder), N_CASES)
