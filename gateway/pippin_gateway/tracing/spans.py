"""A request's record as spans in OTLP's JSON: names, numbers and our own words. Pure.

https://opentelemetry.io/docs/specs/otlp/ (JSON Protobuf encoding: ids in hexadecimal, 64-bit
numbers as strings); attributes by OpenTelemetry's semantic conventions where they have a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..explain import Hop, Trace
from ..traceparent import Context, new_span

_INTERNAL, _SERVER, _CLIENT = 1, 2, 3
_FAILED = 2
#: A hop's outcome is a status or a word.
_GOOD = ("1", "2", "3", "4", "cancelled")


class Record(NamedTuple):
    """One request that is over. `wall` and `ended` are the same moment: Unix and monotonic."""

    wall: float
    ended: float
    seconds: float
    path: str
    status: int
    fields: Mapping[str, Any]
    trace: Trace
    context: Context


def payload(resource: Mapping[str, str], records: Sequence[Record]) -> dict[str, Any]:
    """The body of an export request."""
    spans = [span for record in records for span in _spans(record)]
    scope = {"scope": {"name": "pippin.gateway"}, "spans": spans}
    return {"resourceSpans": [{"resource": _attributes(resource), "scopeSpans": [scope]}]}


def _spans(record: Record) -> Iterator[dict[str, Any]]:
    trace, context = record.trace, record.context
    began = record.ended - record.seconds
    yield _request(record, began)
    if began < trace.began:
        yield _part(record, "auth", began, trace.began)
    if trace.limits_took:
        yield _part(record, "limit", *trace.limits_took)
    if trace.waited:
        first = trace.hops[0].began if trace.hops else record.ended
        yield _part(record, "queue", first - trace.waited, first)
    for hop in trace.hops:
        yield _hop(record, hop, context)


def _request(record: Record, began: float) -> dict[str, Any]:
    fields, context = record.fields, record.context
    told = {
        "http.request.method": "POST",
        "url.path": record.path,
        "http.response.status_code": record.status,
        "gen_ai.operation.name": record.path.rpartition("/")[2],
        "gen_ai.request.model": record.trace.asked[:128],
        "gen_ai.usage.input_tokens": fields.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": fields.get("completion_tokens"),
        "error.type": fields.get("error"),
        "pippin.request_id": fields.get("request_id"),
        "pippin.key": fields.get("key"),
        "pippin.model": fields.get("fallback") or fields.get("model"),
        "pippin.replica": fields.get("replica"),
        "pippin.cache": fields.get("cache"),
    }
    span = {
        **_times(record, began, record.ended),
        "traceId": context.trace_id,
        "spanId": context.span_id,
        "name": f"POST {record.path}",
        "kind": _SERVER,
        **_attributes(told),
    }
    if context.parent:
        span["parentSpanId"] = context.parent
    return span | _judged(record.status >= 500 or (record.status < 400 and "error" in fields))


def _part(record: Record, name: str, began: float, ended: float) -> dict[str, Any]:
    return {
        **_times(record, began, ended),
        "traceId": record.context.trace_id,
        "spanId": new_span(),
        "parentSpanId": record.context.span_id,
        "name": name,
        "kind": _INTERNAL,
    }


def _hop(record: Record, hop: Hop, context: Context) -> dict[str, Any]:
    told = {"pippin.model": hop.model, "pippin.replica": hop.replica, "pippin.outcome": hop.outcome}
    return {
        **_times(record, hop.began, hop.ended),
        "traceId": context.trace_id,
        "spanId": hop.span or new_span(),
        "parentSpanId": context.span_id,
        "name": "hop",
        "kind": _CLIENT,
        **_attributes(told),
        **_judged(not hop.outcome.startswith(_GOOD)),
    }


def _times(record: Record, began: float, ended: float) -> dict[str, str]:
    def unix_nano(at: float) -> str:
        return str(int((record.wall - (record.ended - at)) * 1e9))

    return {"startTimeUnixNano": unix_nano(began), "endTimeUnixNano": unix_nano(ended)}


def _judged(failed: bool) -> dict[str, Any]:
    return {"status": {"code": _FAILED}} if failed else {}


def _attributes(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attributes": [
            {
                "key": key,
                "value": {"intValue": str(value)}
                if isinstance(value, int)
                else {"stringValue": str(value)},
            }
            for key, value in told.items()
            if value is not None
        ]
    }
