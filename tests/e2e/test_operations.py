"""Day two: scale, roll, crash, restart, outage, and the end."""

import asyncio
import os
import signal

import pytest

from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.manifests import key, model
from support.traffic import steady, stream_once


async def test_scaling_up_down_to_zero_and_back(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    tenant.kubectl("scale", "mdep/echo", "--replicas=2")
    await tenant.status("echo", lambda s: s.get("readyReplicas") == 2)
    assert await stream_once(client, "echo", "two of us")
    tenant.kubectl("scale", "mdep/echo", "--replicas=0")
    off = await tenant.condition("mdep", "echo", "Ready", "False")
    assert off["reason"] == "ScaledToZero"
    assert tenant.kubectl.json("get", "service", "echo")["metadata"]["name"] == "echo"
    tenant.kubectl("scale", "mdep/echo", "--replicas=1")
    tenant.wait_ready("echo")
    assert await stream_once(client, "echo", "back again")


@pytest.mark.timeout(180)
async def test_new_engine_arguments_roll_without_a_failed_request(tenant: Tenant):
    echo = {"firstTokenDelay": "20ms"}
    tenant.apply(
        model("echo", tenant.namespace, engine={"type": "echo", "echo": echo}),
        key("app", tenant.namespace),
    )
    tenant.wait_ready("echo")
    before = {pod["metadata"]["name"] for pod in tenant.server_pods("echo")}
    async with steady(await tenant.client("app"), "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        tenant.kubectl.patch(
            "mdep", "echo", {"spec": {"engine": {"echo": {"firstTokenDelay": "30ms"}}}}
        )

        def rolled() -> bool:
            pods = {pod["metadata"]["name"] for pod in tenant.server_pods("echo")}
            return bool(pods) and not pods & before

        await eventually(rolled, within=90)
        seen = tally.answered
        await eventually(lambda: tally.answered >= seen + 10)
    assert tally.failures == []


@pytest.mark.timeout(180)
async def test_a_model_that_goes_away_is_answered_by_its_fallback_and_nobody_sees_it(
    tenant: Tenant,
):
    tenant.apply(
        model("echo", tenant.namespace, fallbacks=["spare"]),
        model("spare", tenant.namespace),
        key("app", tenant.namespace, models=["echo"]),
    )
    tenant.wait_ready("echo")
    tenant.wait_ready("spare")
    client = await tenant.client("app")

    async def served_by() -> str:
        raw = await client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": "who"}]
        )
        return str(raw.headers["x-pippin-served-by"])

    async with steady(client, "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        assert (await served_by()).startswith("echo-")
        tenant.kubectl("scale", "mdep/echo", "--replicas=0")
        await eventually(served_by, until=lambda pod: pod.startswith("spare-"), within=60)
        seen = tally.answered
        await eventually(lambda: tally.answered >= seen + 10)
        tenant.kubectl("scale", "mdep/echo", "--replicas=1")
        await eventually(served_by, until=lambda pod: pod.startswith("echo-"), within=60)
    assert tally.failures == []


@pytest.mark.same_machine
async def test_a_killed_server_comes_back_and_its_status_never_lies(
    cluster: Cluster, tenant: Tenant
):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    (pod,) = tenant.server_pods("echo")
    os.kill(cluster.pids_of(pod)[0], signal.SIGKILL)
    down = await tenant.condition("mdep", "echo", "Ready", "False")
    assert down["reason"] in {"CrashLooping", "NoReadyReplicas", "Loading"}
    assert down["message"]
    await tenant.condition("mdep", "echo", "Ready", "True")
    (again,) = tenant.server_pods("echo")
    state = again["status"]["containerStatuses"][0]
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert state["restartCount"] == 1
    assert state["lastState"]["terminated"]["exitCode"] == 137
    assert await stream_once(client, "echo", "alive")


async def test_an_operator_that_restarts_touches_nothing(cluster: Cluster, tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    await tenant.client("app")

    def versions() -> dict[str, str]:
        kinds = "mdep,apikey,deployment,service,configmap,secret"
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in tenant.kubectl.items(kinds)
        }

    before = await tenant.settled(versions)
    system = cluster.kubectl.within(cluster.system_namespace)
    (operator,) = system.items("pods", "-l", "app.kubernetes.io/component=operator")
    system("delete", "pod", operator["metadata"]["name"])
    system("rollout", "status", "deployment/pippin-operator", "--timeout=60s")
    # A new object that becomes Active proves that the new operator has read all the old ones.
    tenant.apply(key("later", tenant.namespace))
    await tenant.client("later")
    after = versions()
    assert {name: after[name] for name in before} == before


@pytest.mark.embedded
@pytest.mark.timeout(360)
async def test_nothing_fails_while_the_api_server_is_away(cluster: Cluster, tenant: Tenant):
    """Nor after it: Kubernetes' own controllers take a minute to find back, and may meanwhile
    take Ready away from every Pod of a node that they have not heard of.
    """
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    async with steady(await tenant.client("app"), "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        cluster.stop_apiserver()
        away = tally.answered
        # The outage is the state under test: it must last for its 30 seconds.
        await asyncio.sleep(30)
        assert tally.answered > away + 50
        cluster.start_apiserver()
        tenant.apply(key("after", tenant.namespace))
        assert await stream_once(await tenant.client("after"), "echo", "back")
        tenant.apply(model("after", tenant.namespace))
        tenant.wait_ready("after", within=150)
    assert tally.failures == []
    assert tenant.server_pods("echo")[0]["status"]["containerStatuses"][0]["restartCount"] == 0


@pytest.mark.same_machine
async def test_deleting_everything_leaves_nothing(cluster: Cluster, tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    await tenant.client("app")
    (pod,) = tenant.server_pods("echo")
    assert cluster.pids_of(pod)
    assert cluster.files_of(pod) or cluster.node_root is None
    tenant.kubectl("delete", "mdep/echo", "apikey/app")

    def left() -> list[str]:
        kinds = "mdep,apikey,deployment,replicaset,pod,service,configmap,secret"
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in tenant.kubectl.items(kinds)
            if item["metadata"]["name"] != "kube-root-ca.crt"
        ]

    await eventually(left, until=lambda names: names == [], within=90)
    await eventually(lambda: cluster.pids_of(pod) == cluster.files_of(pod) == [], within=30)


async def test_the_key_is_in_its_secret_and_nowhere_else(cluster: Cluster, tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    assert await stream_once(client, "echo", "hello")
    system = cluster.kubectl.within(cluster.system_namespace)
    places = {
        "objects": tenant.kubectl(
            "get", "mdep,apikey,deployment,pod,service,configmap,events", "-o", "yaml"
        ),
        "operator": system("logs", "deployment/pippin-operator", "--tail=-1"),
        "gateway": system("logs", "deployment/pippin-gateway", "--tail=-1"),
        "server": tenant.kubectl("logs", "deployment/echo", "--tail=-1"),
    }
    assert [place for place, text in places.items() if client.api_key in text] == []
    assert all(places.values())
