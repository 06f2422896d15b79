"""The way of one request: body, model, replica, answer; and what is said when a step fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import structlog

from pippin_contract.wire import FALLBACK_HEADER, REQUEST_ID_HEADER, SERVED_BY_HEADER
from pippin_edge import errors, json_body
from pippin_edge.asgi import Headers, Receive, Scope, Send, header

from . import relay, usage
from .catalog.model import ApiKey, Catalog, Model, Replica
from .routing import fallback, retry
from .routing.balance import Balance
from .routing.breaker import trips
from .routing.resolve import all_broken, nobody_ready, resolve
from .routing.retry import Failure
from .routing.timeouts import Budget, Deadlines, budget
from .telemetry import Telemetry
from .upstream.client import Client, Exchange, Request
from .upstream.failure import UpstreamFailure, told
from .upstream.guard import Guard, Ticker

#: Headers of a client that a replica gets, beside those that are made here.
FORWARDED = frozenset({b"accept", b"traceparent", b"tracestate"})

#: Answers that say that the replica is broken. 503 is not among them: it drains, or is full.
_BROKEN = frozenset({500, 502, 504})
_SERVED_BY = SERVED_BY_HEADER.encode()
_FALLBACK = FALLBACK_HEADER.encode()
_GOING = errors.NotReady("the gateway is going away: try again")
log = structlog.get_logger("pippin.proxy")


class Tokens(Protocol):
    """Signs for a replica."""

    def token(self, audience: str, key: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Deps:
    """What the proxy works with."""

    catalog: Callable[[], Catalog]
    client: Client
    balance: Balance
    ticker: Ticker
    tokens: Tokens
    defaults: Budget
    telemetry: Telemetry
    clock: Callable[[], float]


@dataclass(slots=True)
class Call:
    """One request on its way."""

    scope: Scope
    body: bytes
    key: ApiKey
    asked: dict[str, Any]
    model: Model
    #: The model as it is now. Raises errors.ModelNotFound.
    renew: Callable[[], Model]
    guard: Guard
    deadlines: Deadlines
    began: float
    fields: dict[str, Any]
    tried: set[str] = field(default_factory=set)
    #: Models that may still answer in its place, and why those before did not: model=reason.
    others: list[Model] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return str(self.scope["state"]["request_id"])


class Proxy:
    """POST handler of the OpenAI paths that name a model in a JSON body."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._purse = retry.Purse()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deps = self._deps
        began = deps.clock()
        _require_json(scope)
        body = await json_body.read(receive)
        asked = json_body.parse(body)
        name = json_body.text(asked, "model")
        state = scope["state"]
        key: ApiKey = state["principal"]
        model = resolve(deps.catalog(), key, name)
        fields = state["log"]
        fields["model"] = model.ref
        deadlines = self._deadlines(model, began, asked)
        connection = state["connection"]
        in_flight, label = deps.telemetry.in_flight, (model.ref,)
        in_flight.add(label)
        try:
            with deps.ticker.guard() as guard:
                connection.on_gone = guard.client_gone
                if connection.transport.is_closing():  # left before anybody listened
                    raise errors.ClientGone
                call = Call(
                    *(scope, body, key, asked, model),
                    renew=lambda: resolve(deps.catalog(), key, name),
                    guard=guard,
                    deadlines=deadlines,
                    began=began,
                    fields=fields,
                )
                if model.spec.fallbacks:
                    call.others = fallback.chain(model, deps.catalog().by_ref)
                await self._answer(call, send)
        finally:
            connection.on_gone = None
            in_flight.add(label, -1)

    def _deadlines(self, model: Model, began: float, asked: dict[str, Any]) -> Deadlines:
        times = budget(model.spec.timeouts, self._deps.defaults)
        return Deadlines(times, began, asked.get("stream") is True)

    async def _answer(self, call: Call, send: Send) -> None:
        """Ask the model, and, while it cannot answer, those in its place. What the client is told
        in the end is why its own model did not."""
        self._purse.earn()
        first: errors.ApiError | None = None
        while True:
            try:
                await self._ask(call, send)
                return
            except errors.ApiError as error:
                why = _reason(error)
                if not call.others or not fallback.helps(error.status, why):
                    if first is None:
                        raise
                    raise first from error
                first = first or error
                self._fall_back(call, why)

    def _fall_back(self, call: Call, why: str) -> None:
        """From now on the call is the next model's."""
        deps, failed, model = self._deps, call.model, call.others.pop(0)
        deps.telemetry.fallbacks(failed.ref, model.ref, why).inc()
        call.passed_over.append(f"{failed.spec.name}={why}")
        call.fields["fallback"] = model.ref
        log.warning(
            "model.passed_over",
            request_id=call.request_id,
            model=failed.ref,
            instead=model.ref,
            why=why,
        )
        call.model, call.tried = model, set()
        call.renew = lambda: deps.catalog().by_ref.get(model.ref) or fallback.gone(model)
        call.body = orjson.dumps({**call.asked, "model": model.spec.served_name})
        call.deadlines = self._deadlines(model, call.began, call.asked)

    async def _ask(self, call: Call, send: Send) -> None:
        """Try the model's replicas until one answers, and pass its answer on. Raises ApiError while
        nothing was sent."""
        attempt = 1
        while True:
            replica = self._pick(call)
            try:
                await self._attempt(call, replica, attempt, send)
                return
            except UpstreamFailure as failure:
                self._failed(call, replica, failure)
                if not self._again(call, failure.kind, attempt):
                    raise told(failure) from failure
                self._deps.telemetry.retries(call.model.ref, failure.kind).inc()
                await self._pause(call)
                attempt += 1

    async def _attempt(self, call: Call, replica: Replica, attempt: int, send: Send) -> None:
        """One replica's answer to the client. Raises UpstreamFailure while nothing was sent."""
        deps = self._deps
        call.tried.add(replica.id)
        call.fields["replica"] = replica.pod
        token = deps.tokens.token(call.model.ref, call.key.ref)
        request = Request(_head(call, replica, token), call.body, token)
        deps.balance.began(replica)
        exchange: Exchange | None = None
        try:
            exchange = await deps.client.send(replica, request, call.guard, call.deadlines)
            _judge(exchange)
            if exchange.status == 503 and self._may_ask_another(call, attempt):
                raise UpstreamFailure(Failure.UNAVAILABLE, "503")
            if exchange.status >= 500 and call.others:
                kind = Failure.SERVER_ERROR if exchange.status in _BROKEN else Failure.UNAVAILABLE
                raise UpstreamFailure(kind, str(exchange.status))
            if exchange.status in _BROKEN:
                self._count_against(call, replica)
            if relay.streams(exchange):
                ended_well = await self._stream(call, exchange, send)
            else:
                ended_well = await self._whole(call, exchange, send)
            if ended_well:
                deps.balance.breakers.succeeded(replica)
        except asyncio.CancelledError as cancelled:
            failure = call.guard.expired()
            if failure is None:
                raise
            self._blame(call, replica, failure)
            raise failure from cancelled
        except UpstreamFailure as failure:
            self._blame(call, replica, failure)
            raise
        finally:
            deps.balance.ended(replica)
            if exchange is not None:
                exchange.close()

    async def _whole(self, call: Call, exchange: Exchange, send: Send) -> bool:
        """Whether the replica did what it is for."""
        self._used(call, await relay.whole(exchange, send, _answer_head(call, exchange)))
        return exchange.status < 500

    async def _stream(self, call: Call, exchange: Exchange, send: Send) -> bool:
        """Whether the stream came to its end."""
        deps, guard = self._deps, call.guard
        events = relay.Events(exchange, send, lambda part: self._used(call, part))
        await events.begin()
        waited = deps.clock() - call.began
        deps.telemetry.first_token.observe((call.model.ref,), waited)
        call.fields["ttft_ms"] = round(waited * 1000, 2)
        guard.until(call.deadlines.next_part(deps.clock()))
        try:
            await events.run(
                _answer_head(call, exchange),
                lambda: guard.until(call.deadlines.next_part(deps.clock())),
            )
        except asyncio.CancelledError:
            late = guard.expired()
            if late is None:
                if not guard.left:  # the time to drain is over
                    await events.fail(_GOING, call.request_id)
                raise
            broken = late
        except UpstreamFailure as failure:
            broken = failure
        else:
            return True
        self._blame(call, exchange.replica, broken)
        await self._break_off(call, events, broken)
        return False

    async def _break_off(self, call: Call, events: relay.Events, failure: UpstreamFailure) -> None:
        """Trouble after the first byte: one last event, no [DONE], no retry."""
        self._count(call.model, failure)
        call.fields["error"] = str(failure.kind)
        await events.fail(told(failure), call.request_id)

    def _pick(self, call: Call) -> Replica:
        """From the replicas as they are now. Raises errors.NotReady, ModelNotFound."""
        if call.tried:
            call.model = call.renew()
        balance, model, now = self._deps.balance, call.model, self._deps.clock()
        replica = balance.pick(model.replicas, call.tried, now, model.spec.breaker)
        if replica is not None:
            return replica
        if model.replicas:
            wait = balance.breakers.wait(model.replicas, model.spec.breaker, now)
            raise all_broken(model, wait)
        raise nobody_ready(model)

    def _again(self, call: Call, failure: Failure, attempt: int) -> bool:
        """Whether there is another try: allowed, affordable, and somebody to ask."""
        if not retry.again(failure, attempt, call.model.spec.retries):
            return False
        return self._another(call) and self._purse.spend()

    def _may_ask_another(self, call: Call, attempt: int) -> bool:
        policy = call.model.spec.retries
        return retry.again(Failure.UNAVAILABLE, attempt, policy) and self._another(call)

    async def _pause(self, call: Call) -> None:
        """Before the next try; not the same for all that failed at one moment."""
        backoff = call.model.spec.retries.backoff
        if not backoff:
            return
        call.guard.until(call.deadlines.end())
        try:
            await asyncio.sleep(random.uniform(backoff / 2, backoff))
        except asyncio.CancelledError as cancelled:
            late = call.guard.expired()
            if late is None:
                raise
            raise told(late) from cancelled

    def _another(self, call: Call) -> bool:
        model = call.renew()
        allows, now = self._deps.balance.breakers.allows, self._deps.clock()
        return any(
            replica.id not in call.tried and allows(replica, model.spec.breaker, now)
            for replica in model.replicas
        )

    def _failed(self, call: Call, replica: Replica, failure: UpstreamFailure) -> None:
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

    def _used(self, call: Call, part: bytes) -> None:
        found = usage.find(part)
        if found is not None:
            call.fields["prompt_tokens"], call.fields["completion_tokens"] = found
            self._deps.telemetry.used(call.model.ref, call.key.ref, *found)


