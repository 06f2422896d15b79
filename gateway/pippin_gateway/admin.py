"""/admin: what keys have used, how much models are asked for, how a request fared, answers kept.

Opened by one token, never by an APIKey.
"""

from __future__ import annotations

import csv
import hmac
import io
from pathlib import Path
from typing import Any

from pippin_contract.wire import ADMIN_TOKEN, CACHE_PATH, DEMAND_PATH, REQUESTS_PATH, USAGE_PATH
from pippin_edge import errors
from pippin_edge.asgi import Receive, Scope, Send
from pippin_edge.keyring import REFUSED

from .cache import ResponseCache
from .demand import Demand
from .explain import Requests
from .ledger.book import SUMS
from .ledger.ledger import Ledger
from .listing import answer, answer_json
from .secretfile import SecretFile

#: A token that somebody wrote by hand must be worth the name.
LEAST = 32
COLUMNS = ("key", "uid", "model", *SUMS, "last_used_at")


class AdminToken:
    """As it lies in a mounted Secret now; without one nobody is let in."""

    def __init__(self, directory: Path) -> None:
        self.file = SecretFile(directory / ADMIN_TOKEN, self._take)
        self._token = b""

    def verify(self, token: str) -> str:
        """Who it is. Raises errors.Unauthenticated."""
        if not hmac.compare_digest(token.encode("latin-1"), self._token) or not self._token:
            raise errors.Unauthenticated(REFUSED)
        return "admin"

    def _take(self, raw: bytes) -> None:
        token = raw.strip()
        if len(token) < LEAST:
            raise ValueError(f"the token has fewer than {LEAST} characters")
        self._token = token


class Admin:
    """Behind the token."""

    def __init__(
        self, ledger: Ledger, requests: Requests, cache: ResponseCache, demand: Demand
    ) -> None:
        self._ledger = ledger
        self._requests = requests
        self._cache = cache
        self._demand = demand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        allowed = "DELETE" if path.startswith(CACHE_PATH) else "GET"
        if scope["method"] != allowed:
            raise errors.MethodNotAllowed(
                f"{path[:128]} takes {allowed}", extra_headers=[(b"allow", allowed.encode())]
            )
        if path.startswith(CACHE_PATH):
            model = path.removeprefix(CACHE_PATH)
            await answer_json(send, {"model": model, "forgotten": await self._cache.forget(model)})
        elif path == USAGE_PATH:
            await self._usage(scope, send)
        elif path == DEMAND_PATH:
            await answer_json(send, self._demand.report())
        elif path.startswith(REQUESTS_PATH):
            await self._request(path.removeprefix(REQUESTS_PATH), send)
        else:
            raise errors.NotFound(f"there is nothing at {path[:128]}: see the API reference")

    async def _usage(self, scope: Scope, send: Send) -> None:
        asked = scope["query_string"]
        if asked not in (b"", b"format=json", b"format=csv"):
            raise errors.BadRequest("'format' is json or csv", param="format")
        report = await self._ledger.report()
        if asked == b"format=csv":
            await answer(send, _csv(report).encode(), b"text/csv; charset=utf-8")
        else:
            await answer_json(send, report)

    async def _request(self, request_id: str, send: Send) -> None:
        told = self._requests.told(request_id)
        if told is None:
            raise errors.NotFound(
                "this gateway does not remember such a request: another one may, and each forgets"
                " after some thousand"
            )
        await answer_json(send, told)


def _csv(report: dict[str, Any]) -> str:
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, extrasaction="ignore")
    table.writeheader()
    for key in report["keys"]:
        for model in key["models"]:
            table.writerow(key | model)
    return out.getvalue()
