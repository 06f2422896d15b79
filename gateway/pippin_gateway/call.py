"""One request on its way, and what goes to a replica and back to the client because of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from pippin_contract.wire import (
    FALLBACK_HEADER,
    PICTURES_HEADER,
    PICTURES_PATH,
    REQUEST_ID_HEADER,
    SERVED_BY_HEADER,
)
from pippin_edge import errors, json_body
from pippin_edge.asgi import Headers, Receive, Scope, Send, header
from pippin_edge.limits.claims import key_owner, model_owner

from . import relay, usage
from .catalog.model import ApiKey, Model, Replica
from .explain import Trace
from .forms import AskedByForm
from .ledger.book import Took
from .limiting.admission import Grant
from .resume import Continuation, Told
from .routing.balance import ANY, Prompt
from .routing.retry import Failure
from .routing.timeouts import Deadlines
from .upstream import providers
from .upstream.client import Exchange
from .upstream.failure import UpstreamFailure
from .upstream.guard import Guard
from .waiting import Early

#: Headers of a client that a replica gets, beside those that are made here.
FORWARDED = frozenset({b"accept", b"traceparent", b"tracestate"})

#: Paths whose answers may be URLs.
_PICTURES = "/v1/images/"
_SERVED_BY = SERVED_BY_HEADER.encode()
_FALLBACK = FALLBACK_HEADER.encode()
_TRACEPARENT = b"traceparent"
_TYPE = b"content-type: %b\r\n"
_JSON = _TYPE % b"application/json"


@dataclass(slots=True)
class Call:
    """One request on its way."""

    scope: Scope
    #: As the client sent it, but for a form, and what the replica gets.
    received: bytes
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
    #: What was taken of the limits, to be settled.
    grants: list[Grant]
    trace: Trace
    prompt: Prompt = ANY
    #: The client did not ask for the usage that the replica tells.
    hide_usage: bool = False
    #: Of a request that is no JSON.
    form: AskedByForm | None = None
    #: As the replica told it.
    used: usage.Told | None = None
    #: It did not end well: the replica failed, or broke off.
    failed: bool = False
    #: Events that went to the client.
    events: int = 0
    tried: set[str] = field(default_factory=set)
    #: The client's side, since it waited for a replica as a stream.
    early: Early | None = None
    #: What a stream with one answer has told, and how another replica tells the rest of it.
    told: Told | None = None
    rest: Continuation | None = None
    #: When the client last heard of it, while another replica comes to where one ended.
    spoke_at: float = 0.0
    #: Models that may still answer in its place.
    others: list[Model] = field(default_factory=list)

    def keep_open(self, send: Send) -> None:
        """The client has a part of a stream: what comes now goes on with it."""
        if self.early is None:
            self.early = Early(send, [])
        self.early.begun = True

    @property
    def begun(self) -> bool:
        """Whether the client has been told a status, though there is more to come."""
        return self.early is not None and self.early.begun

    async def end_with(self, error: errors.ApiError) -> None:
        """The last event of what has begun: there is no more to come."""
        assert self.early is not None
        await self.early.fail(error, self.request_id)

    @property
    def request_id(self) -> str:
        return str(self.scope["state"]["request_id"])

    def turn_to(self, model: Model) -> None:
        """From now on it is this model's, which is not the one that was asked for."""
        self.model, self.tried = model, set()
        if self.form is not None:
            self.body = self.form.sent(self.asked, model)
        else:
            self.body, self.hide_usage = usage.ask(renamed(self.asked, model), self.asked)

    def took(self, prompt_guess: Callable[[], int]) -> Took:
        """It is over: what it took.

        An answer that broke off did not say how much that was: then its events count. One that
        never began cost nothing, unless the client left while it was made.
        """
        if self.used is not None:
            return Took(*self.used, failed=self.failed)
        if self.events or (self.guard.left and self.tried):
            return Took(prompt_guess(), self.events, failed=self.failed)
        return Took(failed=self.failed)

    def tokens_in(self, part: bytes) -> usage.Told | None:
        """The tokens that an event of a stream tells."""
        return usage.find(part) if self.form is None else usage.find_transcript(part)

    def learned(self, took: Took) -> tuple[int, int]:
        """Prompt and completion, for guesses: those of a form do not go by its bytes."""
        prompt, completion = took[:2]
        return (prompt, completion) if self.form is None else (0, prompt + completion)

    def settle(self, took: Took) -> None:
        """Correct what was taken of the limits to what it took."""
        tokens = took.prompt + took.completion
        of = {key_owner(self.key.ref): tokens, model_owner(self.model.ref): tokens}
        for grant in self.grants:
            grant.settle(of)

    def request_head(self, replica: Replica, token: str, span: str) -> bytes:
        """The request line and headers: nothing of the client's that is not on the list. `token`:
        for a provider outside, the key by which it knows us."""
        if replica.outside is not None:
            seen = header(self.scope["headers"], providers.HOPS_HEADER)
            more = [
                (providers.HOPS_HEADER, providers.hops(seen)),
                (b"content-length", b"%d" % len(self.body)),
                (REQUEST_ID_HEADER.encode(), self.request_id.encode()),
                *((name, value) for name, value in self.scope["headers"] if name == b"accept"),
            ]
            return providers.head(replica.outside, self.scope["path"], token, more)
        head = (
            f"POST {self.scope['path']} HTTP/1.1\r\nhost: {replica.endpoint.authority}\r\n"
            f"authorization: Bearer {token}\r\n"
            f"content-length: {len(self.body)}\r\n{REQUEST_ID_HEADER}: {self.request_id}\r\n"
        ).encode()
        head += _JSON if self.form is None else _TYPE % self.form.content_type
        if self.scope["path"].startswith(_PICTURES):
            head += self._pictures(replica)
        for name, value in self.scope["headers"]:
            if name in FORWARDED and not (span and name == _TRACEPARENT):
                head += name + b": " + value + b"\r\n"
        if self.trace.context is not None:
            head += _TRACEPARENT + b": " + self.trace.context.header(span) + b"\r\n"
        return head + b"\r\n"

    def _pictures(self, replica: Replica) -> bytes:
        """Where the client finds pictures that this replica keeps: at the gateway, as it was
        asked."""
        headers = dict(self.scope["headers"])
        scheme = headers.get(b"x-forwarded-proto", b"").lower()
        url = b"%b://%b%b%b/%b/" % (
            scheme if scheme in (b"http", b"https") else b"http",
            headers.get(b"host", b""),
            PICTURES_PATH.encode(),
            self.model.ref.encode(),
            replica.pod.encode(),
        )
        return b"%b: %b\r\n" % (PICTURES_HEADER.encode(), url)

    def answer_head(self, exchange: Exchange) -> Headers:
        """What the client is told before the answer."""
        head = [*relay.passed(exchange), (_SERVED_BY, exchange.replica.pod.encode())]
        if self.trace.passed_over:
            said = [f"{one.model.partition('/')[2]}={one.reason}" for one in self.trace.passed_over]
            head.append((_FALLBACK, ", ".join(said).encode()))
        return head + self.grants[0].headers


