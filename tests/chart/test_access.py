"""Who may do what, and who may talk to whom."""

from __future__ import annotations

from typing import Any

import pytest

from pippin_contract import wire
from pippin_node.kubelet_api import NODE_PORT
from support.chart import Chart, select

READ = {"get", "list", "watch"}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}
Rights = dict[tuple[str, str], set[str]]

FOLLOW = {"list", "watch"}
OPERATOR: Rights = {
    ("pippin.dev", "modeldeployments"): FOLLOW,
    ("pippin.dev", "apikeys"): FOLLOW,
    ("pippin.dev", "modeldeployments/status"): {"patch"},
    ("pippin.dev", "apikeys/status"): {"patch"},
    ("pippin.dev", "modeldeployments/finalizers"): {"update"},
    ("pippin.dev", "apikeys/finalizers"): {"update"},
    ("apps", "deployments"): READ | {"create", "patch", "delete"},
    ("", "services"): READ | {"create", "patch", "delete"},
    ("", "configmaps"): READ | {"create", "patch", "delete"},
    ("monitoring.coreos.com", "servicemonitors"): {"get", "list", "create", "patch", "delete"},
    ("", "pods"): FOLLOW,
    ("", "persistentvolumeclaims"): {"get", "create", "patch"},
    ("", "secrets"): {"get", "create", "patch"},
    ("events.k8s.io", "events"): {"list", "create"},
}
GATEWAY: Rights = {
    ("pippin.dev", "modeldeployments"): FOLLOW,
    ("pippin.dev", "apikeys"): FOLLOW,
    ("", "pods"): FOLLOW,
}


def rights(role: Any) -> Rights:
    found: Rights = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize(("part", "expected"), [("operator", OPERATOR), ("gateway", GATEWAY)])
def test_a_part_has_the_rights_that_it_needs_and_no_other(
    chart: Chart, part: str, expected: Rights
) -> None:
    objects = chart.objects()
    (role,) = select(objects, "ClusterRole", f"pippin-{part}")
    assert rights(role) == expected
    roles = {role["metadata"]["name"] for role in select(objects, "ClusterRole")}
    assert roles == {"pippin-operator", "pippin-gateway", "pippin-viewer", "pippin-editor"}
    (binding,) = select(objects, "ClusterRoleBinding", f"pippin-{part}")
    assert binding["roleRef"]["name"] == f"pippin-{part}"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": f"pippin-{part}", "namespace": "pippin-system"}
    ]


def test_nobody_may_list_secrets_or_everything(chart: Chart) -> None:
    for role in select(chart.objects(), "ClusterRole"):
        for (_, resource), verbs in rights(role).items():
            assert "*" not in {resource, *verbs}
            assert resource != "secrets" or not verbs & {"list", "watch"}


def test_users_get_their_rights_through_the_roles_they_have(chart: Chart) -> None:
    objects = chart.objects()
    (viewer,) = select(objects, "ClusterRole", "pippin-viewer")
    (editor,) = select(objects, "ClusterRole", "pippin-editor")
    assert aggregated(viewer) == {"view", "edit", "admin"}
    assert aggregated(editor) == {"edit", "admin"}
    assert set().union(*rights(viewer).values()) == READ
    for plural in (wire.MODELDEPLOYMENTS, wire.APIKEYS):
        assert rights(editor)[(wire.GROUP, plural)] == READ | WRITE
        # Status is the operator's word, also against an editor.
        assert rights(editor)[(wire.GROUP, f"{plural}/status")] == {"get"}
    assert "update" in rights(editor)[(wire.GROUP, "modeldeployments/scale")]
    without = chart.objects("rbac.userRoles=false")
    assert {r["metadata"]["name"] for r in select(without, "ClusterRole")} == {
        "pippin-operator",
        "pippin-gateway",
    }


def aggregated(role: Any) -> set[str]:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    return {
        key.removeprefix(prefix)
        for key, value in role["metadata"]["labels"].items()
        if key.startswith(prefix) and value == "true"
    }


