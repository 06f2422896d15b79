"""A registry as the OCI distribution specification has it, for pulls; with tokens, on loopback."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support import webserver

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
USER, PASSWORD, TOKEN = "reader", "a password of the tests", "a-token-of-the-tests"


@dataclass
class Registry:
    """`login`: none, basic or token (which `expires_in` so many seconds)."""

    files: webserver.Files
    login: str = "none"
    expires_in: int = 300
    tokens: int = 0
    realm: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.files.url.removeprefix("http://")

    def add(self, content: bytes) -> dict[str, Any]:
        """A blob; how a manifest describes it."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.files.contents[f"/v2/team/tiny/blobs/{digest}"] = content
        return {"digest": digest, "size": len(content)}

    def push(self, layers: list[dict[str, Any]], tag: str = "v1") -> str:
        """A manifest under a tag and its digest."""
        return self.publish({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}, tag)

    def publish(self, manifest: Mapping[str, Any], tag: str) -> str:
        content = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for reference in (tag, digest):
            self.files.contents[f"/v2/team/tiny/manifests/{reference}"] = content
        return digest

    def layer(self, content: bytes, kind: str, **annotations: str) -> dict[str, Any]:
        return {"mediaType": kind, "annotations": annotations, **self.add(content)}


@contextmanager
def registry() -> Iterator[Registry]:
    class Bound(_Handler):
        pass

    with webserver.files(Bound) as files:
        state = Registry(files)
        Bound.registry = state
        yield state


class _Handler(webserver.Handler):
    registry: Registry

    def respond(self, headers: Mapping[str, str]) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            return self._token(query, headers)
        if not self._let_in(headers):
            return self.send(401, b"{}", {"WWW-Authenticate": self._challenge()})
        if path == "/v2/":
            return self.send(200, b"{}")
        super().respond(headers)

    def _let_in(self, headers: Mapping[str, str]) -> bool:
        told, state = headers.get("authorization"), self.registry
        basic = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        wanted = {"none": None, "basic": basic, "token": f"Bearer {TOKEN}{state.tokens}"}
        return told == wanted[state.login]

    def _challenge(self) -> str:
        state = self.registry
        if state.login == "basic":
            return 'Basic realm="x"'
        realm = state.realm or f"{state.files.url}/token"
        return f'Bearer realm="{realm}",service="tests",scope="repository:team/tiny:pull"'

    def _token(self, query: str, headers: Mapping[str, str]) -> None:
        basic = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        asked = "service=tests" in query and "scope=repository%3Ateam%2Ftiny%3Apull" in query
        if headers.get("authorization") != basic or not asked:
            return self.send(401, b"{}")
        self.registry.tokens += 1
        told = {
            "token": f"{TOKEN}{self.registry.tokens}",
            "expires_in": self.registry.expires_in,
        }
        self.send(200, json.dumps(told).encode())
