"""The API server: read, apply, delete, write status, post events. Errors become ours here.

The only importer of the Kubernetes client. Generic requests over REST paths instead of its typed
models, which would cost time for each object and know no kind of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from pippin_contract import wire

from .api.resources import EVENT, Manifest, Resource
from .errors import ApiError, Conflict, NotFound, Refused
from .telemetry import Metrics

_APPLY = "application/apply-patch+yaml"
_PAGE = 500
_TIMEOUT = 30
_CONNECTIONS = 32
#: Seconds after which credentials are read from their files again: tokens are rotated there.
_CREDENTIALS_LIFE = 60


@dataclass(frozen=True)
class Connection:
    """How the API server is reached, for the watches."""

    server: str
    ca_path: str | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    token: str | None


class Credentials:
    """Server, CA and token, from a kubeconfig or from the Pod's service account."""

    def __init__(self, kubeconfig: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._read_at = 0.0
        self.configuration = Configuration()

    async def fresh(self, *, now: bool = False) -> Configuration:
        """Read again when old, or `now`. Raises ApiError when there are none."""
        if now or not self._read_at or monotonic() - self._read_at > _CREDENTIALS_LIFE:
            try:
                await self._read()
            except (ConfigException, OSError) as error:
                raise ApiError(0, f"no credentials for the API server: {error}") from error
            self._read_at = monotonic()
        return self.configuration

    async def connection(self) -> Connection:
        configuration = await self.fresh(now=True)
        return Connection(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            token=_token(configuration),
        )

    async def _read(self) -> None:
        if self._kubeconfig:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=self._kubeconfig,
                client_configuration=self.configuration,
                persist_config=False,
            )
        else:
            load_incluster_config(  # type: ignore[no-untyped-call]
                self.configuration, try_refresh_token=False
            )


class Cluster:
    """Requests as the operator. Every method raises ApiError or one of its kinds."""

    def __init__(self, credentials: Credentials, metrics: Metrics) -> None:
        self.credentials = credentials
        self._metrics = metrics
        self._client: ApiClient | None = None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        return await self._request("GET", resource, resource.path(namespace, name))

    async def list(
        self, resource: Resource, selector: str = "", namespace: str | None = None
    ) -> tuple[list[Manifest], int]:
        """Every object of the kind in the cluster, or in one namespace, and the version at which
        they were read."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE), "labelSelector": selector}
        while True:
            page = await self._request("GET", resource, resource.path(namespace), query)
            items += page["items"]
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return items, int(metadata["resourceVersion"])
            query = {**query, "continue": metadata["continue"]}

    async def apply(self, manifest: Manifest, resource: Resource, *, force: bool) -> Manifest:
        """Server-side apply. Raises Conflict when others own a field and `force` is not set."""
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._apply(resource, path, manifest, force=force)

    async def apply_status(
        self,
        resource: Resource,
        live: Manifest,
        status: Mapping[str, Any],
        manager: str = wire.MANAGER,
    ) -> Manifest:
        """Write all of the status that is this manager's. Raises Conflict when the object was made
        anew."""
        metadata = live["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "status": status,
        }
        path = resource.path(namespace, name, "status")
        return await self._apply(resource, path, body, force=True, manager=manager)

    async def create(self, manifest: Manifest, resource: Resource) -> Manifest:
        """Raises Conflict when the name is in use."""
        path = resource.path(manifest["metadata"]["namespace"])
        return await self._request(
            "POST", resource, path, {"fieldManager": wire.MANAGER}, body=manifest
        )

    async def delete(self, resource: Resource, live: Manifest) -> None:
        """Delete exactly this object; done when it is gone already."""
        metadata = live["metadata"]
        body = {
            "propagationPolicy": "Background",
            "preconditions": {"uid": metadata["uid"]},
        }
        path = resource.path(metadata["namespace"], metadata["name"])
        try:
            await self._request("DELETE", resource, path, body=body)
        except (NotFound, Conflict):
            return

    async def warnings(self, namespace: str, uid: str) -> Sequence[Manifest]:
        """What was last complained of about one object, newest last."""
        query = {"fieldSelector": f"regarding.uid={uid},type=Warning", "limit": str(_PAGE)}
        found = await self._request("GET", EVENT, EVENT.path(namespace), query)
        items: Sequence[Manifest] = found["items"]
        return sorted(items, key=_told_at)

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server knows the kind."""
        root = "api" if "/" not in resource.api_version else "apis"
        try:
            found = await self._request("GET", resource, f"/{root}/{resource.api_version}")
        except NotFound:
            return False
        return any(entry["name"] == resource.plural for entry in found["resources"])

    async def _apply(
        self,
        resource: Resource,
        path: str,
        body: Manifest,
        *,
        force: bool,
        manager: str = wire.MANAGER,
    ) -> Manifest:
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._request("PATCH", resource, path, query, body=body, content=_APPLY)

    async def _request(  # noqa: PLR0913 - one door to HTTP, private to this class
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Manifest:
        status, text = await self._send(verb, path, query, body, content)
        if status == 401:
            await self.credentials.fresh(now=True)
            status, text = await self._send(verb, path, query, body, content)
        self._metrics.requests.labels(verb, resource.plural, f"{status // 100}xx").inc()
        if status >= 400:
            raise _error(status, text, verb, path)
        result: Manifest = json.loads(text)
        return result

    async def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Manifest | None,
        content: str,
    ) -> tuple[int, bytes]:
        configuration = await self.credentials.fresh()
        if self._client is None:
            configuration.connection_pool_maxsize = _CONNECTIONS
            # Proxies and ~/.netrc would be looked up in a thread for every request.
            configuration.client_session_kwargs = {"trust_env": False}
            self._client = ApiClient(configuration)
        headers = {"Content-Type": content, "Accept": "application/json"}
        if token := _token(configuration):
            headers["Authorization"] = f"Bearer {token}"
        asked = urlencode({key: value for key, value in (query or {}).items() if value})
        url = configuration.host + path + (f"?{asked}" if asked else "")
        try:
            response = await self._client.call_api(
                verb, url, headers, body, _request_timeout=_TIMEOUT
            )
            text: bytes = await response.read()  # type: ignore[no-untyped-call]
            return response.status, text
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, f"the API server cannot be reached: {error!r}") from error


def _told_at(event: Manifest) -> str:
    """Old and new ways to say when; comparable as text to the second."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"))
    return max(filter(None, (*times, event.get("eventTime"))), default="")


def _token(configuration: Configuration) -> str | None:
    """Without its scheme, which the loaders write in two ways."""
    bearer: str = configuration.api_key.get("BearerToken") or ""
    return bearer.split()[-1] if bearer else None


def _error(status: int, text: bytes, verb: str, path: str) -> ApiError:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{verb} {path} was answered with {status}"
    kinds = {400: Refused, 404: NotFound, 409: Conflict, 422: Refused}
    return kinds.get(status, ApiError)(status, message)
