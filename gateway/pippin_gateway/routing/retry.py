"""Whether a request that failed may go to another replica.

Only before the first byte went to the client, only once, and only where nobody computed an
answer: a replica that could not be reached, that hung up before it answered, or that said 503
because it drains or is full. A late first token is not retried: its time is spent.
"""

from __future__ import annotations

from enum import StrEnum

ATTEMPTS = 2


class Failure(StrEnum):
    """How an upstream can fail; also the `kind` label of the metric."""

    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    RESET = "reset"
    UNAVAILABLE = "unavailable"
    PROTOCOL = "protocol"
    REFUSED_TOKEN = "refused_token"
    BAD_ANSWER = "bad_answer"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    CUT = "cut"


_ELSEWHERE = frozenset(
    {Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.RESET, Failure.UNAVAILABLE}
)


def again(failure: Failure, attempt: int) -> bool:
    """Whether attempt number `attempt` (from 1) may be followed by another."""
    return attempt < ATTEMPTS and failure in _ELSEWHERE


def blames_replica(failure: Failure) -> bool:
    """Whether the replica is worth passing over for a moment."""
    return failure in _ELSEWHERE
