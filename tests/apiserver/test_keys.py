"""APIKeys: minted once, digested, kept in their Secret and nowhere else."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from pippin_contract import apikeys, wire
from support.eventually import eventually
from support.manifests import key
from support.operator_process import PATHS, Cluster, Operator

pytestmark = pytest.mark.usefixtures("operator")


def secret(cluster: Cluster, namespace: str, name: str = "app-apikey") -> dict[str, str]:
    data = cluster.get("secrets", namespace, name)["data"]
    return {entry: base64.b64decode(text).decode() for entry, text in data.items()}


async def phase(cluster: Cluster, namespace: str, wanted: str, **more: Any) -> dict[str, Any]:
    return await eventually(
        lambda: cluster.status("apikeys", namespace, "app"),
        until=lambda s: s.get("phase") == wanted and all(s.get(k) == v for k, v in more.items()),
    )


def patch(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> None:
    body = json.dumps({"spec": spec})
    cluster.plane.kubectl("-n", namespace, "patch", "ak/app", "--type=merge", "-p", body)


async def test_a_key_is_minted_into_its_secret_and_digested(cluster: Cluster, namespace: str):
    cluster.create("apikeys", key("app", namespace))
    status = await phase(cluster, namespace, "Active")
    held = secret(cluster, namespace)
    assert held[wire.SECRET_BASE_URL] == "http://gateway.example/v1"
    (row,) = status["keys"]
    assert apikeys.verify(held[wire.SECRET_API_KEY], row["digest"])
    assert row["id"] == status["keyId"] == apikeys.key_id(held[wire.SECRET_API_KEY])
    assert status["secretRef"] == {"name": "app-apikey", "key": "api-key"}
    (owner,) = cluster.get("secrets", namespace, "app-apikey")["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("APIKey", "app")


async def test_the_key_is_nowhere_but_in_its_secret(
    cluster: Cluster, operator: Operator, namespace: str
):
    cluster.create("apikeys", key("app", namespace))
    await phase(cluster, namespace, "Active")
    text = secret(cluster, namespace)[wire.SECRET_API_KEY]
    half = text.rsplit("_", 1)[1]
    places = {kind: yaml.safe_dump(cluster.list(kind, namespace)) for kind in PATHS}
    del places["secrets"]
    places |= {"log": operator.log.read_text(), "metrics": operator.read("/metrics")}
    encoded = base64.b64encode(text.encode()).decode()
    for place, content in places.items():
        assert not any(part in content for part in (text, half, encoded)), place


async def test_a_lost_status_is_made_again_from_the_secret(cluster: Cluster, namespace: str):
    """As after a crash between the Secret and the status."""
    cluster.create("apikeys", key("app", namespace))
    before = await phase(cluster, namespace, "Active")
    cluster.set_status("apikeys", namespace, "app", {})
    after = await phase(cluster, namespace, "Active")
    assert after["keyId"] == before["keyId"]
    assert after["keys"][0]["digest"] == before["keys"][0]["digest"]


async def test_a_deleted_secret_is_minted_anew(cluster: Cluster, namespace: str):
    cluster.create("apikeys", key("app", namespace))
    before = await phase(cluster, namespace, "Active")
    cluster.delete("secrets", namespace, "app-apikey")
    after = await eventually(
        lambda: cluster.status("apikeys", namespace, "app"),
        until=lambda s: s["keyId"] != before["keyId"],
    )
    assert [row["id"] for row in after["keys"]] == [after["keyId"]]
    assert apikeys.key_id(secret(cluster, namespace)[wire.SECRET_API_KEY]) == after["keyId"]


def rotate(cluster: Cluster, namespace: str, value: str) -> None:
    note = f"{wire.ROTATE_ANNOTATION}={value}"
    cluster.plane.kubectl("-n", namespace, "annotate", "--overwrite", "ak/app", note)


async def test_asked_by_annotation_a_new_key_comes_and_the_old_one_stays_a_while(
    cluster: Cluster, namespace: str
):
    cluster.create("apikeys", key("app", namespace))
    before = await phase(cluster, namespace, "Active")
    old = secret(cluster, namespace)[wire.SECRET_API_KEY]
    rotate(cluster, namespace, "leaked")
    after = await phase(cluster, namespace, "Rotating")
    new = secret(cluster, namespace)[wire.SECRET_API_KEY]
    newest, earlier = after["keys"]
    assert after["keyId"] == newest["id"] != before["keyId"]
    assert apikeys.verify(new, newest["digest"]) and "notAfter" not in newest
    assert apikeys.verify(old, earlier["digest"])
    ends = datetime.fromisoformat(earlier["notAfter"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) <= timedelta(hours=24)
    # The old one is not kept anywhere in plain text, and the same value asks for nothing more.
    assert old not in yaml.safe_dump(cluster.get("secrets", namespace, "app-apikey"))
    rotate(cluster, namespace, "leaked")
    patch(cluster, namespace, {"description": "touched"})
    await phase(cluster, namespace, "Rotating", observedGeneration=2, keyId=after["keyId"])
    # A lost status is made again from the Secret, with both keys.
    cluster.set_status("apikeys", namespace, "app", {})
    again = await phase(cluster, namespace, "Rotating")
    assert again["keys"] == after["keys"]


async def test_a_key_that_is_old_enough_is_replaced_and_the_old_one_ends(
    cluster: Cluster, namespace: str
):
    """Nobody touches the object: time alone replaces the key, and ends the one before."""
    quick = {"interval": "4s", "overlap": "1s"}
    cluster.create("apikeys", key("app", namespace, rotation=quick))
    first = await phase(cluster, namespace, "Active")
    second = await phase(cluster, namespace, "Rotating")
    assert [row["id"] for row in second["keys"]] == [second["keyId"], first["keyId"]]
    third = await phase(cluster, namespace, "Active")
    assert [row["id"] for row in third["keys"]] == [third["keyId"]]
    patch(cluster, namespace, {"enabled": False})
    await phase(cluster, namespace, "Disabled")


async def test_disabled_enabled_expired(cluster: Cluster, namespace: str):
    cluster.create("apikeys", key("app", namespace))
    await phase(cluster, namespace, "Active")
    patch(cluster, namespace, {"enabled": False})
    await phase(cluster, namespace, "Disabled")
    soon = (datetime.now(UTC) + timedelta(seconds=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch(cluster, namespace, {"enabled": True, "expiresAt": soon})
    status = await phase(cluster, namespace, "Active")
    assert status["keys"][0]["notAfter"] == soon
    # Nobody touches the object: time alone ends the key.
    await phase(cluster, namespace, "Expired")
    ready = cluster.condition("apikeys", namespace, "app", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Expired")


async def test_a_secret_by_another_name(cluster: Cluster, namespace: str):
    cluster.create("apikeys", key("app", namespace, secretName="the-key"))
    await phase(cluster, namespace, "Active")
    assert secret(cluster, namespace, "the-key")[wire.SECRET_API_KEY].startswith("pp_")


async def test_somebody_elses_secret_is_not_taken_over(cluster: Cluster, namespace: str):
    theirs = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "app-apikey", "namespace": namespace},
        "stringData": {"api-key": "x" * 40},
    }
    cluster.create("secrets", theirs)
    cluster.create("apikeys", key("app", namespace))
    await phase(cluster, namespace, "Error")
    ready = cluster.condition("apikeys", namespace, "app", "Ready")
    assert ready["reason"] == "SecretNameTaken"
    assert "spec.secretName" in ready["message"]
    assert secret(cluster, namespace) == {"api-key": "x" * 40}


async def test_a_key_of_ones_own_is_digested_and_never_written(cluster: Cluster, namespace: str):
    cluster.create(
        "apikeys", key("app", namespace, existingSecretRef={"name": "mine", "key": "token"})
    )
    await phase(cluster, namespace, "Error")
    assert (await ready_reason(cluster, namespace, "SecretNotFound"))["status"] == "False"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mine", "namespace": namespace},
        "stringData": {"token": "too short"},
    }
    cluster.create("secrets", body)
    short = await ready_reason(cluster, namespace, "KeyTooShort")
    assert "at least 32 characters" in short["message"]
    own = "my-own-key-0123456789-0123456789-abc"
    write(cluster, namespace, {"token": own})
    status = await phase(cluster, namespace, "Active")
    assert apikeys.verify(own, status["keys"][0]["digest"])
    live = cluster.get("secrets", namespace, "mine")
    assert "ownerReferences" not in live["metadata"]
    write(cluster, namespace, {"token": None})
    await ready_reason(cluster, namespace, "SecretKeyMissing")
    # What is no longer held is no longer good.
    assert "keys" not in cluster.status("apikeys", namespace, "app")


async def ready_reason(cluster: Cluster, namespace: str, reason: str) -> dict[str, Any]:
    return await eventually(
        lambda: cluster.condition("apikeys", namespace, "app", "Ready"),
        until=lambda c: c.get("reason") == reason,
    )


def write(cluster: Cluster, namespace: str, data: dict[str, str | None]) -> None:
    # A removed entry must go from `data`: stringData only ever adds.
    encoded = {
        k: v if v is None else base64.b64encode(v.encode()).decode() for k, v in data.items()
    }
    body = json.dumps({"data": encoded})
    cluster.plane.kubectl("-n", namespace, "patch", "secret/mine", "--type=merge", "-p", body)
