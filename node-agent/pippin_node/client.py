"""The door to the API server, and the only importer of the Kubernetes client.

Speaks plain JSON objects: an agent passes manifests on and has no use for the generated models.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client import ApiClient, Configuration

from .records import Json

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

#: One request, seconds.
TIMEOUT = 20
#: A watch is renewed after this many seconds, so that a dead connection is found out.
WATCH_SECONDS = 290
#: One object in a watch; the API server's own limit is 1.5 MiB.
LINE_LIMIT = 4 * 1024 * 1024


class ApiError(Exception):
    """The API server answered no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or reason)
        self.status = status
        self.reason = reason


class Unreachable(Exception):
    """No answer from the API server; try again later."""


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: Any = None
    content_type: str = "application/json"


class Client:
    """One API server, as one user."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)
        self._api.user_agent = "pippin-node"
        self.configuration = configuration

    @classmethod
    async def from_kubeconfig(cls, path: Path) -> Client:
        return cls(await _configuration(path))

    async def reload(self, path: Path) -> None:
        """Go on with the credentials that are in the files now."""
        before = self._api
        self.configuration = await _configuration(path)
        self._api = ApiClient(self.configuration)
        self._api.user_agent = "pippin-node"
        close: Any = before.close  # untyped in the library
        await close()

    @classmethod
    def from_token(cls, server: str, token: str, ca_file: Path | None) -> Client:
        configuration = Configuration(host=server.rstrip("/"))
        configuration.ssl_ca_cert = str(ca_file) if ca_file else None
        configuration.api_key = {"BearerToken": token}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
        return cls(configuration)

    @property
    def server(self) -> str:
        return str(self.configuration.host)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where Pods find the API server."""
        parts = urlsplit(self.server)
        return parts.hostname or "", parts.port or 443

    def ca_bytes(self) -> bytes:
        """The CA of the API server, as PEM; empty when the system's trust is used."""
        if self.configuration.ca_cert_data:
            data = self.configuration.ca_cert_data
            return data.encode() if isinstance(data, str) else bytes(data)
        path = self.configuration.ssl_ca_cert
        return Path(path).read_bytes() if path else b""

    async def close(self) -> None:
        close: Any = self._api.close  # untyped in the library
        await close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Json:
        """One call. Raises ApiError or Unreachable."""
        response = await self._send(_Call(method, path, query, body, content_type), TIMEOUT)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error)) from error
        return _parsed(response.status, data)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        return await self.request("GET", path, query=query)

    async def create(self, path: str, body: Json) -> Json:
        return await self.request("POST", path, body=body)

    async def patch(self, path: str, body: Json, content_type: str = STRATEGIC) -> Json:
        return await self.request("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: Json | None = None) -> Json:
        return await self.request("DELETE", path, body=body)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Json]:
        """Events from `query["resourceVersion"]` on, until the API server ends the watch."""
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        response = await self._send(_Call("GET", path, asked), WATCH_SECONDS + 10)
        try:
            if response.status >= 400:
                _parsed(response.status, await response.read())
            async for line in _lines(response):
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error)) from error
        finally:
            response.close()

    async def _send(self, call: _Call, seconds: float) -> aiohttp.ClientResponse:
        headers = {"Content-Type": call.content_type, "Accept": "application/json"}
        method, url, headers, body, _ = await self._api.param_serialize(
            call.method,
            call.path,
            header_params=headers,
            body=call.body,
            auth_settings=["BearerToken"],
        )
        if call.query:
            url += "?" + urlencode(call.query)
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=5)
        try:
            answer = await self._api.call_api(
                method, url, header_params=headers, body=body, _request_timeout=limits
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        response: aiohttp.ClientResponse = answer.response
        return response


async def _configuration(path: Path) -> Configuration:
    configuration = Configuration()
    load: Any = kubeconfig.load_kube_config  # untyped in the library
    await load(config_file=str(path), client_configuration=configuration)
    return configuration


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines of any length up to LINE_LIMIT (aiohttp's readline stops at its buffer)."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > LINE_LIMIT:
            raise Unreachable("an object in the watch is too large")


def _parsed(status: int, data: bytes) -> Json:
    try:
        value = json.loads(data) if data else {}
    except ValueError:
        value = {"message": data[:500].decode(errors="replace")}
    if not isinstance(value, dict):
        value = {"message": str(value)}
    if status >= 400:
        raise ApiError(status, str(value.get("reason", "")), str(value.get("message", "")))
    return value
