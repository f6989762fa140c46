"""How many cases are drawn, and how: seeded, without a clock or a memory of earlier runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


def run(cases: st.SearchStrategy[Any], check: Callable[[Any], None], n_cases: int) -> None:
    """Check so many cases; what fails is not made smaller, which would take long."""

    @settings(max_examples=n_cases, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # fmt: skip
    @given(cases)
    def checked(case: Any) -> None:
        check(case)

    checked()
