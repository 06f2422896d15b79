"""One try of one request at one replica, and what its failure means for the replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import structlog

from pippin_edge import errors, sse
from pippin_edge.asgi import Send, Sender

from . import relay, usage
from .cache import ResponseCache
from .call import Call, judge
from .catalog.credentials import ProviderKeys
from .catalog.model import Catalog, Model, Replica
from .demand import Demand
from .explain import Hop
from .ledger.ledger import Ledger
from .limiting.admission import Admission
from .resume import Continuation
from .routing import retry
from .routing.balance import Balance
from .routing.breaker import trips
from .routing.retry import Failure
from .routing.timeouts import Budget
from .telemetry import Telemetry
from .traceparent import new_span
from .upstream import providers
from .upstream.client import Client, Exchange, Request
from .upstream.failure import UpstreamFailure, told
from .upstream.guard import Ticker
from .waiting import BEAT, Waiting

#: Answers that say that the replica is broken. 503 is not among them: it drains, or is full.
_BROKEN = frozenset({500, 502, 504})
GOING = errors.NotReady("the gateway is going away: try again")
log = structlog.get_logger("pippin.proxy")


class Tokens(Protocol):
    """Signs for a replica."""

    def token(self, audience: str, key: str, *, batch: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Deps:
    """What the proxy works with."""

    catalog: Callable[[], Catalog]
    client: Client
    balance: Balance
    ticker: Ticker
    tokens: Tokens
    provider_keys: ProviderKeys
    defaults: Budget
    admission: Admission
    cache: ResponseCache
    ledger: Ledger
    waiting: Waiting
    demand: Demand
    telemetry: Telemetry
    #: Whose traces are recorded, of those that begin here: a share from 0 to 1; None: nobody's.
    traced: float | None
    clock: Callable[[], float]


class Attempts:
    """Each is one replica's."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def one(
        self, call: Call, replica: Replica, elsewhere: Callable[[], bool], send: Send
    ) -> None:
        """The replica's answer to the client. Raises UpstreamFailure while nothing was sent.

        `elsewhere`: whether another may be asked instead of one that drains or is full.
        """
        deps = self._deps
        call.tried.add(replica.id)
        call.fields["replica"] = replica.pod
        token = self._token(call, replica)
        span = new_span() if call.trace.context is not None else ""
        request = Request(call.request_head(replica, token, span), call.body, token)
        deps.balance.began(replica, call.prompt.tokens)
        began, outcome = deps.clock(), "cancelled"
        exchange: Exchange | None = None
        try:
            exchange = await deps.client.send(replica, request, call.guard, call.deadlines)
            outcome = str(exchange.status)
            await self._judge(call, replica, exchange, token)
            if exchange.status == 503 and elsewhere():
                raise UpstreamFailure(Failure.UNAVAILABLE, "503")
            if exchange.status >= 500 and call.others:
                kind = Failure.SERVER_ERROR if exchange.status in _BROKEN else Failure.UNAVAILABLE
                raise UpstreamFailure(kind, str(exchange.status))
            if exchange.status in _BROKEN:
                self._count_against(call, replica)
            if relay.streams(exchange):
                ended_well = await self._stream(call, exchange, elsewhere, send)
            else:
                ended_well = await self._whole(call, exchange, send)
            if ended_well:
                deps.balance.breakers.succeeded(replica)
            else:
                call.failed = True
                outcome = call.fields.get("error", outcome)  # of a stream that broke off
        except asyncio.CancelledError as cancelled:
            failure = call.guard.expired()
            if failure is None:
                raise
            outcome = str(failure.kind)
            self._blame(call, replica, failure)
            raise failure from cancelled
        except UpstreamFailure as failure:
            outcome = str(failure.kind)
            self._blame(call, replica, failure)
            raise
        finally:
            call.trace.hop(Hop(call.model.ref, replica.pod, began, deps.clock(), outcome, span))
            deps.balance.ended(replica, call.prompt.tokens)
            deps.waiting.ended(call.model.ref)
            if exchange is not None:
                exchange.close()

    def _token(self, call: Call, replica: Replica) -> str:
        """What the replica knows us by. Raises errors.NotReady."""
        if replica.outside is None:
            return self._deps.tokens.token(call.model.ref, call.key.ref, batch=call.key.batch)
        return self._deps.provider_keys.of(call.model.spec, replica.outside)

    async def _judge(self, call: Call, replica: Replica, exchange: Exchange, token: str) -> None:
        """Raises UpstreamFailure, and ApiError for what a provider says the client did wrong."""
        if replica.outside is None:
            return judge(exchange)
        try:
            await providers.judge(exchange, token)
        except errors.ApiError:
            self._deps.balance.breakers.succeeded(replica)  # it did its part
            raise

    async def _whole(self, call: Call, exchange: Exchange, send: Send) -> bool:
        """Whether the replica did what it is for."""
        head = call.answer_head(exchange)
        end = await relay.whole(exchange, send, head, lambda part: _named(call, part))
        call.used = usage.said(exchange.headers) or usage.find(end)
        return exchange.status < 500

    async def _stream(
        self, call: Call, exchange: Exchange, elsewhere: Callable[[], bool], send: Send
    ) -> bool:
        """Whether the stream came to its end. Raises UpstreamFailure when another may tell the
        rest."""
        deps, guard = self._deps, call.guard
        client = call.scope["state"]["connection"]
        sender = cast(Sender, send)  # the server's, or that of a layer of ours
        events = relay.Events(exchange, sender, partial(self._shown, call), client)
        await events.begin()
        if call.rest is None:
            waited = deps.clock() - call.began
            deps.telemetry.first_token.observe((call.model.ref,), waited)
            call.fields["ttft_ms"] = round(waited * 1000, 2)
        guard.next_part = call.deadlines.next_part
        guard.until(guard.next_part(deps.clock()))
        try:
            await events.run(call.answer_head(exchange))
        except asyncio.CancelledError:
            late = guard.expired()
            if late is None:
                if not guard.left:  # the time to drain is over
                    await events.fail(GOING, call.request_id)
                raise
            broken = late
        except UpstreamFailure as failure:
            broken = failure
        else:
            return True
        if self._resumes(call, broken) and elsewhere():
            call.keep_open(send)
            call.spoke_at = deps.clock()
            broken.resumable = True
            raise broken
        self._blame(call, exchange.replica, broken)
        await self._break_off(call, events, broken)
        return False

    def _resumes(self, call: Call, broken: UpstreamFailure) -> bool:
        """Whether the rest of the stream can be told by another; then it is ready to."""
        if call.told is None or not retry.may_resume(broken.kind):
            return False
        call.rest = Continuation(call.told)
        return call.told.usable

    async def _break_off(self, call: Call, events: relay.Events, failure: UpstreamFailure) -> None:
        """Trouble after the first byte: one last event, no [DONE], no retry."""
        self._count(call.model, failure)
        call.fields["error"] = str(failure.kind)
        await events.fail(told(failure), call.request_id)

    def failed(self, call: Call, replica: Replica, failure: UpstreamFailure) -> None:
        """It did not answer: passed over for a moment, counted, logged."""
        if replica.outside is not None:
            call.tried.discard(replica.id)  # behind its one address there are many
        if retry.blames_replica(failure.kind):
            self._deps.balance.failed(replica, self._deps.clock())
        self._count(call.model, failure)
        log.warning(
            "upstream.failed",
            request_id=call.request_id,
            model=call.model.ref,
            replica=replica.pod,
            why=str(failure),
        )

    def _blame(self, call: Call, replica: Replica, failure: UpstreamFailure) -> None:
        """While the request still counts as under way: a try of an open breaker must be known."""
        if trips(failure.kind):
            self._count_against(call, replica)

    def _count_against(self, call: Call, replica: Replica) -> None:
        """One failure more for the replica's breaker."""
        breakers, policy = self._deps.balance.breakers, call.model.spec.breaker
        if breakers.failed(replica, policy, self._deps.clock()):
            log.warning("breaker.opened", model=call.model.ref, replica=replica.pod)

    def _count(self, model: Model, failure: UpstreamFailure) -> None:
        self._deps.telemetry.upstream_errors(model.ref, failure.kind).inc()

    def _sign_of_life(self, call: Call) -> bytes:
        """While nothing new comes."""
        now = self._deps.clock()
        if now < call.spoke_at + BEAT:
            return b""
        call.spoke_at = now
        return sse.comment("going on at another replica")

    def _shown(self, call: Call, part: bytes) -> bytes:
        """What the client gets of some events."""
        if b'_tokens"' in part:
            call.used = call.tokens_in(part) or call.used
        if call.rest is not None:
            part = call.rest.rest(part) or self._sign_of_life(call)
        if call.told is not None:
            call.told.add(part)
        call.events += part.count(b"\n\n")
        call.guard.heard = True
        if call.model.spec.external is not None:
            part = _named(call, part)
        return usage.hide(part) if call.hide_usage else part


def _named(call: Call, part: bytes) -> bytes:
    """A provider's own name of the model is not what clients ask for."""
    spec = call.model.spec
    return part if spec.external is None else providers.named(part, spec.served_name)