def _reason(error: errors.ApiError) -> str:
    """How metrics and headers call why a model did not answer."""
    cause = error.__cause__
    return str(cause.kind) if isinstance(cause, UpstreamFailure) else error.code


def _head(call: Call, replica: Replica, token: str) -> bytes:
    """The request line and headers: nothing of the client's that is not on the list."""
    head = (
        f"POST {call.scope['path']} HTTP/1.1\r\nhost: {replica.endpoint.authority}\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(call.body)}\r\n{REQUEST_ID_HEADER}: {call.request_id}\r\n"
    ).encode()
    for name, value in call.scope["headers"]:
        if name in FORWARDED:
            head += name + b": " + value + b"\r\n"
    return head + b"\r\n"


def _judge(exchange: Exchange) -> None:
    """Refuse answers that are not the model's answer to the client."""
    status = exchange.status
    if status in (401, 403, 407):
        raise UpstreamFailure(Failure.REFUSED_TOKEN, f"the replica answered {status}")
    if status >= 300 and (status < 400 or not relay.is_json(exchange)):
        raise UpstreamFailure(Failure.BAD_ANSWER, f"status {status}")


def _answer_head(call: Call, exchange: Exchange) -> Headers:
    head = [*relay.passed(exchange), (_SERVED_BY, exchange.replica.pod.encode())]
    if call.passed_over:
        head.append((_FALLBACK, ", ".join(call.passed_over).encode()))
    return head


def _require_json(scope: Scope) -> None:
    kind = header(scope["headers"], b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise errors.UnsupportedMedia(
            "send the request body as JSON, with the header 'Content-Type: application/json'"
        )
