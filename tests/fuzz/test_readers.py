"""A short part of `python -m benchmarks.fuzz`: the readers."""

from __future__ import annotations

import pytest

from tests.fuzz import profile
from tests.fuzz.readers import check, readers

READERS = readers()
N_CASES = 40


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_or_refuses_what_it_is_given(name, tmp_path):
    reader = READERS[name]
    reader.prepare(tmp_path)
    profile.run(reader.cases, lambda case: check(reader, case, tmp_path), N_CASES)
