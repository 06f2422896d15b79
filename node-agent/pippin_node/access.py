"""Who may call the kubelet API: the cluster's word, as a kubelet takes it, remembered for a while.

Authentication: a client certificate of the cluster's CA, or a bearer token (TokenReview).
Authorization: SubjectAccessReview on `nodes`, subresource by path.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .client import Client
from .records import Json

#: How long an answer is good for, seconds (the kubelet's defaults).
TOKEN_TTL = 120.0
ALLOWED_TTL = 300.0
DENIED_TTL = 30.0
MEMORY_LIMIT = 1000

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}
_SUBRESOURCES = {"metrics": "metrics", "stats": "stats", "logs": "log", "healthz": "healthz"}


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def from_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The user that a verified client certificate names; None when there is none."""
    names: list[str] = []
    groups: list[str] = []
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    if not names:
        return None
    return User(names[-1], (*groups, "system:authenticated"))


def subresource(path: str) -> str:
    """Which right on the Node a path needs."""
    return _SUBRESOURCES.get(path.strip("/").split("/")[0], "proxy")


class Access:
    """Asks the API server, and remembers. Raises ApiError, Unreachable."""

    def __init__(
        self, client: Client, node: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._node = node
        self._clock = clock
        self._users: dict[bytes, tuple[float, User | None]] = {}
        self._verdicts: dict[tuple[User, str, str], tuple[float, bool]] = {}

    async def authenticate(self, token: str) -> User | None:
        """Whose bearer token this is; None when nobody's."""
        key = hashlib.sha256(token.encode()).digest()
        until, user = self._users.get(key, (0.0, None))
        if self._clock() < until:
            return user
        review = await self._client.create(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token},
            },
        )
        user = _reviewed(review.get("status", {}))
        _trim(self._users)
        self._users[key] = (self._clock() + TOKEN_TTL, user)
        return user

    async def allowed(self, user: User, method: str, path: str) -> bool:
        """Whether the user may do this to the Node."""
        right = subresource(path)
        if await self._may(user, method, right):
            return True
        # Finer rights came later; who may proxy may do all, as ever.
        return right == "healthz" and await self._may(user, method, "proxy")

    async def _may(self, user: User, method: str, right: str) -> bool:
        key = (user, method, right)
        until, verdict = self._verdicts.get(key, (0.0, False))
        if self._clock() < until:
            return verdict
        review = await self._client.create(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": user.name,
                    "groups": list(user.groups),
                    "uid": user.uid,
                    "extra": {name: list(values) for name, values in user.extra},
                    "resourceAttributes": {
                        "verb": _VERBS.get(method, method.lower()),
                        "version": "v1",
                        "resource": "nodes",
                        "subresource": right,
                        "name": self._node,
                    },
                },
            },
        )
        verdict = bool(review.get("status", {}).get("allowed"))
        _trim(self._verdicts)
        self._verdicts[key] = (self._clock() + (ALLOWED_TTL if verdict else DENIED_TTL), verdict)
        return verdict


def _reviewed(status: Json) -> User | None:
    if not status.get("authenticated"):
        return None
    user = status.get("user", {})
    extra: dict[str, Sequence[str]] = user.get("extra", {})
    return User(
        name=user.get("username", ""),
        groups=tuple(user.get("groups", ())),
        uid=user.get("uid", ""),
        extra=tuple((name, tuple(values)) for name, values in sorted(extra.items())),
    )


def _trim(cache: dict[Any, Any]) -> None:
    if len(cache) >= MEMORY_LIMIT:
        cache.clear()
