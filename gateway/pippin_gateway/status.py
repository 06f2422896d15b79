"""`/status`: what this gateway knows and does, for scripts and for people.

Numbers for everybody. With the administration token also names: as JSON, or as a page for a
browser, which shows the token as the password of HTTP Basic. Only here is Basic taken, because a
browser sends it along by itself: nothing here changes anything.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pippin_edge import errors
from pippin_edge.asgi import Headers, Receive, Scope, Send, header
from pippin_edge.authenticate import token
from pippin_edge.clock import Clock
from pippin_edge.keyring import REFUSED

from . import page
from .catalog.model import Model, Replica
from .health import Health
from .listing import answer, answer_json
from .routing.balance import Balance
from .routing.resolve import why_nobody
from .waiting import Waiting

_HTML = b"text/html; charset=utf-8"
#: Any name goes with the password.
_SIGN_IN = (b"www-authenticate", b'Basic realm="Pippin gateway status", charset="UTF-8"')


@dataclass
class Status:
    """GET. `verify` raises errors.Unauthenticated; `name` is this gateway's among others."""

    health: Health
    balance: Balance
    waiting: Waiting
    verify: Callable[[str], object]
    clock: Clock
    name: str

    def __post_init__(self) -> None:
        self.started = self.clock.wall()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not prefers_html(header(scope["headers"], b"accept") or b""):
            signed_in = self._signed_in(scope)
            return await answer_json(send, self.told() if signed_in else self.health.summary())
        try:
            signed_in = self._signed_in(scope)
        except errors.Unauthenticated:
            signed_in = False
        if signed_in:
            return await answer(send, page.status(self.told()), _HTML, headers=page.HEADERS)
        await answer(send, page.sign_in(), _HTML, 401, [*page.HEADERS, _SIGN_IN])

    def _signed_in(self, scope: Scope) -> bool:
        """Whether a token was shown. Raises errors.Unauthenticated when it is not the one."""
        shown = shown_token(scope["headers"])
        if shown is not None:
            self.verify(shown)
        return shown is not None

    def told(self) -> dict[str, Any]:
        """All of it, with names."""
        models = self.health.store.catalog.by_ref
        return {
            **self.health.summary(),
            "gateway": self.name,
            "at": datetime.fromtimestamp(self.clock.wall(), UTC),
            "started_at": datetime.fromtimestamp(self.started, UTC),
            "breakers_open": self.balance.breakers.open_now(),
            "waiting": sum(map(self.waiting.of, models)),
            "served": [self._model(models[ref]) for ref in sorted(models)],
        }

    def _model(self, model: Model) -> dict[str, Any]:
        spec = model.spec
        replicas = [self._replica(model, replica) for replica in model.replicas]
        return {
            "model": model.ref,
            "names": spec.names,
            "task": spec.task,
            "wanted": 0 if spec.suspended else spec.wanted,
            "ready_replicas": len(replicas),
            "in_flight": sum(replica["in_flight"] for replica in replicas),
            "waiting": self.waiting.of(model.ref),
            "reason": None if replicas else why_nobody(spec),
            "replicas": replicas,
        }

    def _replica(self, model: Model, replica: Replica) -> dict[str, Any]:
        balance, now = self.balance, self.clock.monotonic()
        standing = balance.breakers.standing(replica, model.spec.breaker, now)
        return {
            "pod": replica.pod,
            "in_flight": balance.load(replica),
            "breaker": standing.breaker,
            "failures": standing.failures,
            "retry_in_s": round(standing.wait, 1),
        }


def shown_token(headers: Headers) -> str | None:
    """The password of Basic, or what shows a key elsewhere; None: nothing was shown."""
    given = header(headers, b"authorization")
    if given is None and header(headers, b"x-api-key") is None:
        return None
    scheme, _, rest = (given or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return token(headers)
    try:
        return base64.b64decode(rest, validate=True).partition(b":")[2].decode("latin-1")
    except (binascii.Error, ValueError) as error:
        raise errors.Unauthenticated(REFUSED) from error


def prefers_html(accept: bytes) -> bool:
    """Whether HTML is named, and JSON less. `*/*` is a script's."""
    weights = dict(map(_weight, accept.lower().split(b",")))
    pages = max(weights.get(b"text/html", 0.0), weights.get(b"application/xhtml+xml", 0.0))
    return pages > weights.get(b"application/json", 0.0)


def _weight(part: bytes) -> tuple[bytes, float]:
    kind, *parameters = (piece.strip() for piece in part.split(b";"))
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                return kind, float(parameter[2:])
            except ValueError:
                return kind, 0.0
    return kind, 1.0
