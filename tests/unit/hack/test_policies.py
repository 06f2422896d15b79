"""What every node of the kind cluster is told about the cluster's NetworkPolicies."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kind.policies import tables
from kind.policies.selectors import matches
from lightkube.models.meta_v1 import LabelSelector
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.networking_v1 import NetworkPolicy

ALICE, BOB, CAROL = "10.1.0.1", "10.1.0.2", "10.2.0.3"


def a_pod(name: str, address: str | None, **over: Any) -> Pod:
    """A running Pod with `app: NAME`; alice and bob lie in `home`, carol in `away`."""
    spec = {
        "nodeName": over.get("node", "one"),
        "hostNetwork": over.get("hostNetwork", False),
        "containers": [{"name": "c", "ports": over.get("ports", [])}],
        "initContainers": [{"name": "i", "ports": over.get("init_ports", [])}],
    }
    meta = {
        "name": name,
        "namespace": over.get("namespace", "home"),
        "labels": {"app": name},
        "creationTimestamp": over.get("created", "2026-01-01T00:00:00Z"),
    }
    status = {"podIP": address, "phase": over.get("phase", "Running")}
    return Pod.from_dict({"metadata": meta, "spec": spec, "status": status})


HTTP = {"name": "http", "containerPort": 8000}
PODS = [
    a_pod("alice", ALICE, ports=[HTTP]),
    a_pod("bob", BOB, node="two", ports=[{**HTTP, "containerPort": 9000}]),
    a_pod("carol", CAROL, namespace="away"),
]
NAMESPACES = [
    Namespace.from_dict({"metadata": {"name": "home", "labels": {"team": "a"}}}),
    Namespace.from_dict({"metadata": {"name": "away", "labels": {"team": "b"}}}),
]
ABOUT_ALICE = {"podSelector": {"matchLabels": {"app": "alice"}}}


def a_policy(namespace: str = "home", **spec: Any) -> NetworkPolicy:
    """About alice unless it says otherwise."""
    return NetworkPolicy.from_dict(
        {"metadata": {"name": "p", "namespace": namespace}, "spec": {**ABOUT_ALICE, **spec}}
    )


def chains(*policies: NetworkPolicy, pods: list[Pod] = PODS, node: str = "one") -> dict[str, Any]:
    """The rules of every chain of the node's table by its name."""
    text = tables.tables(policies, pods, NAMESPACES)[node]
    found = re.findall(r"chain (\S+) \{.*\n((?:    .*\n)*)", text)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def let_in(*policies: NetworkPolicy) -> list[str]:
    """What may reach alice, besides alice; the last word is `drop`."""
    itself, *rules, last = chains(*policies)[f"ingress-{ALICE}"]
    assert (itself, last) == (f"ip saddr {ALICE} return", "drop")
    return rules


def let_out(*policies: NetworkPolicy) -> list[str]:
    itself, *rules, last = chains(*policies)[f"egress-{ALICE}"]
    assert (itself, last) == (f"ip daddr {ALICE} return", "drop")
    return rules


def test_a_pod_that_no_policy_selects_is_left_alone() -> None:
    forward = ["type filter hook forward priority filter; policy accept;"]
    forward += ["ct state established,related accept"]
    away = a_policy(namespace="away")  # carol is no alice, and alice is not there
    assert chains() == chains(away) == {"forward": forward}


def test_a_selected_pod_is_shut_in_the_named_direction_only() -> None:
    shut = chains(a_policy(policyTypes=["Ingress"]))
    assert shut[f"ingress-{ALICE}"][-1] == "drop"
    assert f"ip daddr vmap {{ {ALICE} : jump ingress-{ALICE} }}" in shut["forward"]
    assert f"egress-{ALICE}" not in shut
    mute = chains(a_policy(policyTypes=["Egress"]))
    assert f"ip saddr vmap {{ {ALICE} : jump egress-{ALICE} }}" in mute["forward"]
    assert f"ingress-{ALICE}" not in mute


def test_answers_pass_before_any_judgement() -> None:
    forward = chains(a_policy())["forward"]
    assert forward.index("ct state established,related accept") == 1


def test_without_types_egress_counts_only_where_there_are_rules_for_it() -> None:
    assert set(chains(a_policy())) == {"forward", f"ingress-{ALICE}"}
    both = {"forward", f"ingress-{ALICE}", f"egress-{ALICE}"}
    assert set(chains(a_policy(egress=[{}]))) == both


def test_an_empty_rule_lets_everybody_in() -> None:
    assert let_in(a_policy(ingress=[{}])) == ["return"]
    assert let_in(a_policy(ingress=[])) == []


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ({"podSelector": {}}, f"{{ {ALICE}, {BOB} }}"),
        ({"podSelector": {"matchLabels": {"app": "bob"}}}, f"{{ {BOB} }}"),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, f"{{ {CAROL} }}"),
        (
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "carol"}}},
            f"{{ {CAROL} }}",
        ),
        ({"ipBlock": {"cidr": "192.168.0.0/16"}}, "{ 192.168.0.0/16 }"),
        (
            {"ipBlock": {"cidr": "192.168.0.0/30", "except": ["192.168.0.0/31"]}},
            "{ 192.168.0.2/31 }",
        ),
    ],
)
def test_peers_are_told_by_their_addresses(peer: dict[str, Any], who: str) -> None:
    assert let_in(a_policy(ingress=[{"from": [peer]}])) == [f"ip saddr {who} return"]


