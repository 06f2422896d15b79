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


def job(monitor: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The scrape configuration of one endpoint."""
    meta, spec = monitor["metadata"], monitor["spec"]
    endpoint = spec["endpoints"][number]
    wanted = {
        f"__meta_kubernetes_service_label_{_label(name)}": value
        for name, value in spec["selector"]["matchLabels"].items()
    }
    wanted["__meta_kubernetes_endpointslice_port_name"] = endpoint["port"]
    return {
        "job_name": f"{meta['namespace']}/{meta['name']}/{number}",
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [
            {"role": "endpointslice", "namespaces": {"names": [meta["namespace"]]}}
        ],
        "relabel_configs": [
            {"source_labels": [name], "regex": value, "action": "keep"}
            for name, value in wanted.items()
        ],
    }


def _label(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


@dataclass(frozen=True)
class Prometheus:
    """Lives in a namespace of its own."""

    kubectl: Kubectl
    namespace: str

    def start(self, monitors: Sequence[Mapping[str, Any]]) -> None:
        jobs = [job(one, n) for one in monitors for n in range(len(one["spec"]["endpoints"]))]
        config = json.dumps({"scrape_configs": jobs})  # JSON is YAML
        self.kubectl.apply(*self._rights(), *self._pod(config))
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

    def _rights(self) -> tuple[dict[str, Any], ...]:
        rules = [
            {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list", "watch"]},
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
        ]
        rbac = "rbac.authorization.k8s.io"
        account = {"kind": "ServiceAccount", "name": NAME, "namespace": self.namespace}
        return (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": NAME, "namespace": self.namespace},
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "pippin-test-prometheus"},
                "rules": rules,
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "pippin-test-prometheus"},
                "roleRef": {
                    "apiGroup": rbac,
                    "kind": "ClusterRole",
                    "name": "pippin-test-prometheus",
                },
                "subjects": [account],
            },
        )

    def _pod(self, config: str) -> tuple[dict[str, Any], ...]:
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
                    "serviceAccountName": NAME,
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
