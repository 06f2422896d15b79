"""NetworkPolicies count: servers hear the gateway and the scraper, nobody else, and it all works.

Needs a network that enforces policies, and a chart whose `networkPolicy.serverNamespaces` holds the
namespace CLOSED.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pippin_contract import wire
from support.e2e import Cluster, Tenant
from support.kubectl import Kubectl
from support.manifests import key, model
from support.traffic import stream_once

pytestmark = pytest.mark.containers

CLOSED = "e2e-closed"
#: Where the chart's defaults let metrics be read from.
MONITORING = "monitoring"
#: Everybody's, but for those whose policies shut them in: a port of the cluster's DNS.
ELSEWHERE = "kube-dns.kube-system.svc:9153"

#: Prints which targets let it connect. Only silence is a block: a refusal, or a name that nobody
#: knows, would say that there is nothing to be reached.
KNOCK = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except TimeoutError:
        print(target, "blocked")
    else:
        print(target, "reached")
"""


@dataclass(frozen=True)
class Closed:
    """A model in the namespace whose servers hear the gateway only."""

    tenant: Tenant
    name: str

    @property
    def server(self) -> dict[str, Any]:
        (pod,) = self.tenant.server_pods(self.name)
        return pod

    @property
    def targets(self) -> list[str]:
        """Its Pod, and its Service."""
        return [at(self.server, wire.SERVER_PORT), f"{self.name}.{self.tenant.namespace}.svc:80"]


@pytest.fixture
def closed(cluster: Cluster) -> Iterator[Closed]:
    tenant, name = Tenant(cluster, CLOSED), f"echo-{secrets.token_hex(4)}"
    tenant.apply(model(name, CLOSED), key(name, CLOSED))
    try:
        yield Closed(tenant, name)
    finally:
        tenant.kubectl("delete", f"mdep/{name}", f"apikey/{name}", "--timeout=40s")


@pytest.fixture
def monitoring(cluster: Cluster) -> Iterator[str]:
    """The scraper's namespace; removed unless it was there."""
    there = any(one["metadata"]["name"] == MONITORING for one in cluster.kubectl.items("ns"))
    if not there:
        cluster.kubectl("create", "namespace", MONITORING)
    yield MONITORING
    if not there:
        cluster.kubectl("delete", "namespace", MONITORING, "--timeout=40s")


def at(pod: dict[str, Any], port: int) -> str:
    return f"{pod['status']['podIP']}:{port}"


def own(cluster: Cluster, component: str) -> dict[str, Any]:
    """A Pod of Pippin's operator or gateway that is not on its way out."""
    selector = f"app.kubernetes.io/component={component}"
    pods = cluster.kubectl.within(cluster.system_namespace).items("pods", "-l", selector)
    return next(pod for pod in pods if "deletionTimestamp" not in pod["metadata"])


def outcomes(printed: str) -> dict[str, str]:
    return dict(line.split() for line in printed.splitlines())


@dataclass(frozen=True)
class Stranger:
    """A Pod that is nobody in particular and knocks at doors, once."""

    kubectl: Kubectl
    name: str

    @classmethod
    def send(cls, cluster: Cluster, namespace: str, image: str, targets: list[str]) -> Stranger:
        stranger = cls(cluster.kubectl.within(namespace), f"stranger-{secrets.token_hex(4)}")
        knock = {"name": "knock", "image": image, "command": ["python3", "-c", KNOCK, *targets]}
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [{**knock, "imagePullPolicy": "IfNotPresent"}],
        }
        meta = {"name": stranger.name, "namespace": namespace}
        cluster.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        return stranger

    def saw(self) -> dict[str, str]:
        """By target, once it has knocked everywhere. The Pod is gone then."""
        try:
            done = "--for=jsonpath={.status.phase}=Succeeded"
            self.kubectl("wait", f"pod/{self.name}", done, "--timeout=50s")
            return outcomes(self.kubectl("logs", self.name))
        finally:
            self.kubectl("delete", "pod", self.name, "--wait=false", "--grace-period=0")


async def test_the_gateway_serves_a_model_that_only_it_may_reach(closed: Closed):
    # Ready: the kubelet's probes pass, though the kubelet is nobody the policy names.
    closed.tenant.wait_ready(closed.name)
    client = await closed.tenant.client(closed.name)
    try:
        assert await stream_once(client, closed.name, "behind a policy")
    finally:
        await client.close()


def test_strangers_reach_no_server_behind_a_policy_and_the_scraper_does(
    cluster: Cluster, closed: Closed, tenant: Tenant, monitoring: str
):
    tenant.apply(model("open", tenant.namespace))
    tenant.wait_ready("open")
    closed.tenant.wait_ready(closed.name)
    (open_server,) = tenant.server_pods("open")
    image = open_server["spec"]["containers"][0]["image"]
    operator, gateway = (own(cluster, part) for part in ("operator", "gateway"))
    shut = [*closed.targets, at(operator, 8081)]
    # What shows that the stranger's own network, and the cluster's names, work.
    free = [at(open_server, wire.SERVER_PORT), f"open.{tenant.namespace}.svc:80"]
    free += [at(gateway, 8080), ELSEWHERE]
    homes = (CLOSED, tenant.namespace, monitoring)
    strangers = {home: Stranger.send(cluster, home, image, shut + free) for home in homes}
    saw = {home: stranger.saw() for home, stranger in strangers.items()}
    everything = dict.fromkeys(shut + free, "reached")
    blocked = {**everything, **dict.fromkeys(shut, "blocked")}
    assert saw == {CLOSED: blocked, tenant.namespace: blocked, monitoring: everything}


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_pippins_own_pods_reach_what_they_need_and_nothing_else(
    cluster: Cluster, closed: Closed, component: str
):
    closed.tenant.wait_ready(closed.name)
    pod = own(cluster, component)["metadata"]["name"]
    server = at(closed.server, wire.SERVER_PORT)
    api = "kubernetes.default.svc:443"
    kubectl = cluster.kubectl.within(cluster.system_namespace)
    knocked = kubectl("exec", pod, "--", "python3", "-c", KNOCK, api, server, ELSEWHERE)
    assert outcomes(knocked) == {
        api: "reached",
        server: "reached" if component == "gateway" else "blocked",
        ELSEWHERE: "blocked",
    }
