"""Calls to a hub that end in time, and whose errors are one sentence without any secret.

Nothing that a hub says becomes a path here: files go where the caller wants them.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import logging
import re
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from lora_scene.adapters.untrusted import MAX_FILE_BYTES
from lora_scene.errors import HubError

PATIENCE = 40.0  # seconds without a sign of life, after which a call is given up
SLOWEST_UPLOAD = 256 * 1024  # bytes a second; what is sent gives no sign until it is there
SIGN_OF_LIFE = 4096  # bytes; fewer within PATIENCE count as silence
REASONS = {
    401: ("the hub does not know you", "log in with `hf auth login`, or set HF_TOKEN"),
    403: ("you may not do that there", "use a token with write access, and a name of your own"),
    404: ("the hub has no such repository, or hides it from you", "check the name and the login"),
    409: ("someone else changed the repository meanwhile", "run the same command again"),
    413: ("a file is too large for the hub", None),
    429: ("the hub asks to slow down", "wait a while and run the same command again"),
}
SECRETS = re.compile(
    r"hf_[\w.-]{20,}|api_[\w.-]{8,}|eyJ[\w-]+(\.[\w-]+)+"
    r"|(?<=://)[^/@\s]+(?=@)"
    r"|(?i:(?<=bearer )|(?<=basic ))[^\s'\",]+"
    r"|(?i:(?<=token=)|(?<=signature=)|(?<=credential=))[^&\s'\"]+"
)
T = TypeVar("T")


class Sink:
    """A file to be filled from a hub: no more than was announced, and none after giving up.

    Args:
        file: Open for binary writing.
        most: Bytes.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.n_written, self.is_given_up = 0, False
        self._file, self._most = file, most

    def write(self, data: bytes) -> int:
        """Write, unless it is more than was announced."""
        self.n_written += len(data)
        if self.is_given_up or self._file.tell() + len(data) > self._most:
            raise HubError("the hub sends more than it announced", expected=f"{self._most} bytes")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def in_time(call: Callable[[], T], *, n_sent: int = 0, sink: Sink | None = None) -> T:
    """Return what a call returns, or give it up when there is no sign of life for `PATIENCE`.

    A hub that hangs, drips, or asks to wait for an hour must not hold whoever calls; the library's
    own timeouts leave some calls out, and start anew with each of its retries.

    Args:
        call: Runs in a thread of its own, which is left behind when it is given up.
        n_sent: Bytes that it sends, which may take their time.
        sink: Where it writes, which is its sign of life.

    Raises:
        TimeoutError: It was given up.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    begun, seen = time.monotonic(), 0
    while thread.is_alive():
        thread.join(0.05)
        if sink is not None and sink.n_written >= seen + SIGN_OF_LIFE:
            begun, seen = time.monotonic(), sink.n_written
        if thread.is_alive() and time.monotonic() - begun > PATIENCE + n_sent / SLOWEST_UPLOAD:
            if sink is not None:
                sink.is_given_up = True
            _stop(thread)
            raise TimeoutError("it did not answer in time, or asked to wait for longer")
    if errors:
        raise errors[0]
    return results[0]


def download(api: Any, repo_id: str, file: Any, *, commit: str, path: Path) -> None:
    """Fetch a file to where it belongs, once it is known to be whole.

    Args:
        api: Of the hub.
        repo_id: Such as `user/name`.
        file: What the hub says of it: its name, size and hash.
        commit: Which it is taken from.
        path: Where it goes.

    Raises:
        HubError: What came is not what was announced.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(repo_id, file.rfilename, revision=commit, endpoint=api.endpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as aside:
        part = Path(aside) / "part"
        with part.open("wb") as opened:
            sink: Any = Sink(opened, MAX_FILE_BYTES if file.size is None else file.size)
            headers = build_hf_headers()
            in_time(lambda: http_get(url, sink, headers=headers), sink=sink)
        if not is_whole(part, file):
            raise HubError(
                "the hub sent something else than it announced",
                where=f"{repo_id}/{file.rfilename}",
                expected=f"{file.size} bytes",
                got=f"{part.stat().st_size} bytes",
                hint="run the same command again",
            )
        part.replace(path)


def is_whole(path: Path, file: Any) -> bool:
    """Tell whether a file here is what the hub says of it: its size, and its hash where known."""
    if not path.is_file() or file.size not in (None, path.stat().st_size):
        return False
    content = path.read_bytes()
    lfs = getattr(file, "lfs", None)
    if lfs is not None:
        return hashlib.sha256(content).hexdigest() == str(lfs.sha256)
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return getattr(file, "blob_id", None) in (None, git)


@contextmanager
def plain_errors(repo_id: str, state: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn the library's errors into one sentence that says what state the hub is in.

    Raises:
        HubError: In place of whatever else was raised; its note has the traceback, redacted.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled, RevisionNotFoundError

    try:
        with _quiet_secrets():
            yield
    except HubError:
        raise
    except Exception as error:  # the library's own, and those of whatever carries its requests
        code = status_of(error)
        what, hint = REASONS.get(code or 0, ("the hub failed, or cannot be reached", hint))
        if code is not None and code >= 500:
            what, hint = "the hub failed", "run the same command again"
        if isinstance(error, OfflineModeIsEnabled):
            what, hint = "HF_HUB_OFFLINE is set, so the hub is not asked", None
        if isinstance(error, RevisionNotFoundError):
            what, hint = "the repository has no such branch, tag or commit", None
        lines = str(error).strip().splitlines() or [""]
        plain = HubError(
            f"{what}; {state}",
            where=repo_id,
            got=redacted(f"{code or type(error).__name__}: {lines[0][:300]}"),
            hint=hint,
        )
        # the cause itself would be printed with its secrets by --debug
        plain.add_note(redacted("".join(traceback.format_exception(error))))
    else:
        return
    raise plain from None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the library came with, if any."""
    return getattr(getattr(error, "response", None), "status_code", None)


def redacted(text: str) -> str:
    """Return a text without tokens: the user's own in any usual coding, and what looks like one."""
    from huggingface_hub import get_token

    token = get_token()
    if token:
        raw = token.encode()
        coded = [base64.b64encode(raw[i:]).decode()[2:-4] for i in range(3)]
        for form in (token, quote(token, safe=""), raw.hex(), repr(token)[1:-1], *coded):
            if len(form) > 3:
                text = text.replace(form, "***")
    return SECRETS.sub("***", text)


def _stop(thread: threading.Thread) -> None:
    """End a thread when it comes back to Python: else the library would go on trying, unwatched."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )


@contextmanager
def _quiet_secrets() -> Iterator[None]:
    """Redact what the library logs meanwhile."""

    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True

    handlers = [*logging.getLogger("huggingface_hub").handlers, *logging.getLogger().handlers]
    for handler in handlers:
        handler.addFilter(clean)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(clean)
