"""NetworkPolicies in, one nft table a node out. Pure.

A node judges what it forwards from and to its own Pods; a packet between two nodes is judged on
both. Services need no rules: their addresses have become Pods' before the forward hook. What a node
itself sends to its Pods (the kubelet's probes) and gets from them is not forwarded, so it is always
let through, as Kubernetes wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from lightkube.models.networking_v1 import NetworkPolicyPort
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.networking_v1 import NetworkPolicy

from . import selectors
from .selectors import EVERYWHERE, Endpoint, Neighbourhood, Networks, matches

NAME = "pippin-policies"
#: A rule that names no ports is about all of them, of every protocol.
_ANY_PORT: Sequence[None] = (None,)


def tables(
    policies: Sequence[NetworkPolicy], pods: Sequence[Pod], namespaces: Sequence[Namespace]
) -> dict[str, str]:
    """What `nft -f -` shall read, by node. A node without Pods has no entry: none runs there."""
    near = Neighbourhood(selectors.endpoints(pods), selectors.namespace_labels(namespaces))
    judge = _Judge(policies, near)
    # A node whose Pods have no addresses is no container: native Pods, reached at their node's.
    nodes = {
        pod.spec.nodeName
        for pod in pods
        if pod.spec and pod.spec.nodeName and pod.status and pod.status.podIP
    }
    return {
        node: _table(
            [chain for pod in near.pods if pod.node == node for chain in judge.chains(pod)]
        )
        for node in sorted(nodes)
    }


@dataclass(frozen=True)
class _Chain:
    """All that one isolated Pod may send or receive."""

    direction: str
    pod: Endpoint
    rules: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.direction}-{self.pod.address}"

    @property
    def near(self) -> str:
        """The field of a packet in which the Pod stands."""
        return "daddr" if self.direction == "ingress" else "saddr"


@dataclass(frozen=True)
class _Judge:
    policies: Sequence[NetworkPolicy]
    near: Neighbourhood

    def chains(self, pod: Endpoint) -> Iterator[_Chain]:
        """One chain for each direction in which a policy isolates the Pod."""
        chosen = [one for one in self.policies if _selects(one, pod)]
        incoming = [one for one in chosen if "Ingress" in _types(one)]
        outgoing = [one for one in chosen if "Egress" in _types(one)]
        if incoming:
            rules = {rule for one in incoming for rule in self._ingress(one, pod)}
            # A Pod that calls a Service and is given itself.
            yield _Chain("ingress", pod, [f"ip saddr {pod.address} return", *sorted(rules)])
        if outgoing:
            rules = {rule for one in outgoing for rule in self._egress(one)}
            yield _Chain("egress", pod, [f"ip daddr {pod.address} return", *sorted(rules)])

    def _ingress(self, policy: NetworkPolicy, pod: Endpoint) -> Iterator[str]:
        assert policy.spec
        for rule in policy.spec.ingress or []:
            sources = self.near.networks(rule.from_, pod.namespace)
            for port in rule.ports or _ANY_PORT:
                if port and isinstance(port.port, str):
                    yield from _named("saddr", sources, port, pod)
                else:
                    yield from _allow("saddr", sources, port)

    def _egress(self, policy: NetworkPolicy) -> Iterator[str]:
        assert policy.spec and policy.metadata
        home = str(policy.metadata.namespace)
        for rule in policy.spec.egress or []:
            for port in rule.ports or _ANY_PORT:
                if port and isinstance(port.port, str):
                    # The name is the receiving Pod's, so every one may mean another number.
                    for pod in self.near.selected(rule.to, home):
                        yield from _named("daddr", selectors.addresses([pod]), port, pod)
                else:
                    yield from _allow("daddr", self.near.networks(rule.to, home), port)


def _selects(policy: NetworkPolicy, pod: Endpoint) -> bool:
    assert policy.spec and policy.metadata
    here = policy.metadata.namespace == pod.namespace
    return here and matches(policy.spec.podSelector, pod.labels)


def _types(policy: NetworkPolicy) -> Sequence[str]:
    assert policy.spec
    return policy.spec.policyTypes or (["Ingress", "Egress"] if policy.spec.egress else ["Ingress"])


def _named(field: str, far: Networks, port: NetworkPolicyPort, receiver: Endpoint) -> Iterator[str]:
    """Nothing where the receiver has no port of that name: no number, no way in."""
    protocol = port.protocol or "TCP"
    number = receiver.ports.get((str(port.port), protocol))
    if number:
        yield from _allow(field, far, NetworkPolicyPort(port=number, protocol=protocol))


def _allow(field: str, far: Networks, port: NetworkPolicyPort | None) -> Iterator[str]:
    """The rule that lets such packets through; nothing where there is no other side."""
    if not far:
        return
    who = "" if far == EVERYWHERE else f"ip {field} {{ {', '.join(map(_text, far))} }} "
    yield f"{who}{_port(port)}return"


def _text(network: IPv4Network) -> str:
    return str(network).removesuffix("/32")


def _port(port: NetworkPolicyPort | None) -> str:
    if port is None:
        return ""
    protocol = (port.protocol or "TCP").lower()
    if port.port is None:
        return f"meta l4proto {protocol} "
    last = f"-{port.endPort}" if port.endPort else ""
    return f"{protocol} dport {port.port}{last} "


def _table(chains: Sequence[_Chain]) -> str:
    """The whole table anew in one transaction: there is no moment without it, and no rest."""
    lines = [f"table ip {NAME}", f"delete table ip {NAME}", f"table ip {NAME} {{"]
    for chain in chains:
        lines += [f"  chain {chain.name} {{ # {chain.pod.namespace}/{chain.pod.name}"]
        lines += [f"    {rule}" for rule in (*chain.rules, "drop")]
        lines += ["  }"]
    lines += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    # Answers; so a policy is about who may begin.
    lines += ["    ct state established,related accept"]
    for field in ("saddr", "daddr"):
        jumps = [f"{c.pod.address} : jump {c.name}" for c in chains if c.near == field]
        if jumps:
            lines += [f"    ip {field} vmap {{ {', '.join(jumps)} }}"]
    return "\n".join([*lines, "  }", "}", ""])