async def read_json(scope: Scope, receive: Receive) -> tuple[bytes, dict[str, Any], None]:
    """The body, and what it says. Raises ApiError, ClientGone."""
    require_json(scope)
    received = await json_body.read(receive)
    asked = json_body.parse(received)
    json_body.text(asked, "model")
    return received, asked, None


def sent(
    received: bytes, asked: dict[str, Any], form: AskedByForm | None, model: Model
) -> tuple[bytes, bool]:
    """What the model gets, since a replica does not know its namespace, and a provider not our
    names; and whether the client did not ask for the usage that is told."""
    if form is not None:
        return form.sent(asked, model), False
    known = "/" not in asked["model"] and model.spec.external is None
    return usage.ask(received if known else renamed(asked, model), asked)


def renamed(asked: dict[str, Any], model: Model) -> bytes:
    """The same request of that model."""
    return orjson.dumps({**asked, "model": model.spec.upstream_name})


def judge(exchange: Exchange) -> None:
    """Refuse answers that are not the model's answer to the client."""
    status = exchange.status
    if status in (401, 403, 407):
        raise UpstreamFailure(Failure.REFUSED_TOKEN, f"the replica answered {status}")
    if status >= 300 and (status < 400 or not relay.is_json(exchange)):
        raise UpstreamFailure(Failure.BAD_ANSWER, f"status {status}")


def require_json(scope: Scope) -> None:
    """Raises errors.UnsupportedMedia."""
    kind = header(scope["headers"], b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise errors.UnsupportedMedia(
            "send the request body as JSON, with the header 'Content-Type: application/json'"
        )
