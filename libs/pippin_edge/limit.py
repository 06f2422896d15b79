"""Requests per minute of a key, and the headers by which clients pace themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .asgi import App, Headers, Message, Receive, Scope, Send
from .clock import SYSTEM, Clock
from .errors import RateLimited
from .limits.memory import Store
from .limits.window import Verdict


class Rule(NamedTuple):
    """How many requests a minute, and counted under which name."""

    key: str
    rpm: int


class Limit:
    """Takes one request from the window that `rule_of(scope)` names; None means no limit.

    Stands inside Authenticate (the rule is the principal's) and raises errors.RateLimited.
    """

    def __init__(
        self,
        app: App,
        store: Store,
        rule_of: Callable[[Scope], Rule | None],
        *,
        on_refused: Callable[[Rule], object] = lambda rule: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.app = app
        self.store = store
        self.rule_of = rule_of
        self.on_refused = on_refused
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = self.rule_of(scope) if scope["type"] == "http" else None
        if rule is None:
            return await self.app(scope, receive, send)
        verdict = await self.store.take(rule.key, rule.rpm, self.clock.monotonic())
        told = rate_headers(verdict, self.clock.wall())
        if not verdict.allowed:
            self.on_refused(rule)
            raise RateLimited(
                f"this key may make {rule.rpm} requests a minute: "
                f"try again in {math.ceil(verdict.retry_after)} s",
                retry_after=verdict.retry_after,
                extra_headers=told,
            )

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *told]
            await send(message)

        await self.app(scope, receive, telling)


def rate_headers(verdict: Verdict, wall: float) -> Headers:
    """OpenAI's names (reset as a duration) and the common ones (reset as Unix time)."""
    limit = b"%d" % verdict.limit
    remaining = b"%d" % verdict.remaining
    return [
        (b"x-ratelimit-limit-requests", limit),
        (b"x-ratelimit-remaining-requests", remaining),
        (b"x-ratelimit-reset-requests", b"%.3fs" % verdict.reset_after),
        (b"x-ratelimit-limit", limit),
        (b"x-ratelimit-remaining", remaining),
        (b"x-ratelimit-reset", b"%d" % math.ceil(wall + verdict.reset_after)),
    ]
