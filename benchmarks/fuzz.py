"""Damage what every reader reads, and call every verb with hostile options: the long profile.

    python -m benchmarks.fuzz [--cases 10000] [--calls 1000] [NAME...]

The suite runs a short part of the same (`tests/fuzz/`). Prints a line of JSON each: how many cases,
seconds, and how many failed, with the first failure; exits 1 if any did.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import profile
from tests.fuzz import readers as of_readers
from tests.fuzz import verbs as of_verbs


def main() -> None:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of each reader")
    parser.add_argument("--calls", type=int, default=1_000, help="of each verb")
    parser.add_argument("names", nargs="*", help="readers and verbs  [default: all]")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    failed = False
    for name, reader in of_readers.readers().items():
        if not given.names or name in given.names:
            with tempfile.TemporaryDirectory() as place:
                reader.prepare(Path(place))
                check = functools.partial(of_readers.check, reader, folder=Path(place))
                failed |= _tell(name, reader.cases, check, given.cases)
    with tempfile.TemporaryDirectory() as place:
        of_verbs.prepare(Path(place))
        check = functools.partial(of_verbs.check, folder=Path(place))
        for name, verb in of_verbs.verbs().items():
            if not given.names or name in given.names:
                failed |= _tell(name, of_verbs.calls(verb), check, given.calls)
    sys.exit(failed)


def _tell(
    name: str, cases: st.SearchStrategy[Any], check: Callable[[Any], None], n_cases: int
) -> bool:
    """Run the cases, print what came of them; tell whether any failed."""
    began, n_run, failures = time.monotonic(), 0, []

    def counted(case: Any) -> None:
        nonlocal n_run
        n_run += 1
        try:
            check(case)
        except Exception as error:
            failures.append(f"{case!r:.1500}: {error!r:.1500}")

    profile.run(cases, counted, n_cases)
    line = {"name": name, "cases": n_run, "failed": len(failures),
            "seconds": round(time.monotonic() - began, 1), "first": failures[:3]}  # fmt: skip
    print(json.dumps(line), flush=True)
    return bool(failures)


if __name__ == "__main__":
    main()
