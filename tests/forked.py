"""Processes of their own for tests that kill them, without loading torch again for each.

A copy of this process waits from before the first test on (autograd, once used, works in no
copy), and makes a copy of itself for each process that a test asks for.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path


class Processes:
    """Starts one process at a time, by the copy that waits."""

    def __init__(self) -> None:
        self._line, line = Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads hold nothing here
            if os.fork() == 0:
                self._line.close()
                _serve(line)
        line.close()

    def start(self, act: Callable[[], object], told: Path) -> int:
        """Begin `act`, which is pickled, with its streams in the file `told`; return its id."""
        self._line.send((pickle.dumps(act), str(told)))
        return self._line.recv()

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._line.poll()

    def wait(self) -> int:
        """Return the exit code of the process, negative for a signal that killed it."""
        return self._line.recv()


def _serve(line: Connection) -> None:
    """Start what is asked for until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests: they close the line
    try:
        while True:
            act, told = line.recv()
            process = os.fork()
            if process == 0:
                _run(act, told)
            line.send(process)
            line.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    finally:
        os._exit(0)


def _run(act: bytes, told: str) -> None:
    """Act as a fresh process does: its own streams, Python's own signals and warnings."""
    code = 1
    try:
        for name in (signal.SIGTERM, signal.SIGHUP):  # a parent in the background ignores some
            signal.signal(name, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        with open(told, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.stdout = sys.stderr = stream
            try:
                pickle.loads(act)()
                code = 0
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 1
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)
