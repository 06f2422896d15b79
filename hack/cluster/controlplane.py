"""One control plane in one directory: made, started, stopped in parts, and removed without trace.

The directory holds everything: `pki/`, `etcd/`, `kubeconfigs/`, `logs/`, `run/` (process records)
and `cluster.json`. Who opens the directory later, in another process, has the same control plane.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from . import bootstrap, components, kubeconfig
from .api import Api
from .components import API_SERVER, APPROVER, CONTROLLERS, ETCD, FULL, SCHEDULER, Ports
from .credentials import DATABASE, Credentials
from .pki import LOOPBACK, Subject
from .processes import Supervisor

_READY_SECONDS = 90.0
_SETTLE_SECONDS = 30.0
_MARK = "cluster.json"


class ControlPlane:
    """etcd, API server and, when asked, controllers, scheduler and serving-approver."""

    def __init__(self, state: Path, binaries: Path, ports: Ports, *, durable: bool) -> None:
        self.state = state
        self.binaries = binaries
        self.url = f"https://{LOOPBACK}:{ports.api_server}"
        self.processes = Supervisor(state)
        self._ports = ports
        self._durable = durable
        self._pki = Credentials(state / "pki")

    @classmethod
    def create(cls, state: Path, binaries: Path, *, durable: bool = False) -> ControlPlane:
        """A new one with ports and keys of its own; nothing runs yet.

        `durable` makes etcd write through to the disk, so that it survives a crash of the machine.
        """
        partial = state.with_name(f".{state.name}.partial")  # whole, or not there at all
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        try:
            ports = Ports.free()
            mark = {"ports": asdict(ports), "binaries": str(binaries), "durable": durable}
            (partial / _MARK).write_text(json.dumps(mark, indent=1))
            Credentials.create(partial / "pki")
            cls(partial, binaries, ports, durable=durable)._write_kubeconfigs()
            partial.rename(state)
        except BaseException:
            shutil.rmtree(partial)
            raise
        return cls.open(state)

    @classmethod
    def open(cls, state: Path) -> ControlPlane:
        """The one that was made in this directory. Raises FileNotFoundError when there is none."""
        mark = json.loads((state / _MARK).read_text())
        ports = Ports(**mark["ports"])
        return cls(state, Path(mark["binaries"]), ports, durable=mark["durable"])

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; readable by the owner only."""
        return self.state / "kubeconfig"

    @property
    def authority(self) -> Path:
        """The certificate that vouches for the API server and the nodes."""
        return self._pki.authority

    @property
    def api(self) -> Api:
        """The API server, as administrator."""
        return Api(self.url, self.authority, self._pki.pair("admin"))

    def start(self, names: Sequence[str] = FULL) -> None:
        """Start components in order, each ready before the next. Raises StartFailed."""
        for name in names:
            self.start_component(name)
            if name == API_SERVER:
                bootstrap.grant(self.api)
        if CONTROLLERS in names:
            # Pods are refused until their namespace has its service account.
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait(CONTROLLERS, lambda: self.api.ok(account), _SETTLE_SECONDS)

    def start_component(self, name: str) -> None:
        """Start one and wait until it is ready; nothing happens when it runs already."""
        if self.processes.running(name):
            return
        self.processes.start(name, self._argv(name), self.environment())
        self._wait(name, self._probe(name), _READY_SECONDS)

    def stop_component(self, name: str, *, kill: bool = False) -> None:
        """End one: politely, or with SIGKILL."""
        self.processes.stop(name, kill=kill)

    def start_apiserver(self) -> None:
        """Start the API server again, on the same port."""
        self.start_component(API_SERVER)

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """End the API server; everyone else stays and gets refused connections."""
        self.stop_component(API_SERVER, kill=kill)

    def stop(self) -> None:
        """End every process on record: first what is not ours, then from scheduler to etcd."""
        self._stop(kill=False)

    def remove(self) -> None:
        """End everything and delete the state directory."""
        self._stop(kill=True)  # the data goes too, so nobody need write it down
        shutil.rmtree(self.state)

    def _stop(self, *, kill: bool) -> None:
        for name in self.processes.names():
            if name not in FULL:
                self.processes.stop(name)
        for name in reversed(FULL):
            self.processes.stop(name, kill=kill)

    def running(self) -> bool:
        """Whether the API server answers."""
        return self.processes.running(API_SERVER) and self.api.ok("/readyz")

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """What kubectl prints, as administrator. Raises CalledProcessError (with stderr)."""
        return subprocess.run(
            [str(self.binaries / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=timeout,
        ).stdout

    def bootstrap_kubeconfig(self) -> Path:
        """A kubeconfig with a new bootstrap token: enough to ask for a node's certificate."""
        token = bootstrap.mint_token(self.api, dt.datetime.now(dt.UTC))
        path = self._kubeconfigs / f"bootstrap-{token.partition('.')[0]}.yaml"
        return kubeconfig.for_token(path, self.url, self.authority, token)

    def user_kubeconfig(self, user: str, *groups: str) -> Path:
        """A kubeconfig for anyone, by client certificate: `system:node:n1` in `system:nodes`."""
        file = user.replace(":", "-").replace("/", "-")
        client = self._pki.issue(f"user-{file}", Subject(user, groups))
        path = self._kubeconfigs / f"{file}.yaml"
        return kubeconfig.for_certificate(path, self.url, self.authority, client)

    @property
    def _kubeconfigs(self) -> Path:
        return self.state / "kubeconfigs"

    def _write_kubeconfigs(self) -> None:
        self._kubeconfigs.mkdir(mode=0o700)
        for path, client in (
            (self.kubeconfig, self._pki.pair("admin")),
            (self._component_kubeconfig(CONTROLLERS), self._pki.pair("controllers")),
            (self._component_kubeconfig(SCHEDULER), self._pki.pair("scheduler")),
        ):
            kubeconfig.for_certificate(path, self.url, self.authority, client)

    def _component_kubeconfig(self, name: str) -> Path:
        return self._kubeconfigs / f"{name}.yaml"

    def _argv(self, name: str) -> list[str]:
        if name == APPROVER:
            return [sys.executable, "-m", "cluster", "approver", "--state", str(self.state)]
        scratch = self.state / "scratch" / name
        config = self._component_kubeconfig(name)
        make: dict[str, Callable[[], list[str]]] = {
            ETCD: lambda: components.etcd(
                self._ports, self._pki, self.state / "etcd", durable=self._durable
            ),
            API_SERVER: lambda: components.api_server(self._ports, self._pki, scratch),
            CONTROLLERS: lambda: components.controllers(self._ports, self._pki, config, scratch),
            SCHEDULER: lambda: components.scheduler(self._ports, self._pki, config, scratch),
        }
        program, *flags = make[name]()
        return [str(self.binaries / program), *flags]

    def environment(self) -> dict[str, str]:
        """What processes of this cluster are started with."""
        # Not the caller's: a KUBECONFIG or a proxy in it would lead elsewhere.
        return {
            "PATH": f"{self.binaries}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.state),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }

    def _probe(self, name: str) -> Callable[[], bool]:
        if name == APPROVER:
            return lambda: self.processes.running(name)
        ports, database = self._ports, self._pki.pair(DATABASE).cert
        port, authority, client, path = {
            ETCD: (ports.etcd, database, "etcd-client", "/health"),
            API_SERVER: (ports.api_server, self.authority, "admin", "/readyz"),
            CONTROLLERS: (ports.controllers, self.authority, "admin", "/healthz"),
            SCHEDULER: (ports.scheduler, self.authority, "admin", "/healthz"),
        }[name]
        api = Api(f"https://{LOOPBACK}:{port}", authority, self._pki.pair(client))
        return lambda: api.ok(path)

    def _wait(self, name: str, probe: Callable[[], bool], within: float) -> None:
        self.processes.wait_ready(name, probe, within=within)


def serving_approver(state: Path) -> Api:
    """The API server as the approver sees it: with no more rights than it needs."""
    plane = ControlPlane.open(state)
    return Api(plane.url, plane.authority, Credentials(state / "pki").pair("approver"))