@pytest.mark.parametrize(
    "peer",
    [
        {"podSelector": {"matchLabels": {"app": "carol"}}},  # who is not in this namespace
        {"namespaceSelector": {"matchLabels": {"team": "c"}}},
        {"ipBlock": {"cidr": "192.168.0.0/30", "except": ["192.168.0.0/16"]}},
        {"ipBlock": {"cidr": "fd00::/8"}},
    ],
)
def test_peers_that_are_nobody_let_nobody_in(peer: dict[str, Any]) -> None:
    assert let_in(a_policy(ingress=[{"from": [peer]}])) == []


def test_an_exception_elsewhere_takes_nothing_away() -> None:
    block = {"cidr": "192.168.0.0/16", "except": ["10.0.0.0/8"]}
    rules = let_in(a_policy(ingress=[{"from": [{"ipBlock": block}]}]))
    assert rules == ["ip saddr { 192.168.0.0/16 } return"]


def test_peers_that_overlap_are_told_once() -> None:
    peers = [{"ipBlock": {"cidr": "10.1.0.0/24"}}, {"podSelector": {}}]
    assert let_in(a_policy(ingress=[{"from": peers}])) == ["ip saddr { 10.1.0.0/24 } return"]


@pytest.mark.parametrize(
    ("port", "match"),
    [
        ({"port": 80}, "tcp dport 80"),
        ({"port": 53, "protocol": "UDP"}, "udp dport 53"),
        ({"port": 8000, "endPort": 8010, "protocol": "TCP"}, "tcp dport 8000-8010"),
        ({"protocol": "SCTP"}, "meta l4proto sctp"),
        ({"port": "http"}, "tcp dport 8000"),
    ],
)
def test_ports_are_told_by_number(port: dict[str, Any], match: str) -> None:
    assert let_in(a_policy(ingress=[{"ports": [port]}])) == [f"{match} return"]


def test_a_name_that_the_pod_has_no_port_for_opens_none() -> None:
    named = [{"port": "metrics"}, {"port": "http", "protocol": "UDP"}]
    assert let_in(a_policy(ingress=[{"ports": named}])) == []


def test_a_name_may_be_a_sidecars() -> None:
    pod = a_pod("alice", ALICE, init_ports=[{"name": "side", "containerPort": 7}])
    policy = a_policy(ingress=[{"ports": [{"port": "side"}]}])
    assert "tcp dport 7 return" in chains(policy, pods=[pod])[f"ingress-{ALICE}"]


def test_a_name_on_the_way_out_is_the_receivers() -> None:
    policy = a_policy(egress=[{"ports": [{"port": "http"}], "to": [{"podSelector": {}}]}])
    assert let_out(policy) == [
        f"ip daddr {{ {ALICE} }} tcp dport 8000 return",
        f"ip daddr {{ {BOB} }} tcp dport 9000 return",
    ]


def test_the_way_out_is_told_by_where_to_and_which_port() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": 443}]}
    policy = a_policy(egress=[rule, {"ports": [{"port": 53, "protocol": "UDP"}]}])
    assert let_out(policy) == [
        "ip daddr { 10.9.0.0/16 } tcp dport 443 return",
        "udp dport 53 return",
    ]


def test_what_one_of_two_policies_allows_is_allowed() -> None:
    one = a_policy(ingress=[{"ports": [{"port": 80}]}])
    assert let_in(one, a_policy(), one) == ["tcp dport 80 return"]


def test_only_the_pods_own_node_judges() -> None:
    policy = a_policy(podSelector={})
    assert set(chains(policy)) == {"forward", f"ingress-{ALICE}"}
    assert set(chains(policy, node="two")) == {"forward", f"ingress-{BOB}"}


@pytest.mark.parametrize(
    "pod",
    [
        a_pod("alice", ALICE, hostNetwork=True),
        a_pod("alice", ALICE, phase="Succeeded"),
        a_pod("alice", ALICE, phase="Failed"),
    ],
)
def test_pods_without_an_address_of_their_own_are_not_judged(pod: Pod) -> None:
    assert set(chains(a_policy(podSelector={}), pods=[pod])) == {"forward"}


def test_a_node_whose_pods_have_no_addresses_is_left_alone() -> None:
    assert tables.tables([a_policy()], [a_pod("native", None)], NAMESPACES) == {}


def test_an_address_is_the_newest_pods() -> None:
    old = a_pod("bob", ALICE, created="2025-01-01T00:00:00Z")
    policy = a_policy(ingress=[{}])
    assert f"ingress-{ALICE}" in chains(policy, pods=[a_pod("alice", ALICE), old])


def test_the_table_is_replaced_as_a_whole() -> None:
    text = tables.tables([a_policy()], PODS, NAMESPACES)["one"]
    first, second, third, *_ = text.splitlines()
    assert [first, second] == ["table ip pippin-policies", "delete table ip pippin-policies"]
    assert third == f"{first} {{"


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["x", "y"], {"x"}),
        ("NotIn", ["x"], {"z", "none"}),
        ("Exists", None, {"x", "z"}),
        ("DoesNotExist", None, {"none"}),
    ],
)
def test_expressions_select(operator: str, values: list[str] | None, selected: set[str]) -> None:
    expression = {"key": "k", "operator": operator, "values": values}
    selector = LabelSelector.from_dict({"matchExpressions": [expression]})
    labels: dict[str, dict[str, str]] = {"x": {"k": "x"}, "z": {"k": "z"}, "none": {"j": "x"}}
    assert {name for name, has in labels.items() if matches(selector, has)} == selected
