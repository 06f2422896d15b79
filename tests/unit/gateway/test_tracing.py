"""Where a request belongs in a trace, and what a collector reads of it."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pippin_gateway.explain import Hop, Trace
from pippin_gateway.traceparent import Context, begin
from pippin_gateway.tracing.spans import Record, payload

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOLD = f"00-{TRACE}-{PARENT}-01".encode()


def test_a_callers_trace_goes_on() -> None:
    context = begin(TOLD, share=0)
    assert (context.trace_id, context.parent, context.sampled) == (TRACE, PARENT, True)
    assert context.header("00f067aa0ba902b7") == f"00-{TRACE}-00f067aa0ba902b7-01".encode()


def test_what_a_caller_does_not_record_is_not_recorded_here() -> None:
    assert not begin(TOLD[:-2] + b"00", share=1).sampled


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert begin(b"cc" + TOLD[2:] + b"-what-is-new", share=0).trace_id == TRACE


@pytest.mark.parametrize(
    "told",
    [
        None,
        b"",
        b"nonsense",
        b"ff" + TOLD[2:],
        TOLD + b"-more",
        TOLD.upper(),
        b"00-" + b"0" * 32 + b"-" + PARENT.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
    ],
)
def test_anything_else_begins_a_trace(told: bytes | None) -> None:
    context = begin(told, share=1)
    assert context.sampled and not context.parent
    assert context.trace_id != TRACE and int(context.trace_id, 16)
    assert begin(context.header(context.span_id), share=0).trace_id == context.trace_id


@given(st.binary(max_size=80))
def test_no_header_is_too_odd(told: bytes) -> None:
    assert len(begin(told, share=0.5).trace_id) == 32


def read(record: Record) -> list[Span]:
    """As a collector does."""
    request = json_format.Parse(
        orjson.dumps(payload({"service.name": "pippin-gateway"}, [record])),
        ExportTraceServiceRequest(),
    )
    (resource,) = request.resource_spans
    assert resource.resource.attributes[0].value.string_value == "pippin-gateway"
    return list(resource.scope_spans[0].spans)


def a_record(**over: Any) -> Record:
    trace = Trace(began=100.01, asked="qwen", limits_took=(100.02, 100.03), waited=0.5)
    trace.hop(Hop("a/qwen", "qwen-0", 100.6, 100.7, "reset", "1111111111111111"))
    trace.hop(Hop("a/qwen", "qwen-1", 100.7, 101.0, "200", "2222222222222222"))
    fields = {"key": "a/app", "model": "a/qwen", "prompt_tokens": 7, "completion_tokens": 2}
    context = Context(TRACE, "00f067aa0ba902b7", PARENT, sampled=True)
    record = Record(
        1_800_000_001.0, 101.0, 1.0, "/v1/chat/completions", 200, fields, trace, context
    )
    return record._replace(**over)


def test_a_collector_reads_the_request_and_its_parts() -> None:
    root, *parts = read(a_record())
    # OTLP's JSON has ids in hexadecimal where protobuf's has base64: encoded, it is the text again.
    assert base64.b64encode(root.trace_id).decode() == TRACE
    assert base64.b64encode(root.parent_span_id).decode() == PARENT
    assert root.kind == Span.SPAN_KIND_SERVER
    assert root.end_time_unix_nano - root.start_time_unix_nano == pytest.approx(1e9, rel=1e-6)
    told = {one.key: one.value for one in root.attributes}
    assert told["gen_ai.request.model"].string_value == "qwen"
    assert told["gen_ai.usage.input_tokens"].int_value == 7
    assert [part.name for part in parts] == ["auth", "limit", "queue", "hop", "hop"]
    assert {part.parent_span_id for part in parts} == {root.span_id}
    lost, served = parts[-2:]
    assert lost.status.code == Status.STATUS_CODE_ERROR and not served.status.code
    assert all(root.start_time_unix_nano <= part.start_time_unix_nano for part in parts)


def test_an_error_is_one() -> None:
    root, *_ = read(a_record(status=503, fields={"error": "no_ready_replicas"}))
    assert root.status.code == Status.STATUS_CODE_ERROR
    refused, *_ = read(a_record(status=429, fields={"error": "rate_limited"}))
    assert not refused.status.code, "who asks too much is no failure of the server"