def test_tokens_are_mounted_by_the_pod_that_asks(chart: Chart) -> None:
    for account in select(chart.objects(), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


SERVER_LABELS = {wire.LABEL_NAME: wire.SERVER_APP, wire.LABEL_MANAGED_BY: wire.MANAGER}


def test_server_pods_hear_only_the_gateway_and_the_scraper(chart: Chart) -> None:
    sets = ("networkPolicy.serverNamespaces={team-a,team-b}",)
    policies = select(chart.objects(*sets), "NetworkPolicy", "pippin-servers")
    assert {p["metadata"]["namespace"] for p in policies} == {"pippin-system", "team-a", "team-b"}
    for policy in policies:
        spec = policy["spec"]
        assert spec["podSelector"]["matchLabels"] == SERVER_LABELS
        assert spec["policyTypes"] == ["Ingress"]
        (rule,) = spec["ingress"]
        assert rule["ports"] == [{"port": wire.HTTP_PORT_NAME, "protocol": "TCP"}]
        gateway, scraper = rule["from"]
        assert gateway["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "pippin-system"
        }
        assert gateway["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "pippin-gateway"
        assert scraper["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "monitoring"
        }


def test_the_gateway_reaches_what_it_must_and_nothing_else(chart: Chart) -> None:
    policy = chart.one("NetworkPolicy", "pippin-gateway")["spec"]
    dns, api, servers, redis, providers, macs = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in api["ports"]} == {443, 6443}
    assert servers["to"][0]["podSelector"]["matchLabels"] == SERVER_LABELS
    assert servers["ports"] == [{"port": wire.SERVER_PORT, "protocol": "TCP"}]
    assert redis["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "redis"
    assert redis["ports"] == [{"port": 6379, "protocol": "TCP"}]
    assert macs == {"ports": [{"port": NODE_PORT, "protocol": "TCP"}]}
    usual = [443, 8000, 8080, 11434]
    assert providers == {"ports": [{"port": port, "protocol": "TCP"} for port in usual]}
    without = (
        *("networkPolicy.nodeAgentPorts=null", "networkPolicy.providerPorts=null"),
        "redis.enabled=false",
    )
    none = chart.one("NetworkPolicy", "pippin-gateway", *without)
    assert none["spec"]["egress"] == [dns, api, servers]
    (door,) = policy["ingress"]
    assert "from" not in door


def test_where_providers_lie_can_be_narrowed(chart: Chart) -> None:
    sets = (
        "networkPolicy.providerPorts={11434}",
        "networkPolicy.providersAt[0].ipBlock.cidr=192.168.1.0/24",
    )
    rules = chart.one("NetworkPolicy", "pippin-gateway", *sets)["spec"]["egress"]
    assert {
        "ports": [{"port": 11434, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "192.168.1.0/24"}}],
    } in rules


def test_the_gateway_may_read_one_secret(chart: Chart) -> None:
    role = chart.one("Role", "pippin-gateway")
    assert role["metadata"]["namespace"] == "pippin-system"
    (rule,) = role["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [wire.PROVIDERS_SECRET],
        "verbs": ["list", "watch"],
    }
    secret = chart.one("Secret", wire.PROVIDERS_SECRET)
    assert "data" not in secret
    (subject,) = chart.one("RoleBinding", "pippin-gateway")["subjects"]
    assert subject["name"] == "pippin-gateway"


def test_callers_of_the_gateway_can_be_narrowed_and_scrapers_stay(chart: Chart) -> None:
    sets = ("networkPolicy.gatewayFrom[0].ipBlock.cidr=10.0.0.0/8",)
    (door,) = chart.one("NetworkPolicy", "pippin-gateway", *sets)["spec"]["ingress"]
    assert door["from"][0] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
    assert len(door["from"]) == 3
    alone = (*sets, "networkPolicy.metricsFrom=null")
    (door,) = chart.one("NetworkPolicy", "pippin-gateway", *alone)["spec"]["ingress"]
    operator = chart.one("Deployment", "pippin-operator")["spec"]["selector"]["matchLabels"]
    assert door["from"] == [
        {"ipBlock": {"cidr": "10.0.0.0/8"}},
        {"podSelector": {"matchLabels": operator}},
    ]


def test_the_operator_reaches_the_gateways_to_ask_what_keys_used(chart: Chart) -> None:
    gateway = chart.one("Deployment", "pippin-gateway")["spec"]["selector"]["matchLabels"]
    doors = chart.one("NetworkPolicy", "pippin-operator")["spec"]["egress"]
    assert {
        "to": [{"podSelector": {"matchLabels": gateway}}],
        "ports": [{"port": wire.GATEWAY_PORT, "protocol": "TCP"}],
    } in doors


def test_only_the_scraper_may_call_the_operator(chart: Chart) -> None:
    policy = chart.one("NetworkPolicy", "pippin-operator")["spec"]
    (door,) = policy["ingress"]
    assert len(door["from"]) == 1
    shut = chart.one("NetworkPolicy", "pippin-operator", "networkPolicy.metricsFrom=null")
    assert shut["spec"]["ingress"] == []
    assert "Ingress" in shut["spec"]["policyTypes"]


def test_the_ingress_opens_the_api_and_lets_tokens_stream(chart: Chart) -> None:
    sets = ("ingress.enabled=true", "ingress.host=llm.example.com", "ingress.tls.enabled=true")
    ingress = chart.one("Ingress", "pippin-gateway", *sets)
    (rule,) = ingress["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/v1"]
    assert ingress["spec"]["tls"] == [
        {"hosts": ["llm.example.com"], "secretName": "pippin-gateway-tls"}
    ]
    annotations = ingress["metadata"]["annotations"]
    nginx = "nginx.ingress.kubernetes.io/proxy-"
    assert annotations[f"{nginx}buffering"] == "off"
    assert annotations[f"{nginx}read-timeout"] == "300"
    assert annotations[f"{nginx}body-size"] == str(25 * 1024 * 1024)


def test_there_is_no_ingress_and_no_monitor_unless_asked(chart: Chart) -> None:
    kinds = {item["kind"] for item in chart.objects()}
    assert not kinds & {"Ingress", "ServiceMonitor"}


def test_monitors_select_what_they_scrape(chart: Chart) -> None:
    objects = chart.objects("monitoring.enabled=true", "monitoring.labels.release=prom")
    for part in ("operator", "gateway"):
        (monitor,) = select(objects, "ServiceMonitor", f"pippin-{part}")
        (service,) = select(objects, "Service", f"pippin-{part}")
        assert monitor["metadata"]["labels"]["release"] == "prom"
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
