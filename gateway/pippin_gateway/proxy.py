"""The way of one request: body, model, replica, answer; and what is said when a step fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from pippin_edge import errors, json_body
from pippin_edge.asgi import Receive, Scope, Send

from . import relay, usage
from .call import Call, judge, require_json, sent
from .catalog.model import ApiKey, Catalog, Model, Replica
from .explain import Hop, Passed, Trace
from .ledger.ledger import Ledger
from .limiting.admission import Admission
from .routing import affinity, fallback, retry
from .routing.balance import Balance
from .routing.breaker import trips
from .routing.resolve import all_broken, nobody_ready, resolve
from .routing.retry import Failure
from .routing.timeouts import Budget, Deadlines, budget
from .telemetry import Telemetry
from .upstream.client import Client, Exchange, Request
from .upstream.failure import UpstreamFailure, told
from .upstream.guard import Ticker

#: Answers that say that the replica is broken. 503 is not among them: it drains, or is full.
_BROKEN = frozenset({500, 502, 504})
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
    admission: Admission
    ledger: Ledger
    telemetry: Telemetry
    clock: Callable[[], float]


class Proxy:
    """POST handler of the OpenAI paths that name a model in a JSON body."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._purse = retry.Purse()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deps = self._deps
        began = deps.clock()
        trace = scope["state"]["trace"] = Trace(began)
        try:
            await self._take(scope, receive, send, trace)
        except errors.ApiError as error:
            trace.said = error.message
            raise

    async def _take(self, scope: Scope, receive: Receive, send: Send, trace: Trace) -> None:
        deps = self._deps
        require_json(scope)
        received = await json_body.read(receive)
        asked = json_body.parse(received)
        name = trace.asked = json_body.text(asked, "model")
        state = scope["state"]
        key: ApiKey = state["principal"]
        fields = state["log"]
        fields["key_id"] = key.key_id
        model = resolve(deps.catalog(), key, name)
        fields["model"] = model.ref
        grant = await deps.admission.admit(key, model, asked, received, trace.limited)
        body, hide_usage = usage.ask(sent(received, asked, model), asked)
        with deps.ticker.guard() as guard:
            call = Call(
                *(scope, received, body, key, asked, model),
                renew=lambda: resolve(deps.catalog(), key, name),
                guard=guard,
                deadlines=self._deadlines(model, trace.began, asked),
                began=trace.began,
                fields=fields,
                grants=[grant],
                trace=trace,
                beginning=affinity.prefix(key.ref, received),
                hide_usage=hide_usage,
            )
            try:
                await self._guarded(call, send)
            except errors.ApiError as error:
                error.extra_headers = [*error.extra_headers, *grant.headers]
                call.failed = error.status >= 500
                raise
            finally:
                self._over(call)

    def _over(self, call: Call) -> None:
        """Whatever became of it: what it took counts."""
        deps = self._deps
        took = call.took(lambda: deps.admission.prompt_tokens(call.model, call.received))
        call.settle(took)
        deps.ledger.note(call.key, call.model.ref, took)
        if call.used is not None:
            deps.telemetry.used(call.model.ref, call.key.ref, took.prompt, took.completion)
            deps.admission.learn(call.model, call.asked, call.received, took[:2])
            for name, tokens in call.used._asdict().items():
                call.fields[f"{name}_tokens"] = tokens

    async def _guarded(self, call: Call, send: Send) -> None:
        """Until the client leaves."""
        deps, connection = self._deps, call.scope["state"]["connection"]
        in_flight, label = deps.telemetry.in_flight, (call.model.ref,)
        in_flight.add(label)
        try:
            connection.on_gone = call.guard.client_gone
            if connection.transport.is_closing():  # left before anybody listened
                raise errors.ClientGone
            if call.model.spec.fallbacks:
                call.others = fallback.chain(call.model, deps.catalog().by_ref)
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
                if not await self._fall_back(call, why):
                    raise first from error

    async def _fall_back(self, call: Call, why: str) -> bool:
        """Whether the call is another model's from now on: the next one that has room for it."""
        deps, failed = self._deps, call.model
        while call.others:
            model = call.others.pop(0)
            try:
                grant = await deps.admission.admit(
                    None, model, call.asked, call.received, call.trace.limited
                )
            except errors.RateLimited:
                continue
            call.grants.append(grant)
            self._turn(call, failed, model, why)
            return True
        return False

    def _turn(self, call: Call, failed: Model, model: Model, why: str) -> None:
        deps = self._deps
        deps.telemetry.fallbacks(failed.ref, model.ref, why).inc()
        call.trace.passed_over.append(Passed(failed.ref, why))
        call.fields["fallback"] = model.ref
        log.warning(
            "model.passed_over",
            request_id=call.request_id,
            model=failed.ref,
            instead=model.ref,
            why=why,
        )
        call.turn_to(model)
        call.renew = lambda: deps.catalog().by_ref.get(model.ref) or fallback.gone(model)
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
        request = Request(call.request_head(replica, token), call.body, token)
        deps.balance.began(replica)
        began, outcome = deps.clock(), "cancelled"
        exchange: Exchange | None = None
        try:
            exchange = await deps.client.send(replica, request, call.guard, call.deadlines)
            judge(exchange)
            outcome = str(exchange.status)
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
            else:
                call.failed = True
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
            call.trace.hop(Hop(call.model.ref, replica.pod, began, deps.clock(), outcome))
            deps.balance.ended(replica)
            if exchange is not None:
                exchange.close()

    async def _whole(self, call: Call, exchange: Exchange, send: Send) -> bool:
        """Whether the replica did what it is for."""
        call.used = usage.find(await relay.whole(exchange, send, call.answer_head(exchange)))
        return exchange.status < 500

    async def _stream(self, call: Call, exchange: Exchange, send: Send) -> bool:
        """Whether the stream came to its end."""
        deps, guard = self._deps, call.guard
        events = relay.Events(exchange, send, lambda part: self._shown(call, part))
        await events.begin()
        waited = deps.clock() - call.began
        deps.telemetry.first_token.observe((call.model.ref,), waited)
        call.fields["ttft_ms"] = round(waited * 1000, 2)
        guard.until(call.deadlines.next_part(deps.clock()))
        try:
            await events.run(
                call.answer_head(exchange),
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
        replica = balance.pick(model.replicas, call.tried, now, model.spec.breaker, call.beginning)
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

    def _shown(self, call: Call, part: bytes) -> bytes:
        """What the client gets of some events."""
        call.used = usage.find(part) or call.used
        call.events += part.count(b"\n\n")
        return usage.hide(part) if call.hide_usage else part


def _reason(error: errors.ApiError) -> str:
    """How metrics and headers call why a model did not answer."""
    cause = error.__cause__
    return str(cause.kind) if isinstance(cause, UpstreamFailure) else error.code
