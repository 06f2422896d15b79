"""A stand-in for a Hugging Face hub: enough of its HTTP for `snapshot_download`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.threaded import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository with the branch `main`. `status`: answered to everything when set."""

    repository: str
    files: Path
    token: str | None = None
    status: int | None = None
    url: str = ""
    downloads: list[str] = field(default_factory=list)


@contextmanager
def hub(
    repository: str, files: Path, token: str | None = None, host: str = "127.0.0.1"
) -> Iterator[Hub]:
    state = Hub(repository, files, token)

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer((host, 0), Handler)
    with serving(server) as state.url:
        yield state


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        hub = self.hub
        if hub.status is not None:
            return self._send(hub.status, b"")
        if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        api = f"/api/models/{hub.repository}/revision/"
        if path.startswith(api):
            return self._listing(path.removeprefix(api))
        tree = f"/api/models/{hub.repository}/tree/{COMMIT}"
        if path == tree:
            return self._tree()
        for prefix in (f"/{hub.repository}/resolve/{COMMIT}/", f"/{hub.repository}/resolve/main/"):
            if path.startswith(prefix):
                return self._file(path.removeprefix(prefix))
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _listing(self, revision: str) -> None:
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        names = [{"rfilename": name} for name in self._names()]
        found = {"id": self.hub.repository, "sha": COMMIT, "siblings": names, "private": False}
        self._send(200, json.dumps(found).encode(), {"content-type": "application/json"})

    def _names(self) -> list[str]:
        files = self.hub.files
        found = (path for path in sorted(files.rglob("*")) if path.is_file())
        return [path.relative_to(files).as_posix() for path in found]

    def _tree(self) -> None:
        files = self.hub.files
        found = [
            {"type": "file", "path": name, "size": (files / name).stat().st_size, "oid": "0" * 40}
            for name in self._names()
        ]
        self._send(200, json.dumps(found).encode(), {"content-type": "application/json"})

    def _file(self, name: str) -> None:
        path = self.hub.files / name
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        if self.command == "GET":
            self.hub.downloads.append(name)
        etag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read states, not logs."""
