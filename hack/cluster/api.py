"""The few requests to the API server that setting up a cluster takes."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .pki import Pair

_TIMEOUT = 10.0


class Refused(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """JSON over HTTPS with a client certificate; one connection a request."""

    def __init__(self, url: str, authority: Path, client: Pair | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context(cafile=str(authority))
        if client:
            self._tls.load_cert_chain(client.cert, client.key)

    def ok(self, path: str) -> bool:
        """Whether a GET of this path answers 200 just now."""
        try:
            self.get_text(path)
        except (OSError, http.client.HTTPException, Refused):
            return False
        return True

    def get_text(self, path: str) -> str:
        """The body of a GET."""
        return self._send("GET", path)

    def get(self, path: str) -> Any:
        """The object at this path."""
        return json.loads(self._send("GET", path))

    def put(self, path: str, body: Any) -> Any:
        """Replace the object at this path."""
        return json.loads(self._send("PUT", path, body))

    def update(self, path: str, fields: dict[str, Any], subresource: str = "") -> Any:
        """Replace fields of the object at this path; again if another wrote between the two."""
        while True:
            try:
                return self.put(path + subresource, {**self.get(path), **fields})
            except Refused as refused:
                if refused.status != http.HTTPStatus.CONFLICT:
                    raise

    def delete(self, path: str) -> Any:
        """Delete the object at this path."""
        return json.loads(self._send("DELETE", path))

    def create(self, path: str, body: Any) -> Any:
        """Create an object in the collection at this path."""
        return json.loads(self._send("POST", path, body))

    def ensure(self, path: str, body: Any) -> None:
        """Create an object unless it is there already."""
        try:
            self.create(path, body)
        except Refused as refused:
            if refused.status != http.HTTPStatus.CONFLICT:
                raise

    def watch(self, path: str, resource_version: str) -> Iterator[dict[str, Any]]:
        """Events of a collection until the server ends the stream."""
        connection = self._connect(timeout=None)
        try:
            connection.request("GET", f"{path}?watch=1&resourceVersion={resource_version}")
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise Refused(response.status, response.read().decode(errors="replace"))
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, context=self._tls, timeout=timeout
        )

    def _send(self, method: str, path: str, body: Any = None) -> str:
        connection = self._connect(_TIMEOUT)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(response.status, text)
        return text
