"""The long profile: `python -m tests.fuzz [CASES] [NAME...]`, 10,000 cases a reader by default.

Verbs get a hundredth of it. Prints a line each: cases, seconds, and what failed.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz import profile
from tests.fuzz import readers as of_readers
from tests.fuzz import verbs as of_verbs


def main() -> None:
    """Run what is named, or all; exit 1 if anything failed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    n_cases = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    wanted = sys.argv[2:]
    failed = 0
    for name, reader in of_readers.readers().items():
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory() as place:
                reader.prepare(Path(place))
                check = functools.partial(of_readers.check, reader, folder=Path(place))
                failed += _tell(name, reader.cases, check, n_cases)
    with tempfile.TemporaryDirectory() as place:
        of_verbs.prepare(Path(place))
        check = functools.partial(of_verbs.check, folder=Path(place))
        for name, verb in of_verbs.verbs().items():
            if not wanted or name in wanted:
                failed += _tell(name, of_verbs.calls(verb), check, max(n_cases // 100, 1))
    sys.exit(failed > 0)


def _tell(name, cases, check, n_cases) -> bool:
    began, problem = time.monotonic(), None
    try:
        profile.run(cases, check, n_cases)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        problem = error
    print(f"{name:20} {n_cases:6} cases {time.monotonic() - began:7.1f} s", end="  ")
    print("ok" if problem is None else f"FAILED: {problem!r:.3000}", flush=True)
    return problem is not None


main()
