"""What the gateway knows as bytes, signed: to be read again by a gateway of the same key.

Pure. Only who holds the key can write what is taken for true, so write access to the volume mints
no API key. There are digests in it, as in an APIKey's status, and no key.

A line with the format and the signature of all that follows, one with the head, one with each
object.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from pippin_contract import __version__

from .kinds import KINDS, Kind, Known
from .model import KeySpec, ModelSpec, PodState

FORMAT = b"pippin-gateway-snapshot/1"
#: For whoever derives the key: no signature of any other kind is made with it.
PURPOSE = b"pippin.dev/gateway-snapshot/1"
#: Of a whole snapshot. Some 50,000 keys; the volume must hold two.
MAX_BYTES = 32 * 1024 * 1024
#: Seconds by which a clock may have been put right since.
LEEWAY = 10.0

_EACH: dict[Kind, TypeAdapter[Any]] = {
    "apikeys": TypeAdapter(tuple[tuple[str, str], KeySpec]),
    "modeldeployments": TypeAdapter(tuple[tuple[str, str], ModelSpec]),
    "pods": TypeAdapter(tuple[tuple[str, str], PodState]),
}
_AGAIN = "the gateway writes another one as soon as the API server answers"

log = structlog.get_logger("pippin.snapshot")


class Unusable(Exception):
    """Why a snapshot is not taken, and what to do."""


class TooLarge(Exception):
    """What is known is more than a snapshot holds."""


def shape() -> str:
    """Another one wherever the fields of what is kept are others: what a field is missing from
    would be taken for its default."""
    schemas = [_EACH[kind].json_schema() for kind in KINDS]
    return hashlib.sha256(orjson.dumps(schemas, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


_MADE_BY = {"version": __version__, "shape": shape()}


def encode(known: Known, key: bytes) -> bytes:
    """Raises TooLarge. In steps, so that a thread that does it lets others run."""
    whole = bytearray()
    for line in _lines(known):
        whole += line
        whole += b"\n"
        if len(whole) > MAX_BYTES:
            raise TooLarge(f"what is known takes more than {MAX_BYTES // 2**20} MiB")
    return b"%s %s\n%s" % (FORMAT, _signature(whole, key), whole)


def decode(raw: bytes, key: bytes) -> Known:
    """Raises Unusable."""
    first, _, rest = raw.partition(b"\n")
    form, _, signature = first.partition(b" ")
    if form != FORMAT:
        raise Unusable(f"it is no snapshot that this version reads: {_AGAIN}")
    if not hmac.compare_digest(signature, _signature(rest, key)):
        raise Unusable(f"it is damaged, or was not signed with this gateway's key: {_AGAIN}")
    head, *lines = rest.split(b"\n")
    try:
        return _read(orjson.loads(head), iter(lines))
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"it makes no sense: {_AGAIN}") from error


def require_young(known: Known, now: float, most: float) -> None:
    """`now` in Unix seconds. Raises Unusable."""
    times = known.current_at.values()
    if max(times) > now + LEEWAY:
        raise Unusable(f"it is from the future: set this machine's clock; {_AGAIN}")
    if now - min(times) > most:
        raise Unusable(
            f"it is older than {most:g} s (maxStalenessSeconds): bring the API server back"
        )


def _signature(content: bytes | bytearray, key: bytes) -> bytes:
    return hmac.new(key, FORMAT + b"\n" + content, hashlib.sha256).hexdigest().encode()


def _lines(known: Known) -> Iterator[bytes]:
    counts = {kind: len(known.objects[kind]) for kind in KINDS}
    yield orjson.dumps({**_MADE_BY, "current_at": dict(known.current_at), "counts": counts})
    for kind in KINDS:
        for item in known.objects[kind].items():
            yield _EACH[kind].dump_json(item, warnings=False)


def _read(head: dict[str, Any], lines: Iterator[bytes]) -> Known:
    if {name: head[name] for name in _MADE_BY} != _MADE_BY:
        raise Unusable(f"another version of Pippin wrote it: {_AGAIN}")
    objects = {kind: dict(_some(kind, head["counts"][kind], lines)) for kind in KINDS}
    return Known(objects, {kind: float(head["current_at"][kind]) for kind in KINDS})


def _some(kind: Kind, count: int, lines: Iterator[bytes]) -> Iterator[tuple[tuple[str, str], Any]]:
    """The next of a kind. One that nobody can read is left out, as in a list: a key is refused."""
    for _, line in zip(range(count), lines, strict=False):
        try:
            yield _EACH[kind].validate_json(line)
        except ValidationError:
            log.warning("snapshot.left_out", kind=kind, object=line[:100].decode(errors="replace"))
