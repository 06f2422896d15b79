"""What goes wrong between gateway and replica, as one exception with one kind, and what a client
is told of it."""

from __future__ import annotations

from pippin_edge import errors

from ..routing.retry import Failure

_TOO_LATE = {
    Failure.CONNECT_TIMEOUT: "the model's server did not accept a connection in time",
    Failure.FIRST_TOKEN_TIMEOUT: "the model's server sent no token in time",
    Failure.REQUEST_TIMEOUT: "the answer took longer than an answer in one piece may take",
    Failure.IDLE_TIMEOUT: "the model's server stopped sending",
    Failure.TOTAL_TIMEOUT: "the answer took longer than this model may take",
}
_NOT_YOURS = "the caller cannot mend that: tell who runs the model, with the request id"
_OF_PROVIDERS = {
    Failure.TLS: "the model's provider shows no certificate that the gateway trusts",
    Failure.FORBIDDEN_ADDRESS: "the model's provider lies where the gateway may ask nobody",
    Failure.REFUSED_KEY: "the model's provider refuses the key that the gateway has for it",
    Failure.UNKNOWN_MODEL: "the model's provider does not know the model, or not this path",
}
#: Seconds, where a provider does not say when it takes more.
_LATER = 10.0


class UpstreamFailure(Exception):
    """The text is for the log; the client is told by kind. `retry_after`: seconds, if it said."""

    def __init__(
        self, kind: Failure, detail: str = "", *, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        #: The client has a part of the answer, and another replica may tell the rest.
        self.resumable = False
        self.retry_after = retry_after


def told(failure: UpstreamFailure) -> errors.ApiError:
    """What a client is told of a failure: what to do, not where it happened."""
    late = _TOO_LATE.get(failure.kind)
    if late is not None:
        return errors.UpstreamTimeout(f"{late}: try again, or ask for less")
    theirs = _OF_PROVIDERS.get(failure.kind)
    if theirs is not None:
        return errors.UpstreamFailed(f"{theirs}; {_NOT_YOURS}", code=f"provider_{failure.kind}")
    if failure.kind is Failure.PROVIDER_LIMIT:
        return errors.RateLimited(
            "the model's provider takes no more requests from here for now: try again later",
            retry_after=failure.retry_after or _LATER,
            code="provider_rate_limited",
        )
    if failure.kind is Failure.UNAVAILABLE:
        wait = failure.retry_after or 1
        return errors.Overloaded("the model's server is full or going: try again", retry_after=wait)
    if failure.kind is Failure.SERVER_ERROR:
        return errors.UpstreamFailed("the model's server failed on this request: try again")
    if failure.kind is Failure.DIVERGED:
        return errors.UpstreamFailed(
            "the model's server ended, and another one would have answered otherwise: try again"
        )
    if failure.kind is Failure.CUT:
        return errors.UpstreamFailed("the model's server broke off its answer: try again")
    if failure.kind in (Failure.CONNECT, Failure.RESET):
        return errors.UpstreamFailed("the model's server could not be reached: try again")
    return errors.UpstreamFailed(
        "the model's server gave an answer that the gateway does not understand: "
        "try again, and report the request id"
    )
