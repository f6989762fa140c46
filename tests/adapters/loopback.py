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

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """Its repositories, the requests it saw, and the failures it is to show.

    Attributes:
        repos: Repository to path to content.
        fail: (method, part of the path) to the status it answers with.
        lose: A path that the hub forgets after a commit.
    """

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    fail: dict[tuple[str, str], int] = field(default_factory=dict)
    lose: str = ""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
                    self.answer(status, {"error": f"failure {status}"})
                    return True
            return False

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
            url = f"{hub.url}/{name}/commit/{COMMIT}"
            self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if self.failed(path):
                return
            if path.startswith("/api/models/"):
                name = path.removeprefix("/api/models/").partition("/revision/")[0]
                if name not in hub.repos:
                    self.answer(404, {"error": "gone"}, X_Error_Code="RepoNotFound")
                    return
                siblings = [
                    {"rfilename": file, "size": len(content)}
                    for file, content in hub.repos[name].items()
                ]
                self.answer(200, {"id": name, "sha": COMMIT, "siblings": siblings})
                return
            name, _, rest = path.lstrip("/").partition("/resolve/")
            content = hub.repos.get(name, {}).get(rest.partition("/")[2])
            if content is None:
                self.answer(404, {"error": "gone"}, X_Error_Code="EntryNotFound")
                return
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)

        def do_HEAD(self) -> None:
            self.do_GET()

    return Handler
