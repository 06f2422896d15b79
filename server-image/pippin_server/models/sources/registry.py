"""How a registry lets somebody in: with a name and a password, or with a token for them."""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from ...engines.base import LoadFailed
from .base import Surroundings, unauthorized, unreachable
from .fetch import Fetcher
from .web import Answered, Request

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_MOST = 1024 * 1024
#: Seconds that a token is good for if nobody says, and how much of that is not relied upon.
_LIFETIME, _MARGIN = 60, 10
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class Registry:
    """One repository of a registry. `sign` may be asked by several threads."""

    def __init__(self, host: str, name: str, around: Surroundings, tools: Fetcher) -> None:
        self._host = host
        plain = {host, host.partition(":")[0]} & set(around.plain_registries)
        self._root = f"{'http' if plain else 'https'}://{_real(host)}/v2/"
        self.url = f"{self._root}{name}"
        self._name = name
        self._basic = _basic(host, around)
        self._tools = tools
        self._lock = threading.Lock()
        self._header: str | None = None
        self._until = 0.0

    def sign(self, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Raises LoadFailed."""
        with self._lock:
            if self._header is None or time.monotonic() >= self._until:
                self._header, lifetime = self._let_in()
                self._until = time.monotonic() + lifetime
        return {"authorization": self._header} if self._header else {}

    def _let_in(self) -> tuple[str, float]:
        """What proves who we are, as the registry wants it, and for how long it does."""
        asked = Request(self._root, private=True)
        try:
            self._tools.small(self._host, asked, _MOST)
        except LoadFailed as failure:
            answered = failure.__cause__
            if not isinstance(answered, Answered) or answered.status != 401:
                raise
            return self._met(answered)
        return "", float("inf")

    def _met(self, answered: Answered) -> tuple[str, float]:
        kind, _, words = answered.headers.get("www-authenticate", "").partition(" ")
        if kind.lower() == "bearer":
            # A registry outside sends nobody to an address inside.
            return self._token(dict(_CHALLENGE.findall(words)), private=answered.inside)
        if self._basic is None:
            raise unauthorized(
                f"{self._host}: it needs a name and a password: credentialsSecretRef"
            )
        return f"Basic {self._basic}", float("inf")

    def _token(self, challenge: Mapping[str, str], *, private: bool) -> tuple[str, float]:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme not in ("https", urlsplit(self._root).scheme):
            raise unreachable(f"{self._host}: its tokens are not given over https", permanent=True)
        query = {"scope": f"repository:{self._name}:pull"}
        if "service" in challenge:
            query["service"] = challenge["service"]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        headers = {"authorization": f"Basic {self._basic}"} if self._basic else {}
        request = Request(url, sign=lambda url, _: headers, private=private)
        try:
            _, body = self._tools.small(self._host, request, _MOST)
        except LoadFailed as failure:
            answered = failure.__cause__
            if isinstance(answered, Answered) and answered.status in (400, 401, 403):
                raise unauthorized(f"{self._host}: the credentials are refused") from failure
            raise
        return _read(self._host, body)


def _read(host: str, body: bytes) -> tuple[str, float]:
    try:
        told = json.loads(body)
        token = str(told.get("token") or told["access_token"])
        lifetime = float(told.get("expires_in") or _LIFETIME)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise unreachable(f"{host}: it gives no token", permanent=True) from error
    return f"Bearer {token}", max(1.0, lifetime - _MARGIN)


def _real(host: str) -> str:
    return "registry-1.docker.io" if host in _DOCKER_HUB else host


def _basic(host: str, around: Surroundings) -> str | None:
    """Name and password as HTTP wants them: from a pull Secret, or from two keys."""
    config = around.secret(".dockerconfigjson", "config.json")
    if config:
        return _from_docker(host, config)
    name, password = around.secret("username"), around.secret("password")
    if name and password:
        return b64encode(f"{name}:{password}".encode()).decode()
    return None


def _from_docker(host: str, config: str) -> str | None:
    names = _DOCKER_HUB if host in _DOCKER_HUB else (host,)
    try:
        for server, entry in json.loads(config)["auths"].items():
            if re.sub(r"^https?://|/.*$", "", server) in names:
                return _entry(entry)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise unauthorized(".dockerconfigjson of the credentials cannot be understood") from error
    return None


def _entry(entry: dict[str, Any]) -> str:
    if entry.get("auth"):
        b64decode(entry["auth"], validate=True)
        return str(entry["auth"])
    return b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()
