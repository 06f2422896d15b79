"""Which Pods a policy's selectors mean, and which IPv4 addresses its peers have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses, ip_network

from lightkube.models.core_v1 import Container
from lightkube.models.meta_v1 import LabelSelector, LabelSelectorRequirement
from lightkube.models.networking_v1 import IPBlock, NetworkPolicyPeer
from lightkube.resources.core_v1 import Namespace, Pod

Networks = tuple[IPv4Network, ...]
Labels = Mapping[str, str]

EVERYWHERE: Networks = (IPv4Network("0.0.0.0/0"),)


@dataclass(frozen=True)
class Endpoint:
    """A Pod with an address of its own; what policies can be about."""

    namespace: str
    name: str
    node: str
    address: str
    labels: Labels
    #: (name, protocol) -> number
    ports: Mapping[tuple[str, str], int]


def endpoints(pods: Iterable[Pod]) -> list[Endpoint]:
    """The Pods that policies are about: not those on the host's network, not those that ended."""
    found: dict[str, Endpoint] = {}
    # Should two claim one address, it is the newer one's: the older one is on its way out.
    for pod in sorted(pods, key=_created):
        endpoint = _endpoint(pod)
        if endpoint:
            found[endpoint.address] = endpoint
    return list(found.values())


def _created(pod: Pod) -> str:
    return str(pod.metadata and pod.metadata.creationTimestamp)


def _endpoint(pod: Pod) -> Endpoint | None:
    meta, spec, status = pod.metadata, pod.spec, pod.status
    if not meta or not spec or not status or not status.podIP or not spec.nodeName:
        return None
    if spec.hostNetwork or status.phase in ("Succeeded", "Failed"):
        return None
    containers = [*spec.containers, *(spec.initContainers or [])]
    return Endpoint(
        namespace=str(meta.namespace),
        name=str(meta.name),
        node=spec.nodeName,
        address=status.podIP,
        labels=meta.labels or {},
        ports=dict(_named_ports(containers)),
    )


def _named_ports(containers: Iterable[Container]) -> Iterator[tuple[tuple[str, str], int]]:
    for container in containers:
        for port in container.ports or []:
            if port.name:
                yield (port.name, port.protocol or "TCP"), port.containerPort


def namespace_labels(namespaces: Iterable[Namespace]) -> dict[str, Labels]:
    """The labels of every namespace by its name."""
    return {str(one.metadata.name): one.metadata.labels or {} for one in namespaces if one.metadata}


def matches(selector: LabelSelector | None, labels: Labels) -> bool:
    """Whether these labels are selected; an empty selector selects all."""
    wanted = (selector and selector.matchLabels) or {}
    expressions = (selector and selector.matchExpressions) or []
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: LabelSelectorRequirement, labels: Labels) -> bool:
    values = expression.values or []
    match expression.operator:
        case "In":
            return labels.get(expression.key) in values
        case "NotIn":
            return labels.get(expression.key) not in values
        case "Exists":
            return expression.key in labels
        case "DoesNotExist":
            return expression.key not in labels
    raise ValueError(f"no such operator: {expression.operator}")


@dataclass(frozen=True)
class Neighbourhood:
    """All that peers can mean, seen from any namespace."""

    pods: Sequence[Endpoint]
    namespaces: Mapping[str, Labels]

    def selected(self, peers: Sequence[NetworkPolicyPeer] | None, home: str) -> list[Endpoint]:
        """The Pods among the peers of a rule in the namespace `home`; no peers: all Pods."""
        if not peers:
            return list(self.pods)
        return [pod for pod in self.pods if any(self._is(pod, peer, home) for peer in peers)]

    def networks(self, peers: Sequence[NetworkPolicyPeer] | None, home: str) -> Networks:
        """Their addresses, blocks of addresses included; no peers: all addresses."""
        if not peers:
            return EVERYWHERE
        blocks = [part for peer in peers if peer.ipBlock for part in _parts(peer.ipBlock)]
        return (*collapse_addresses([*blocks, *addresses(self.selected(peers, home))]),)

    def _is(self, pod: Endpoint, peer: NetworkPolicyPeer, home: str) -> bool:
        if peer.ipBlock:
            return False
        if peer.namespaceSelector:
            near = matches(peer.namespaceSelector, self.namespaces.get(pod.namespace, {}))
        else:
            near = pod.namespace == home
        return near and matches(peer.podSelector, pod.labels)


def addresses(pods: Iterable[Endpoint]) -> Networks:
    """The Pods' addresses, neighbours joined."""
    return (*collapse_addresses(IPv4Network(pod.address) for pod in pods),)


def _parts(block: IPBlock) -> list[IPv4Network]:
    """What is left of a block without its exceptions. IPv6 is not there: the cluster has none."""
    whole = ip_network(block.cidr, strict=False)
    if not isinstance(whole, IPv4Network):
        return []
    parts = [whole]
    for text in block.except_ or []:
        hole = IPv4Network(text, strict=False)
        parts = [rest for part in parts for rest in _without(part, hole)]
    return parts


def _without(part: IPv4Network, hole: IPv4Network) -> Iterable[IPv4Network]:
    if part.subnet_of(hole):
        return []
    return part.address_exclude(hole) if hole.subnet_of(part) else [part]
