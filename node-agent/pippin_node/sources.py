"""ConfigMaps, Secrets and service-account tokens for the Pods of this node, with a short memory.

A node may read exactly the objects that its Pods name. What was read is good for `max_age`
seconds; while the API server is away the last known content serves on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .client import ApiError, Client, Unreachable
from .records import Json

_PLURAL = {"configmap": "configmaps", "secret": "secrets"}

#: A token is replaced when this share of its life is over, or after a day (as the kubelet does).
REFRESH_AT = 0.8
REFRESH_SECONDS = 24 * 3600


@dataclass
class _Seen:
    value: Json | None
    at: float


@dataclass
class _Token:
    value: str
    refresh_at: float


class Sources:
    """Shared by all Pods; times from a monotonic clock."""

    def __init__(self, client: Client, max_age: float) -> None:
        self._client = client
        self._max_age = max_age
        self._objects: dict[tuple[str, str, str], _Seen] = {}
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    def of(self, pod: Json) -> PodSource:
        return PodSource(self, pod)

    async def object(self, namespace: str, kind: str, name: str) -> Json | None:
        """The object, None when there is none. Raises ApiError, Unreachable."""
        key = (namespace, kind, name)
        seen = self._objects.get(key)
        if seen is not None and _holds(seen.value):  # what is absent or empty may come any moment
            if time.monotonic() - seen.at < self._max_age:
                return seen.value
        path = f"/api/v1/namespaces/{namespace}/{_PLURAL[kind]}/{name}"
        try:
            value: Json | None = await self._client.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            value = None
        except Unreachable:
            if seen is None:
                raise
            return seen.value
        self._objects[key] = _Seen(value, time.monotonic())
        return value

    async def token(self, pod: Json, audience: str, seconds: int) -> str:
        """A token bound to the Pod, fresh for a while. Raises ApiError, Unreachable."""
        key = (pod["metadata"]["uid"], audience, seconds)
        known = self._tokens.get(key)
        if known is not None and time.monotonic() < known.refresh_at:
            return known.value
        try:
            value = await self._request_token(pod, audience, seconds)
        except Unreachable:
            if known is None:
                raise
            return known.value
        lasts = min(seconds * REFRESH_AT, REFRESH_SECONDS)
        self._tokens[key] = _Token(value, time.monotonic() + lasts)
        return value

    def forget(self, uid: str) -> None:
        """Drop what was kept for one Pod, and objects that nobody asked for in a while."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
        old = time.monotonic() - 10 * self._max_age
        for name in [name for name, seen in self._objects.items() if seen.at < old]:
            del self._objects[name]

    async def _request_token(self, pod: Json, audience: str, seconds: int) -> str:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        body: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds, "boundObjectRef": bound},
        }
        if audience:
            body["spec"]["audiences"] = [audience]
        return str((await self._client.create(path, body))["status"]["token"])


def _holds(value: Json | None) -> bool:
    return value is not None and bool(value.get("data") or value.get("binaryData"))


class PodSource:
    """What one Pod may ask for."""

    def __init__(self, sources: Sources, pod: Json) -> None:
        self._sources = sources
        self._pod = pod

    async def object(self, kind: str, name: str) -> Json | None:
        return await self._sources.object(self._pod["metadata"]["namespace"], kind, name)

    async def token(self, audience: str, seconds: int) -> str:
        return await self._sources.token(self._pod, audience, seconds)
