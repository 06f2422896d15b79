"""The operator and the gateway name the signing keys alike."""

import base64
from typing import Any

import pytest

from pippin_contract import wire
from pippin_edge import tokens
from pippin_operator.errors import Conflict, InvalidSpec, NotFound
from pippin_operator.reconcile import signing


class Secrets:
    """One Secret, as the API server keeps it."""

    def __init__(self, *, first: dict[str, Any] | None = None) -> None:
        self.held: dict[str, Any] | None = None
        self.first = first

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any]:
        assert name == wire.SIGNING_SECRET
        if self.held is None:
            raise NotFound(404, "no such secret")
        return self.held

    async def create(self, body: dict[str, Any], resource: Any) -> dict[str, Any]:
        if self.first is not None:
            self.held, self.first = self.first, None
            raise Conflict(409, "exists")
        self.held = body
        return body

    async def apply(self, body: dict[str, Any], resource: Any, *, force: bool) -> dict[str, Any]:
        if self.first is not None:
            self.held, self.first = self.first, None
            raise Conflict(409, "changed meanwhile")
        assert self.held is not None
        assert body["metadata"] == self.held["metadata"], "labels are not ours to write"
        self.held = {**self.held, **body}
        return self.held


EMPTY = {
    "metadata": {"name": wire.SIGNING_SECRET, "namespace": "pippin-system", "resourceVersion": "7"}
}


async def keys(secrets: Any) -> Any:
    return await signing.ensure(secrets, "pippin-system")


async def test_the_gateway_knows_its_keys_by_the_same_names():
    secrets = Secrets()
    found = await keys(secrets)
    assert secrets.held is not None
    for public, entry in zip(found, (wire.SIGNING_CURRENT, wire.SIGNING_NEXT), strict=True):
        private = tokens.load_private(base64.b64decode(secrets.held["data"][entry]))
        assert public.kid == tokens.kid(private.public_key())
        assert public.pem == tokens.public_pem(private.public_key())


async def test_a_server_believes_what_the_gateway_signs():
    secrets = Secrets()
    found = await keys(secrets)
    assert secrets.held is not None
    pem = base64.b64decode(secrets.held["data"][wire.SIGNING_CURRENT])
    token = tokens.Signer(pem, lambda: 1000.0).token("ns/md", "ns/key")
    verifier = tokens.Verifier({key.kid: key.pem for key in found}, "ns/md")
    assert verifier.verify(token, 1000.0).key == "ns/key"


async def test_keys_are_made_once():
    secrets = Secrets()
    assert await keys(secrets) == await keys(secrets)


async def test_who_is_second_takes_the_firsts_keys():
    other = Secrets()
    expected = await keys(other)
    assert await keys(Secrets(first=other.held)) == expected


async def test_an_empty_secret_of_the_charts_is_filled():
    secrets = Secrets()
    secrets.held = EMPTY
    found = await keys(secrets)
    assert await keys(secrets) == found
    assert secrets.held["metadata"] == EMPTY["metadata"]


async def test_who_fills_second_takes_the_firsts_keys():
    other = Secrets()
    expected = await keys(other)
    secrets = Secrets(first=other.held)
    secrets.held = EMPTY
    assert await keys(secrets) == expected


async def test_a_secret_that_holds_no_key_is_named_with_the_fix():
    secrets = Secrets()
    secrets.held = {"data": {wire.SIGNING_CURRENT: base64.b64encode(b"x").decode()}}
    with pytest.raises(InvalidSpec, match=f"{wire.SIGNING_CURRENT}: delete the Secret"):
        await keys(secrets)
