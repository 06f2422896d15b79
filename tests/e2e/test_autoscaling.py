"""A model that runs only while somebody asks for it."""

from __future__ import annotations

import asyncio

import openai
from openai.types.chat import ChatCompletionMessageParam

from support.e2e import Tenant
from support.eventually import eventually
from support.manifests import key, model
from support.traffic import stream_once

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "good morning"}]


async def test_a_model_at_rest_is_woken_by_a_request_answers_it_and_rests_again(tenant: Tenant):
    scaling = {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelay": "1s"}
    tenant.apply(model("echo", tenant.namespace, autoscaling=scaling), key("app", tenant.namespace))
    await tenant.status("echo", lambda s: s.get("phase") == "ScaledToZero")
    assert tenant.server_pods("echo") == []
    client = await tenant.client("app")
    whole, streamed = await asyncio.gather(answer(client), stream_once(client, "echo", "hello"))
    assert "good morning" in whole and streamed
    await tenant.status("echo", lambda s: s.get("phase") == "ScaledToZero")
    await eventually(lambda: tenant.server_pods("echo") == [], within=60)
    told = {
        event["reason"]: event["note"] for event in tenant.kubectl.items("events.events.k8s.io")
    }
    assert told["ScaledUp"].startswith("from 0 to 1 replicas: ")
    assert told["ScaledDown"].startswith("from 1 to 0 replicas: nobody asked for it")


async def answer(client: openai.AsyncOpenAI) -> str:
    done = await client.chat.completions.create(model="echo", messages=ASKED)
    return str(done.choices[0].message.content)
