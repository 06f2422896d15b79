"""Weights on a volume of their own outlive the Pods that fetched them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import tinymodel
from support.e2e import Tenant
from support.eventually import eventually
from support.hub import hub
from support.manifests import key, model
from support.traffic import stream_once

pytestmark = [pytest.mark.containers, pytest.mark.same_machine, pytest.mark.timeout(240)]


async def test_weights_on_a_volume_are_fetched_once(tenant: Tenant, tmp_path: Path):
    weights = tinymodel.make(tmp_path / "tiny")
    host = os.environ["PIPPIN_E2E_HOST_ADDRESS"]
    with hub("org/tiny", weights, host=host) as running:
        env = {"HF_ENDPOINT": running.url, "PIPPIN_SERVER_PRIVATE_NETWORKS": f'["{host}/32"]'}
        fetched = model(
            "tiny",
            tenant.namespace,
            model={"uri": "hf://org/tiny@main"},
            engine={"type": "mlx", "env": [{"name": n, "value": v} for n, v in env.items()]},
            resources={"requests": {"memory": "256Mi"}},
            storage={"size": "1Gi", "retain": False},
        )
        tenant.apply(fetched, key("app", tenant.namespace))
        tenant.wait_ready("tiny")
        before = len(running.downloads)
        (pod,) = tenant.server_pods("tiny")
        tenant.kubectl("delete", "pod", pod["metadata"]["name"])
        tenant.wait_ready("tiny")
        await eventually(lambda: tenant.server_pods("tiny"), until=lambda pods: len(pods) == 1)
        assert len(running.downloads) == before > 0
    assert await stream_once(await tenant.client("app"), "tiny", "hello") is not None
    tenant.kubectl("delete", "mdep", "tiny")
    await eventually(lambda: tenant.kubectl.items("pvc"), until=lambda found: found == [])
