"""Who may call the kubelet API: asked once, remembered for a while."""

from __future__ import annotations

from typing import Any, cast

from pippin_node.access import Access, User, from_certificate, subresource
from pippin_node.client import Client

ALICE = User("alice", ("admins",))


class FakeClient:
    """Answers reviews: one good token, and what alice may do."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.allowed = {"proxy"}

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path.rpartition("/")[2])
        if path.endswith("tokenreviews"):
            good = body["spec"]["token"] == "good"
            user = {"username": "alice", "groups": ["admins"]}
            return {"status": {"authenticated": good, "user": user if good else {}}}
        attributes = body["spec"]["resourceAttributes"]
        assert (attributes["resource"], attributes["name"]) == ("nodes", "mini")
        return {"status": {"allowed": attributes["subresource"] in self.allowed}}


def access(client: FakeClient, now: list[float]) -> Access:
    return Access(cast(Client, client), "mini", lambda: now[0])


async def test_a_token_is_reviewed_once_in_a_while() -> None:
    client, now = FakeClient(), [0.0]
    subject = access(client, now)
    assert await subject.authenticate("good") == ALICE
    assert await subject.authenticate("good") == ALICE
    assert await subject.authenticate("bad") is None
    assert client.asked == ["tokenreviews"] * 2
    now[0] = 121
    assert await subject.authenticate("good") == ALICE
    assert len(client.asked) == 3


async def test_a_no_is_asked_again_sooner_than_a_yes() -> None:
    client, now = FakeClient(), [0.0]
    subject = access(client, now)
    assert await subject.allowed(ALICE, "GET", "/containerLogs/n/p/c")
    assert not await subject.allowed(ALICE, "GET", "/metrics")
    now[0] = 31
    client.allowed = {"metrics"}
    assert await subject.allowed(ALICE, "GET", "/containerLogs/n/p/c")
    assert await subject.allowed(ALICE, "GET", "/metrics")


async def test_who_may_proxy_may_ask_for_health() -> None:
    assert await access(FakeClient(), [0.0]).allowed(ALICE, "GET", "/healthz")


def test_a_client_certificate_names_user_and_groups() -> None:
    certificate = {"subject": ((("organizationName", "g1"),), (("commonName", "api"),))}
    assert from_certificate(certificate) == User("api", ("g1", "system:authenticated"))
    assert from_certificate({}) is None
    assert from_certificate(None) is None


def test_each_path_has_its_right() -> None:
    assert subresource("/metrics") == "metrics"
    assert subresource("/containerLogs/a/b/c") == "proxy"
    assert subresource("/anything") == "proxy"
