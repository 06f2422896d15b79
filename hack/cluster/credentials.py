"""Every key and certificate of one control plane: who gets which, from which authority."""

from __future__ import annotations

from pathlib import Path

from cryptography.x509 import ObjectIdentifier

from .pki import CLIENT, LOOPBACK, SERVER, Authority, Pair, Subject, service_account_keys

#: Who the API server is when it calls a node, and who signs off serving certificates.
KUBELET_CLIENT_USER = "kube-apiserver-kubelet-client"
APPROVER_USER = "pippin:serving-approver"

CLUSTER, FRONT_PROXY = "ca", "front-proxy-ca"
#: An authority of its own: a certificate of the cluster must not open its database.
DATABASE = "etcd-ca"

_HERE = {"dns": ("localhost",), "ips": (LOOPBACK,)}
#: Names by which Pods and people call the API server; the address is the first service's.
_API_SERVER = Subject(
    "kube-apiserver",
    dns=(
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ),
    ips=(LOOPBACK, "10.96.0.1"),
)
_ISSUED: dict[str, tuple[str, Subject, tuple[ObjectIdentifier, ...]]] = {
    "etcd": (DATABASE, Subject("etcd", **_HERE), (SERVER, CLIENT)),
    "etcd-client": (DATABASE, Subject("kube-apiserver"), (CLIENT,)),
    "apiserver": (CLUSTER, _API_SERVER, (SERVER,)),
    "apiserver-kubelet-client": (CLUSTER, Subject(KUBELET_CLIENT_USER), (CLIENT,)),
    "front-proxy-client": (FRONT_PROXY, Subject("front-proxy-client"), (CLIENT,)),
    "admin": (CLUSTER, Subject("admin", ("system:masters",)), (CLIENT,)),
    "controllers": (CLUSTER, Subject("system:kube-controller-manager"), (CLIENT,)),
    "controllers-serving": (CLUSTER, Subject("controllers", **_HERE), (SERVER,)),
    "scheduler": (CLUSTER, Subject("system:kube-scheduler"), (CLIENT,)),
    "scheduler-serving": (CLUSTER, Subject("scheduler", **_HERE), (SERVER,)),
    "approver": (CLUSTER, Subject(APPROVER_USER), (CLIENT,)),
}


class Credentials:
    """The files of a `pki/` directory by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def create(cls, directory: Path) -> Credentials:
        """Make them all in a fresh directory."""
        directory.mkdir(mode=0o700, parents=True)
        authorities = {
            name: Authority(directory, name) for name in (CLUSTER, FRONT_PROXY, DATABASE)
        }
        for name, (authority, subject, usages) in _ISSUED.items():
            authorities[authority].issue(name, subject, *usages)
        service_account_keys(directory)
        return cls(directory)

    @property
    def authority(self) -> Path:
        """The certificate that vouches for everyone in the cluster."""
        return self.pair(CLUSTER).cert

    def pair(self, name: str) -> Pair:
        """A certificate and its key, of an authority too."""
        return Pair(self._directory / f"{name}.crt", self._directory / f"{name}.key")

    def service_accounts(self) -> Pair:
        """The RSA pair that checks and signs service account tokens."""
        return Pair(
            self._directory / "service-accounts.pub", self._directory / "service-accounts.key"
        )

    def issue(self, name: str, subject: Subject) -> Pair:
        """One more client of the cluster."""
        return Authority(self._directory, CLUSTER).issue(name, subject, CLIENT)
