"""What runs in a control plane: each component's command line, and how it says that it is ready."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .credentials import CLUSTER, DATABASE, FRONT_PROXY, Credentials
from .pki import LOOPBACK, Pair

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
#: Signs off the serving certificates of nodes; see approver.py.
APPROVER = "serving-approver"
BARE = (ETCD, API_SERVER)
FULL = (ETCD, API_SERVER, CONTROLLERS, SCHEDULER, APPROVER)

SERVICE_RANGE = "10.96.0.0/16"
#: Below the range that the kernel hands out to outgoing connections and above the node agent's, so
#: that a component that is stopped for a while finds its port free again.
_PORTS = range(30000, 32700)


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one control plane."""

    etcd: int
    etcd_peer: int
    api_server: int
    controllers: int
    scheduler: int

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now."""
        taken: list[socket.socket] = []
        try:
            while len(taken) < len(cls.__annotations__):
                listener = socket.socket()
                try:
                    listener.bind((LOOPBACK, random.choice(_PORTS)))
                    taken.append(listener)
                except OSError:
                    listener.close()
            return cls(*(listener.getsockname()[1] for listener in taken))
        finally:
            for listener in taken:
                listener.close()


def etcd(ports: Ports, pki: Credentials, data: Path, *, durable: bool) -> list[str]:
    """One member, TLS with client certificates on both of its ports."""
    serving = pki.pair("etcd")
    client, peer = f"https://{LOOPBACK}:{ports.etcd}", f"https://{LOOPBACK}:{ports.etcd_peer}"
    flags = {
        "name": "pippin",
        "data-dir": data,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"pippin={peer}",
        "cert-file": serving.cert,
        "key-file": serving.key,
        "client-cert-auth": "true",
        "trusted-ca-file": pki.pair(DATABASE).cert,
        "peer-cert-file": serving.cert,
        "peer-key-file": serving.key,
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": pki.pair(DATABASE).cert,
        "log-level": "warn",
    }
    # Without fsync a crash of the machine may cost the data, which is fine for a test.
    return [ETCD, *_flags(flags), *([] if durable else ["--unsafe-no-fsync"])]


def api_server(ports: Ports, pki: Credentials, scratch: Path) -> list[str]:
    """Loopback only; Node and RBAC authorizers, NodeRestriction, aggregation, bootstrap tokens."""
    serving, accounts = pki.pair("apiserver"), pki.service_accounts()
    database, kubelet = pki.pair("etcd-client"), pki.pair("apiserver-kubelet-client")
    front_proxy = pki.pair("front-proxy-client")
    flags = {
        "etcd-servers": f"https://{LOOPBACK}:{ports.etcd}",
        "etcd-cafile": pki.pair(DATABASE).cert,
        "etcd-certfile": database.cert,
        "etcd-keyfile": database.key,
        "bind-address": LOOPBACK,
        "advertise-address": LOOPBACK,
        # A loopback address is not allowed in the Endpoints of the service `kubernetes`.
        "endpoint-reconciler-type": "none",
        "secure-port": ports.api_server,
        "cert-dir": scratch,
        "client-ca-file": pki.authority,
        "tls-cert-file": serving.cert,
        "tls-private-key-file": serving.key,
        "kubelet-certificate-authority": pki.authority,
        "kubelet-client-certificate": kubelet.cert,
        "kubelet-client-key": kubelet.key,
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "requestheader-client-ca-file": pki.pair(FRONT_PROXY).cert,
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": front_proxy.cert,
        "proxy-client-key-file": front_proxy.key,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": accounts.cert,
        "service-account-signing-key-file": accounts.key,
        "service-cluster-ip-range": SERVICE_RANGE,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "profiling": "false",
    }
    return [API_SERVER, *_flags(flags)]


def controllers(ports: Ports, pki: Credentials, kubeconfig: Path, scratch: Path) -> list[str]:
    """Signs approved certificate requests, and cleans up bootstrap tokens that ran out."""
    flags = {
        **_serving(ports.controllers, pki.pair("controllers-serving"), kubeconfig, scratch),
        "controllers": "*,tokencleaner",
        "root-ca-file": pki.authority,
        "client-ca-file": pki.authority,
        "requestheader-client-ca-file": pki.pair(FRONT_PROXY).cert,
        "service-account-private-key-file": pki.service_accounts().key,
        "use-service-account-credentials": "true",
        "cluster-signing-cert-file": pki.authority,
        "cluster-signing-key-file": pki.pair(CLUSTER).key,
        "service-cluster-ip-range": SERVICE_RANGE,
        # Nodes here have no Pod network; trying to give them a range posts events for ever.
        "allocate-node-cidrs": "false",
    }
    return [CONTROLLERS, *_flags(flags)]


def scheduler(ports: Ports, pki: Credentials, kubeconfig: Path, scratch: Path) -> list[str]:
    """The ordinary scheduler."""
    return [
        SCHEDULER,
        *_flags(_serving(ports.scheduler, pki.pair("scheduler-serving"), kubeconfig, scratch)),
    ]


def _serving(port: int, serving: Pair, kubeconfig: Path, scratch: Path) -> dict[str, object]:
    return {
        "bind-address": LOOPBACK,
        "secure-port": port,
        "cert-dir": scratch,
        "tls-cert-file": serving.cert,
        "tls-private-key-file": serving.key,
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
        "profiling": "false",
    }


def _flags(flags: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]
