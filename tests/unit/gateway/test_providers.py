"""What the gateway makes of a provider's words, without asking one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pippin_contract import addresses
from pippin_edge.errors import BadRequest, UpstreamFailed
from pippin_gateway.catalog.kinds import KINDS, Known
from pippin_gateway.catalog.model import assemble
from pippin_gateway.catalog.objects import Malformed, parse_key, parse_model
from pippin_gateway.catalog.snapshot import decode, encode
from pippin_gateway.upstream.providers import head, hops, named, told
from support.gateway import key_object, model_object, new_key

KEY = "sk-of-the-provider"


@pytest.mark.parametrize(
    ("body", "words", "error"),
    [
        (
            b'{"error":{"message":"max_tokens is too large","type":"x","param":"max_tokens",'
            b'"code":"integer_above_max_value"}}',
            "max_tokens is too large",
            ("max_tokens", "integer_above_max_value"),
        ),
        (b'{"error":{"code":400,"message":"no","type":"x"}}', "no", (None, "invalid_request")),
        (b'{"error":"no tools"}', "no tools", (None, "invalid_request")),
        (b'{"object":"error","message":"too long","code":400}', "too long", (None, None)),
        (b'{"detail":"Not valid"}', "Not valid", (None, None)),
        (b'{"detail":[{"loc":["body"]}]}', "refuses this with 400", (None, None)),
        (b'{"error":{}}', "refuses this with 400", (None, None)),
        (b"[]", "refuses this with 400", (None, None)),
        (b"<html>Bad Request</html>", "refuses this with 400", (None, None)),
        (f'{{"error":"{KEY} is odd"}}'.encode(), "… is odd", (None, None)),
    ],
)
def test_refusals_in_every_envelope_are_told_in_ours(
    body: bytes, words: str, error: tuple[str | None, str | None]
) -> None:
    made = told(400, body, KEY)
    assert words in made.message and KEY not in made.message
    assert (made.status, made.param) == (400, error[0])
    assert made.code == (error[1] or "invalid_request")


def test_a_refusal_keeps_its_status_where_there_is_one_of_ours() -> None:
    assert [told(status, b"", "").status for status in (400, 409, 413, 415, 422)] == [
        *(400, 400, 413, 415, 400)
    ]
    assert len(told(400, orjson.dumps({"error": "x" * 9999}), "").message) == 1000


@pytest.mark.parametrize(
    "part",
    [
        b'{"id":"1","model":"big-1-2026","choices":[]}',
        b'{"id":"1", "model": "big \\"1\\"", "choices":[]}',
        b'data: {"model":"big","choices":[]}\n\ndata: {"model":"big"}\n\n',
    ],
)
def test_an_answer_gets_the_name_that_was_asked_for(part: bytes) -> None:
    found = named(part, 'cl"oud')
    for event in found.removeprefix(b"data: ").split(b"\n\ndata: "):
        assert orjson.loads(event.strip())["model"] == 'cl"oud'


def test_text_that_speaks_of_models_stays_as_it_is() -> None:
    part = orjson.dumps({"model": "big", "content": 'say {"model": "big"} to me'})
    assert orjson.loads(named(part, "cloud"))["content"] == 'say {"model": "big"} to me'


def test_a_request_goes_through_some_gateways_and_not_in_circles() -> None:
    assert [hops(seen) for seen in (None, b"1", b"3", b"x", b"-1")] == [
        *(b"1", b"2", b"4", b"1", b"1")
    ]
    with pytest.raises(UpstreamFailed, match="leads back"):
        hops(b"4")


def external(**more: Any) -> dict[str, Any]:
    return {"type": "external", "external": {"url": "https://api.example.com", **more}}


def test_a_provider_is_one_replica_whatever_pods_there_are() -> None:
    spec = parse_model(model_object(engine=external()))
    assert spec is not None
    (model,) = assemble([], [spec], []).by_ref.values()
    (replica,) = model.replicas
    assert replica.outside == spec.external
    assert (replica.endpoint.host, replica.endpoint.port) == ("api.example.com", 443)
    moved = parse_model(model_object(engine=external(url="https://other.example.com")))
    assert moved is not None
    (other,) = assemble([], [moved], []).replica_ids
    assert other != replica.id, "with a breaker and connections of its own"


@pytest.mark.parametrize(
    "broken", [{"url": "file:///etc/passwd"}, {"url": None}, {"apiKeySecretRef": {"name": "x"}}]
)
def test_what_makes_no_sense_is_left_out(broken: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_model(model_object(engine=external(**broken)))


@pytest.mark.parametrize(
    ("egress", "stays"), [(None, False), ("Allow", False), ("Deny", True), ("Newer", True)]
)
def test_only_allow_is_leave_to_go(egress: str | None, stays: bool) -> None:
    found = parse_key(key_object(new_key(), egress=egress))
    assert found is not None and found.principal.stays is stays


def test_without_a_word_private_networks_are_allowed_and_this_machine_is_not() -> None:
    inside = addresses.networks(addresses.PRIVATE)

    def allowed(text: str, *, public: bool) -> bool:
        (network,) = addresses.networks([text])
        return addresses.allows(network.network_address, inside, public=public)

    for text in ("10.1.2.3", "192.168.1.20", "172.20.0.1", "100.64.0.1", "fd12::1"):
        assert allowed(text, public=True) and allowed(text, public=False)
    for text in ("127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "fd00:ec2::254"):
        assert not allowed(text, public=True) and not allowed(text, public=False)
    assert allowed("1.1.1.1", public=True) and not allowed("1.1.1.1", public=False)


def test_a_snapshot_keeps_where_providers_are_and_none_of_their_keys() -> None:
    spec = parse_model(model_object(engine=external(apiKeySecretRef={"name": "s", "key": "k"})))
    none: dict[Any, Any] = {}
    models = {("team-a", "qwen"): spec}
    now = dict.fromkeys(KINDS, 0.0)
    known = Known({"apikeys": none, "modeldeployments": models, "pods": none}, now)
    assert decode(encode(known, b"key"), b"key").objects["modeldeployments"] == models


def test_pictures_and_recordings_are_not_sent_to_a_provider() -> None:
    spec = parse_model(model_object(engine=external()))
    assert spec is not None and spec.external is not None
    assert head(spec.external, "/v1/embeddings", "", []).startswith(b"POST ")
    for path in ("/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions"):
        with pytest.raises(BadRequest):
            head(spec.external, path, "", [])
