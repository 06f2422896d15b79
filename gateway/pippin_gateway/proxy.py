"""The way of one request: body, model, replica, answer; and what is said when a step fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from pippin_edge import errors
from pippin_edge.asgi import Receive, Scope, Send, header

from . import forms
from .attempt import GOING, Attempts, Deps
from .cache import digest, has_one_answer, replay
from .call import Call, read_json, sent
from .catalog.model import ApiKey, CachePolicy, Model, Replica
from .explain import Passed, Trace
from .resume import Told
from .routing import affinity, fallback, retry
from .routing.balance import Prompt
from .routing.resolve import all_broken, may_come, nobody_ready, resolve, why_nobody
from .routing.retry import Failure
from .routing.timeouts import Deadlines, budget
from .traceparent import begin
from .upstream.failure import UpstreamFailure, told
from .waiting import BEAT, Early

#: Seconds, at most, before a replica that nobody could connect to is tried once more.
SAME_AGAIN = 0.2

log = structlog.get_logger("pippin.proxy")


class Proxy:
    """POST handler of the OpenAI paths that name a model in a JSON body, or in a form."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._attempts = Attempts(deps)
        self._purse = retry.Purse()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        deps = self._deps
        trace = scope["state"]["trace"] = Trace(deps.clock())
        if deps.traced is not None:
            trace.context = begin(header(scope["headers"], b"traceparent"), deps.traced)
        return self._take(scope, receive, send, trace)

    async def _take(self, scope: Scope, receive: Receive, send: Send, trace: Trace) -> None:
        deps = self._deps
        read = forms.read if scope["path"] in forms.PATHS else read_json
        received, asked, form = await read(scope, receive)
        name: str = asked["model"]
        trace.asked = name
        state = scope["state"]
        key: ApiKey = state["principal"]
        fields = state["log"]
        fields["key_id"] = key.key_id
        model = resolve(deps.catalog(), key, name)
        fields["model"] = model.ref
        asked_at = deps.clock()
        grant = await deps.admission.admit(key, model, asked, received, trace.limited)
        trace.limits_took = asked_at, deps.clock()
        body, hide_usage = sent(received, asked, form, model)
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
                prompt=Prompt(affinity.prefix(key.ref, received, model.spec.adapter), grant.tokens),
                hide_usage=hide_usage,
                told=Told() if asked.get("stream") is True and has_one_answer(asked) else None,
                form=form,
            )
            try:
                await self._guarded(call, send)
            except errors.ApiError as error:
                call.failed = error.status >= 500
                if not call.begun:
                    error.extra_headers = [*error.extra_headers, *grant.headers]
                    raise
                fields["error"], trace.said = _reason(error), error.message
                await call.end_with(error)
            finally:
                self._over(call)

    def _over(self, call: Call) -> None:
        """Whatever became of it: what it took counts."""
        deps = self._deps
        deps.waiting.ended(call.model.ref)
        took = call.took(lambda: deps.admission.prompt_tokens(call.model, call.received))
        call.settle(took)
        deps.ledger.note(call.key, call.model.ref, took)
        if call.used is not None:
            deps.telemetry.used(call.model.ref, call.key.ref, took.prompt, took.completion)
            deps.admission.learn(call.model, call.asked, call.received, call.learned(took))
            fields = call.fields
            fields["prompt_tokens"], fields["completion_tokens"], fields["cached_tokens"] = (
                call.used
            )

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
                by_ref, stays = deps.catalog().by_ref, call.key.stays
                call.others = fallback.chain(call.model, by_ref, stays=stays)
            if call.model.spec.cache is None:
                await self._answer(call, send)
            else:
                await self._answer_once(call, call.model.spec.cache, send)
        finally:
            connection.on_gone = None
            in_flight.add(label, -1)

    def _deadlines(self, model: Model, began: float, asked: dict[str, Any]) -> Deadlines:
        times = budget(model.spec.timeouts, self._deps.defaults)
        return Deadlines(times, began, asked.get("stream") is True)

    async def _answer_once(self, call: Call, policy: CachePolicy, send: Send) -> None:
        """As before, if it was answered before. Streams do not wait for another's."""
        cache, model = self._deps.cache, call.model
        name = digest(call.scope["path"], call.asked, call.key, model)
        if name is None:
            await self._answer(call, send)
        elif call.asked.get("stream") is True:
            await self._replay_or_record(call, name, policy, send)
        else:
            with _in_time(call):
                async with cache.flight(name):
                    await self._replay_or_record(call, name, policy, send)

    async def _replay_or_record(
        self, call: Call, name: bytes, policy: CachePolicy, send: Send
    ) -> None:
        cache, model = self._deps.cache, call.model
        stored = await cache.find(name, model, policy)
        call.fields["cache"] = "hit" if stored else "miss"
        self._deps.telemetry.response_cache(model.ref, call.fields["cache"]).inc()
        if stored is not None:
            await replay(stored, send, call.request_id, call.grants[0].headers)
            return
        recorder = cache.recorder(send, call.request_id, model)
        await self._answer(call, recorder)
        if not (call.failed or call.trace.passed_over or call.early):
            cache.put(name, model, policy, recorder)

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
                if not call.others or call.begun or not fallback.helps(error.status, why):
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
        call.renew = lambda: fallback.now(model, deps.catalog().by_ref)
        call.deadlines = self._deadlines(model, call.began, call.asked)

    async def _ask(self, call: Call, send: Send) -> None:
        """Try the model's replicas until one answers, and pass its answer on. Raises ApiError while
        nothing was sent."""
        self._deps.demand.asked(call.model.ref, call.began)
        attempt = 1
        while True:
            replica = None if self._stands_back(call) else self._pick(call)
            if replica is None:
                replica = await self._wait(call, send)
            try:
                elsewhere = partial(self._may_ask_another, call, attempt)
                await self._attempts.one(call, replica, elsewhere, call.early or send)
                return
            except UpstreamFailure as failure:
                self._attempts.failed(call, replica, failure)
                if not self._again(call, failure, attempt):
                    raise told(failure) from failure
                self._deps.telemetry.retries(call.model.ref, failure.kind).inc()
                await self._pause(call)
                call.model = call.renew()
                attempt += 1

    def _pick(self, call: Call) -> Replica | None:
        """From the replicas as they are now; None: there is none, but one may come soon.
        Raises errors.NotReady, ModelNotFound."""
        balance, model, now = self._deps.balance, call.model, self._deps.clock()
        replica = balance.pick(model.replicas, call.tried, now, model.spec.breaker, call.prompt)
        if replica is not None:
            return replica
        if model.replicas:
            wait = balance.breakers.wait(model.replicas, model.spec.breaker, now)
            raise all_broken(model, wait)
        if call.others or not may_come(model.spec):
            raise nobody_ready(model)
        return None

    async def _wait(self, call: Call, send: Send) -> Replica:
        """Until the model has a replica, for as long as it may take one to come. The client of a
        stream hears that it waits. Raises errors.NotReady, ModelNotFound."""
        deps, label = self._deps, (call.model.ref,)
        began = deps.clock()
        until = call.deadlines.replica(began)
        if deps.waiting.full or until <= began:
            return self._pick_or_refuse(call)
        if call.early is None and call.asked.get("stream") is True:
            call.early = Early(send, call.grants[0].headers)
        deps.telemetry.waiting.add(label)
        try:
            with _in_time(call):
                return await self._come(call, until)
        except asyncio.CancelledError:  # the client left, or the time to drain is over
            if call.begun and not call.guard.left:
                await call.end_with(GOING)
            raise
        finally:
            deps.telemetry.waiting.add(label, -1)
            call.trace.waited += deps.clock() - began

    def _stands_back(self, call: Call) -> bool:
        """Whether others of its key, who waited for the replica to come, go first."""
        if call.tried or call.others or not call.model.replicas:
            return False
        return self._deps.waiting.holds(call.model.ref, call.key.ref)

    async def _come(self, call: Call, until: float) -> Replica:
        while self._deps.clock() < until:
            with self._deps.waiting.place(call.model.ref, call.key.ref) as called:
                await self._stand(call, called, until)
            call.model = call.renew()
            replica = self._pick(call)
            if replica is not None:
                return replica
        return self._pick_or_refuse(call)

    async def _stand(self, call: Call, called: asyncio.Future[None], until: float) -> None:
        """In the line, until it is called or late."""
        clock = self._deps.clock
        while not called.done() and (left := until - clock()) > 0:
            await asyncio.wait({called}, timeout=min(BEAT, left))
            call.model = call.renew()
            if call.early is not None and not called.done():
                why = why_nobody(call.model.spec) if not call.model.replicas else "others go first"
                await call.early.comment(f"waiting for a replica: {why}")

    def _pick_or_refuse(self, call: Call) -> Replica:
        """Raises errors.NotReady, ModelNotFound."""
        replica = self._pick(call)
        if replica is None:
            raise nobody_ready(call.model)
        return replica

    def _again(self, call: Call, failure: UpstreamFailure, attempt: int) -> bool:
        """Whether there is another try: allowed, affordable, and somebody to ask."""
        kind = Failure.UNAVAILABLE if failure.resumable else failure.kind
        if not retry.again(kind, attempt, call.model.spec.retries):
            return False
        if not self._another(call):
            if not retry.never_asked(kind) or call.others:
                return False
            call.tried.clear()  # there is only this one, and it may be about to listen
        return self._purse.spend()

    def _may_ask_another(self, call: Call, attempt: int) -> bool:
        policy = call.model.spec.retries
        return retry.again(Failure.UNAVAILABLE, attempt, policy) and self._another(call)

    async def _pause(self, call: Call) -> None:
        """Before the next try; not the same for all that failed at one moment."""
        backoff = call.model.spec.retries.backoff
        if not call.tried:
            backoff = max(backoff, SAME_AGAIN)
        if not backoff:
            return
        with _in_time(call):
            await asyncio.sleep(random.uniform(backoff / 2, backoff))

    def _another(self, call: Call) -> bool:
        model = call.renew()
        allows, now = self._deps.balance.breakers.allows, self._deps.clock()
        return any(
            replica.id not in call.tried and allows(replica, model.spec.breaker, now)
            for replica in model.replicas
        )


@contextmanager
def _in_time(call: Call) -> Iterator[None]:
    """A wait that ends with the time of the whole request. Raises ApiError then."""
    call.guard.until(call.deadlines.end())
    try:
        yield
    except asyncio.CancelledError as cancelled:
        late = call.guard.expired()
        if late is None:
            raise
        raise told(late) from cancelled


def _reason(error: errors.ApiError) -> str:
    """How metrics and headers call why a model did not answer."""
    cause = error.__cause__
    return str(cause.kind) if isinstance(cause, UpstreamFailure) else error.code
