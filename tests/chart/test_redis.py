"""The Redis in which gateways count together: the release's own, one of yours, or none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pippin_contract import wire
from support.chart import Chart, HelmRefused, select

YOURS = "gateway.config.redisUrl=rediss://redis.example:6380/1"


def gateway_config(chart: Chart, *sets: str, preset: str = "") -> Any:
    data = chart.one("ConfigMap", "pippin-gateway", *sets, preset=preset)["data"]
    return json.loads(data["gateway.json"])


def gateway_secret(chart: Chart, *sets: str) -> str | None:
    """The Secret that the gateway has where the contract says."""
    spec = chart.one("Deployment", "pippin-gateway", *sets)["spec"]["template"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    found = [volume for volume in spec["volumes"] if volume["name"] == "redis"]
    assert (mounts.get("redis") == wire.REDIS_SECRET_DIR) == bool(found)
    return str(found[0]["secret"]["secretName"]) if found else None


def redis_objects(chart: Chart, *sets: str, preset: str = "") -> set[str]:
    objects = chart.objects(*sets, preset=preset)
    return {one["kind"] for one in objects if one["metadata"]["name"] == "pippin-redis"}


def test_by_default_the_gateways_share_the_releases_own(chart: Chart) -> None:
    assert gateway_config(chart)["redisUrl"] == "redis://pippin-redis.pippin-system.svc:6379/0"
    assert gateway_secret(chart) == "pippin-redis"
    kinds = {"StatefulSet", "Service", "ConfigMap", "Secret", "NetworkPolicy"}
    assert redis_objects(chart) == kinds


def test_yours_takes_its_place(chart: Chart) -> None:
    assert gateway_config(chart, YOURS)["redisUrl"] == "rediss://redis.example:6380/1"
    assert redis_objects(chart, YOURS) == set()
    assert gateway_secret(chart, YOURS) is None
    assert gateway_secret(chart, YOURS, "gateway.redisSecret=mine") == "mine"
    (policy,) = select(chart.objects(YOURS), "NetworkPolicy", "pippin-gateway")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert 6379 in ports


@pytest.mark.parametrize(("sets", "preset"), [(("redis.enabled=false",), ""), ((), "embedded")])
def test_without_any_each_gateway_counts_alone(
    chart: Chart, sets: tuple[str, ...], preset: str
) -> None:
    assert gateway_config(chart, *sets, preset=preset)["redisUrl"] == ""
    assert redis_objects(chart, *sets, preset=preset) == set()


def test_it_writes_down_what_it_counts_and_forgets_nothing(chart: Chart) -> None:
    config = chart.one("ConfigMap", "pippin-redis")["data"]["redis.conf"].splitlines()
    assert "save 3600 1 300 100 60 10000" in config
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(config)
    (claim,) = chart.one("StatefulSet", "pippin-redis")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    bare = chart.one("StatefulSet", "pippin-redis", "redis.storage.size=")["spec"]
    assert "volumeClaimTemplates" not in bare
    assert "emptyDir" in next(v for v in bare["template"]["spec"]["volumes"] if v["name"] == "data")


def test_its_password_is_long_and_in_no_argument(chart: Chart) -> None:
    password = base64.b64decode(chart.one("Secret", "pippin-redis")["data"]["password"])
    assert len(password) == 40
    assert not select(chart.objects("redis.existingSecret=mine"), "Secret", "pippin-redis")
    assert gateway_secret(chart, "redis.existingSecret=mine") == "mine"
    spec = chart.one("StatefulSet", "pippin-redis")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "env" not in container and "$(cat /etc/redis-secret/password)" in container["command"][2]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False


def test_nobody_but_gateways_reaches_it(chart: Chart) -> None:
    spec = chart.one("NetworkPolicy", "pippin-redis")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"} and not spec["egress"]
    ((peer,),) = (rule["from"] for rule in spec["ingress"])
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_a_password_in_the_address_is_refused(chart: Chart) -> None:
    with pytest.raises(HelmRefused, match="redisUrl"):
        chart.template("gateway.config.redisUrl=redis://:secret@redis.example:6379/0")
