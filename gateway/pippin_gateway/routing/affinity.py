"""Which replica has probably computed the beginning of a prompt already.

Every gateway comes to the same one, without a word between them: rendezvous hashing, so a replica
that comes or goes moves its own prompts only. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from ..catalog.model import Replica

#: Bytes of a request by which prompts count as beginning alike; shorter ones are soon computed.
BEGINNING = 1024
#: A replica is preferred until it has that much more than its share of the requests under way.
BOUND = 1.25

_WORD = (1 << 64) - 1


def prefix(key: str, body: bytes) -> int | None:
    """What prompts of one key that begin alike have in common; None: too short to matter."""
    if len(body) < BEGINNING:
        return None
    digest = blake2b(body[:BEGINNING], digest_size=8, key=key.encode()[:64])
    return int.from_bytes(digest.digest(), "little")


def ranked(beginning: int, replicas: Sequence[Replica]) -> list[Replica]:
    """The likeliest to know it first."""
    return sorted(replicas, key=lambda replica: _weight(beginning, _mark(replica.id)))


def most(under_way: int, replicas: int) -> int:
    """Requests that one of so many replicas may have before the next takes its prompts."""
    return math.ceil(BOUND * (under_way + 1) / replicas)


@lru_cache(maxsize=4096)
def _mark(replica_id: str) -> int:
    return int.from_bytes(blake2b(replica_id.encode(), digest_size=8).digest(), "little")


def _weight(beginning: int, mark: int) -> int:
    """Bits of both, mixed (splitmix64)."""
    mixed = beginning ^ mark
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _WORD
    return mixed ^ (mixed >> 31)
