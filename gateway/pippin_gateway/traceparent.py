"""Where a request belongs in a trace: W3C's traceparent, read and written. Pure but for chance.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Context:
    """Ids in hexadecimal. `parent`: the caller's span; empty when the trace begins here."""

    trace_id: str
    span_id: str
    parent: str
    sampled: bool

    def header(self, span_id: str) -> bytes:
        """What a callee is told, whose caller is this span."""
        return f"00-{self.trace_id}-{span_id}-{self.sampled:02x}".encode()


def begin(told: bytes | None, share: float) -> Context:
    """Of a request that told this traceparent. Who says whether it is recorded is who began the
    trace; here that is so for a share (0 to 1) of them."""
    parent = _FORM.fullmatch(told) if told is not None else None
    if parent is None or not _is_valid(parent):
        return Context(_hexadecimal(32), new_span(), "", random.random() < share)
    trace_id, span_id, flags = (parent[number].decode() for number in (2, 3, 4))
    return Context(trace_id, new_span(), span_id, bool(int(flags, 16) & _SAMPLED))


def new_span() -> str:
    """An id that nobody else has."""
    return _hexadecimal(16)


def _hexadecimal(digits: int) -> str:
    return f"{random.getrandbits(4 * digits) or 1:0{digits}x}"


def _is_valid(parent: re.Match[bytes]) -> bool:
    version, trace_id, span_id, _, more = parent.groups()
    known = version != b"ff" and (version != b"00" or more is None)
    return known and bool(trace_id.strip(b"0")) and bool(span_id.strip(b"0"))
