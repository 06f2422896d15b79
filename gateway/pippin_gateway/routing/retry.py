"""Whether a request that failed may go to another replica.

Only before the first byte went to the client, and only where nobody computed an answer: a replica
that could not be reached, that hung up before it answered, or that said 503 because it drains or is
full. A late first token is not retried: its time is spent.
"""

from __future__ import annotations

from enum import StrEnum

from ..catalog.model import RetryPolicy

#: Further tries for each request, in the long run.
SHARE = 0.2
#: Further tries that a quiet gateway has at once.
FULL = 50.0


class Failure(StrEnum):
    """How an upstream can fail; also the `kind` label of the metric."""

    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    RESET = "reset"
    UNAVAILABLE = "unavailable"
    PROTOCOL = "protocol"
    REFUSED_TOKEN = "refused_token"
    BAD_ANSWER = "bad_answer"
    SERVER_ERROR = "server_error"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    CUT = "cut"
    DIVERGED = "diverged"
    # Of providers outside: no certificate to trust, an address that may not be asked, our key or
    # its name of the model not known there, more than it lets us.
    TLS = "tls"
    FORBIDDEN_ADDRESS = "forbidden_address"
    REFUSED_KEY = "refused_key"
    UNKNOWN_MODEL = "unknown_model"
    PROVIDER_LIMIT = "provider_limit"


_ELSEWHERE = frozenset(
    {Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.RESET, Failure.UNAVAILABLE}
)


def again(failure: Failure, attempt: int, policy: RetryPolicy) -> bool:
    """Whether attempt number `attempt` (from 1) may be followed by another."""
    return attempt < policy.attempts and failure in _ELSEWHERE


def may_resume(failure: Failure) -> bool:
    """Whether a stream that broke off like this may go on at another replica."""
    return failure not in (Failure.TOTAL_TIMEOUT, Failure.DIVERGED)


def never_asked(failure: Failure) -> bool:
    """Whether the replica cannot have seen the request, so that it may be asked once more."""
    return failure is Failure.CONNECT


class Purse:
    """Further tries cost; requests earn them. So retries stay a share of the traffic, and replicas
    that all fail are not asked twice as often as those that do not.
    """

    def __init__(self) -> None:
        self._held = FULL

    def earn(self) -> None:
        """One request more."""
        self._held = min(FULL, self._held + SHARE)

    def spend(self) -> bool:
        """One further try, if there is enough for it."""
        if self._held < 1:
            return False
        self._held -= 1
        return True


def blames_replica(failure: Failure) -> bool:
    """Whether the replica is worth passing over for a moment."""
    return failure in _ELSEWHERE
