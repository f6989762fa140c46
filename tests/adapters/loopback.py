"""A model hub on loopback, of the few endpoints that pushing and pulling need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Its repositories, the requests it saw, and the failures it is to show.

    Attributes:
        repos: Repository to path to content; `name@tag` is an earlier state of `name`.
        fail: (method, part of the path) to the status it answers with.
        lose: A path that the hub forgets after a commit.
        hang: Parts of paths that are never answered.
        drip: Parts of paths whose content comes a byte at a time, slower than anyone waits.
        flood: Parts of paths whose content never ends.
        cut: Parts of paths whose content ends early.
        flip: Parts of paths whose content has a wrong bit.
        drop_reply: Parts of paths that are done, but not answered.
        retry_after: Seconds that a status 429 asks for.
        etag: What stands in place of every ETag.
    """

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    fail: dict[tuple[str, str], int] = field(default_factory=dict)
    lose: str = ""
    hang: set[str] = field(default_factory=set)
    drip: set[str] = field(default_factory=set)
    flood: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    flip: set[str] = field(default_factory=set)
    drop_reply: set[str] = field(default_factory=set)
    retry_after: int | None = None
    etag: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def commit(self, name: str) -> str:
        """Return the commit that a repository is at: another one with every change."""
        pairs = sorted(self.repos[name].items())
        return hashlib.sha1(repr(pairs).encode()).hexdigest()

    def at(self, name: str, revision: str) -> str:
        """Return the repository, or an earlier state of it, that a tag or commit names, or ""."""
        states = [key for key in self.repos if key.partition("@")[0] == name]
        named = [key for key in states if revision in ("", self.commit(key), key.partition("@")[2])]
        return named[0] if named else ""

    def heal(self) -> None:
        """Forget all failures."""
        self.fail.clear()
        for broken in (self.hang, self.drip, self.flood, self.cut, self.flip, self.drop_reply):
            broken.clear()


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = _Server(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        pass  # whoever asked has gone


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            pass

        def answer(self, status: int, body: object = None, **headers: str) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        def failed(self, path: str) -> bool:
            for (method, part), status in hub.fail.items():
                if method == self.command and part in path:
                    wait = {} if hub.retry_after is None else {"Retry_After": str(hub.retry_after)}
                    told = f"failure {status} for {self.headers.get('Authorization')}"
                    self.answer(status, {"error": told}, **wait)
                    return True
            if any(part in path for part in hub.hang):
                hub.over.wait(30)
                self.close_connection = True
                return True
            return False

        def send(self, path: str, content: bytes, **headers: str) -> None:
            """Answer with a file, as whole as it is to be."""
            n = len(content)
            if any(part in path for part in hub.flip):
                content = content[:-1] + bytes([content[-1] ^ 1])
            if any(part in path for part in hub.cut):
                content, self.close_connection = content[: n // 2], True
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            is_endless = any(part in path for part in hub.flood)
            if not is_endless:
                self.send_header("Content-Length", str(n))
            self.end_headers()
            if self.command == "HEAD":
                return
            if any(part in path for part in hub.drip):
                for byte in content[:20]:
                    self.wfile.write(bytes([byte]))
                    hub.over.wait(0.1)
            self.wfile.write(content)
            while is_endless and not hub.over.is_set():
                self.wfile.write(bytes(1 << 16))

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(f"POST {path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            if self.failed(path):
                return
            if path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                wanted = json.loads(raw)
                name = (
                    f"{wanted['organization']}/{wanted['name']}"
                    if wanted.get("organization")
                    else wanted["name"]
                )
                if name in hub.repos:
                    self.answer(409, {"error": "exists", "url": f"{hub.url}/{name}"})
                    return
                hub.repos[name] = {}
                if wanted.get("private") or wanted.get("visibility") == "private":
                    hub.private.add(name)
                self.answer(200, {"url": f"{hub.url}/{name}", "name": name})
            elif "/preupload/" in path:
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(raw)["files"]
                ]
                self.answer(200, {"files": files})
            elif "/commit/" in path:
                self.commit(path.removeprefix("/api/models/").partition("/commit/")[0], raw)
            else:
                self.answer(404, {"error": "no such endpoint"})

        def commit(self, name: str, raw: bytes) -> None:
            for line in raw.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file" and entry["value"]["path"] != hub.lose:
                    content = base64.b64decode(entry["value"]["content"])
                    hub.repos[name][entry["value"]["path"]] = content
            if any(part in self.path for part in hub.drop_reply):
                self.close_connection = True
                self.wfile.flush()
                return
            oid = hub.commit(name)
            url = f"{hub.url}/{name}/commit/{oid}"
            self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if self.failed(path):
                return
            if path.startswith("/api/models/"):
                name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                if name not in hub.repos:
                    self.answer(404, {"error": "gone"}, X_Error_Code="RepoNotFound")
                    return
                name = hub.at(name, revision)
                if not name:
                    self.answer(404, {"error": "gone"}, X_Error_Code="RevisionNotFound")
                    return
                siblings = [
                    {"rfilename": file, "size": len(content), "blobId": git_hash(content)}
                    for file, content in hub.repos[name].items()
                ]
                self.answer(200, {"id": name, "sha": hub.commit(name), "siblings": siblings})
                return
            name, _, rest = path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            name = hub.at(name, revision) or name
            content = hub.repos.get(name, {}).get(file)
            if content is None:
                self.answer(404, {"error": "gone"}, X_Error_Code="EntryNotFound")
                return
            etag = f'"{hub.etag or git_hash(content)}"'
            commit = hub.etag or hub.commit(name)
            self.send(path, content, ETag=etag, X_Linked_ETag=etag, X_Repo_Commit=commit)

        def do_HEAD(self) -> None:
            self.do_GET()

    return Handler


def git_hash(content: bytes) -> str:
    """Return what git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
