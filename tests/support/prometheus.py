"""A real Prometheus in the cluster, told by ServiceMonitors what to scrape.

The Prometheus operator turns each endpoint of a ServiceMonitor into one job; so does this, for the
fields that ours use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.kubectl import Kubectl

NAME = "prometheus"
IMAGE = "pippin-prometheus:test"
PORT = 9090
_SERVICE = "kubernetes.io/service-name"


def job(kubectl: Kubectl, monitor: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The scrape configuration of one endpoint: the addresses behind the Services it selects.

    As they are now, and not by Prometheus' own discovery: Debian's is built without it.
    """
    meta, spec = monitor["metadata"], monitor["spec"]
    endpoint = spec["endpoints"][number]
    labels = ",".join(f"{name}={value}" for name, value in spec["selector"]["matchLabels"].items())
    within = kubectl.within(meta["namespace"])
    targets = [
        f"{address}:{port['port']}"
        for service in within.items("services", "-l", labels)
        for slice_ in within.items("endpointslices", "-l", f"{_SERVICE}={_name(service)}")
        for port in slice_["ports"]
        for ready in slice_["endpoints"]
        for address in ready["addresses"]
        if port["name"] == endpoint["port"]
    ]
    return {
        "job_name": f"{meta['namespace']}/{meta['name']}/{number}",
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "static_configs": [{"targets": targets}],
    }


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


@dataclass(frozen=True)
class Prometheus:
    """Lives in a namespace of its own."""

    kubectl: Kubectl
    namespace: str

    def start(self, monitors: Sequence[Mapping[str, Any]]) -> None:
        jobs = [
            job(self.kubectl, one, number)
            for one in monitors
            for number in range(len(one["spec"]["endpoints"]))
        ]
        config = json.dumps({"scrape_configs": jobs})  # JSON is YAML
        self.kubectl.apply(*self._objects(config))
        self.kubectl.within(self.namespace)(
            "wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s", timeout=70
        )

    def targets(self) -> dict[str, str]:
        """Job -> `up`, or why not every one of its targets is."""
        jobs: dict[str, str] = {}
        for one in self._ask("targets?state=active")["activeTargets"]:
            job = one["labels"]["job"]
            if jobs.get(job, "up") == "up":
                jobs[job] = one["lastError"] or one["health"]
        return jobs

    def series(self, name: str) -> list[dict[str, str]]:
        """The labels of every series of that name."""
        return [one["metric"] for one in self._ask(f"query?query={name}")["result"]]

    def _ask(self, what: str) -> dict[str, Any]:
        proxy = f"/api/v1/namespaces/{self.namespace}/pods/{NAME}:{PORT}/proxy/api/v1/{what}"
        answer = json.loads(self.kubectl("get", "--raw", proxy))
        assert answer["status"] == "success", answer
        return dict(answer["data"])

    def _objects(self, config: str) -> tuple[dict[str, Any], ...]:
        where = {"name": NAME, "namespace": self.namespace}
        arguments = [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/data",
            f"--web.listen-address=:{PORT}",
        ]
        container = {
            "name": NAME,
            "image": IMAGE,
            "args": arguments,
            "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/prometheus"},
                {"name": "data", "mountPath": "/data"},
            ],
        }
        return (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": where,
                "data": {"prometheus.yml": config},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": where,
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
                    "containers": [container],
                    "volumes": [
                        {"name": "config", "configMap": {"name": NAME}},
                        {"name": "data", "emptyDir": {}},
                    ],
                },
            },
        )
