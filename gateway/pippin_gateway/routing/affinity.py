"""Which replica has probably computed the beginning of a prompt already.

Every gateway comes to the same one, without a word between them, and a replica that comes or goes
moves its own prompts only: rendezvous hashing, which looks at each replica, where there are few,
and a ring where there are many. Pure.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, repeat

from ..catalog.model import Replica

#: Bytes of a request by which prompts count as beginning alike; shorter ones are soon computed.
BEGINNING = 1024
#: A replica is preferred until it has that much more than its share of the requests under way.
BOUND = 1.25

#: Places of each replica on a ring.
POINTS = 64

_WORD = (1 << 64) - 1
_BITS = 16
_NUMBER = (1 << _BITS) - 1


def prefix(key: str, body: bytes, adapter: str = "") -> int | None:
    """What prompts of one key that begin alike have in common, if the same adapter reads them;
    None: too short to matter."""
    if len(body) < BEGINNING:
        return None
    digest = blake2b(body[:BEGINNING], digest_size=8, key=key.encode()[:64])
    if adapter:  # bodies often name the model at their end
        digest.update(adapter.encode())
    return int.from_bytes(digest.digest(), "little")


def ranked(beginning: int, replicas: Sequence[Replica]) -> list[Replica]:
    """The likeliest to know it first."""
    return sorted(replicas, key=lambda replica: mixed(beginning ^ _mark(replica.id)))


@lru_cache(maxsize=64)
def ring(ids: tuple[str, ...]) -> tuple[int, ...]:
    """Places of many replicas in their order; in the lowest bits of each the replica's number."""
    numbered = enumerate(ids)
    return tuple(
        sorted(place << _BITS | number for number, one in numbered for place in _places(one))
    )


def homes(
    beginning: int, replicas: Sequence[Replica], places: tuple[int, ...], most: int
) -> list[Replica]:
    """Of many, those behind the prompt's place on their ring; the likeliest to know it first."""
    start = bisect(places, mixed(beginning) << _BITS)
    found: list[Replica] = []
    for offset in range(len(places)):
        replica = replicas[places[(start + offset) % len(places)] & _NUMBER]
        if replica not in found:
            found.append(replica)
            if len(found) == most:
                break
    return found


@lru_cache(maxsize=4096)
def _places(replica_id: str) -> tuple[int, ...]:
    return tuple(accumulate(repeat(_mark(replica_id), POINTS), lambda place, _: mixed(place)))


@lru_cache(maxsize=4096)
def _mark(replica_id: str) -> int:
    return int.from_bytes(blake2b(replica_id.encode(), digest_size=8).digest(), "little")


def mixed(bits: int) -> int:
    """Others, as if by chance (splitmix64)."""
    bits = bits + 0x9E3779B97F4A7C15 & _WORD
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _WORD
    return bits ^ (bits >> 31)
