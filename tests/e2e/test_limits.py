"""Limits over all gateway Pods of the cluster, however many it has."""

from __future__ import annotations

import asyncio
from collections import Counter

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.manifests import key, model

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


async def burst(client: openai.AsyncOpenAI, count: int) -> Counter[int]:
    """Requests at once; how many answers of each status."""

    async def one() -> int:
        try:
            await client.chat.completions.create(model="echo", messages=ASKED, max_tokens=1)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


async def test_no_more_than_the_limit_passes_all_gateways_together(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("ten", tenant.namespace, limits={"rpm": 10}))
    tenant.wait_ready("echo")
    assert await burst(await tenant.client("ten"), 40) == {200: 10, 429: 30}


@pytest.mark.containers("the chart's Redis is an image")
async def test_the_charts_redis_may_go_and_come_back(cluster: Cluster, tenant: Tenant):
    system = cluster.kubectl.within(cluster.system_namespace)
    tenant.apply(
        model("echo", tenant.namespace),
        key("free", tenant.namespace, limits={"rpm": 100_000}),
        key("ten", tenant.namespace, limits={"rpm": 10}),
    )
    tenant.wait_ready("echo")
    free, ten = await tenant.client("free"), await tenant.client("ten")
    system("delete", "pod", "pippin-redis-0", "--grace-period=0", "--force", "--wait=false")
    seen: Counter[int] = Counter()

    async def back() -> bool:
        seen.update(await burst(free, 5))
        pod = system.json("get", "pod", "pippin-redis-0")
        states = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
        return "deletionTimestamp" not in pod["metadata"] and states.get("Ready") == "True"

    await eventually(back, within=60)
    assert set(seen) == {200}, "requests pass while it is away"
    # Both gateways find it within a second or two; then they count together again.
    await eventually(lambda: connected(cluster), within=20)
    assert await burst(ten, 40) == {200: 10, 429: 30}


def connected(cluster: Cluster) -> bool:
    """Whether every gateway Pod says that Redis counts, asked through the API server."""
    system = cluster.kubectl.within(cluster.system_namespace)
    pods = system.items("pods", "-l", "app.kubernetes.io/component=gateway")
    names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    path = f"/api/v1/namespaces/{cluster.system_namespace}/pods"
    told = [system("get", "--raw", f"{path}/{name}:8080/proxy/status") for name in names]
    return bool(told) and all("counted in Redis" in one for one in told)
