"""From `kubectl apply` to an answer: what an application and its owner see."""

import openai
import pytest

from support.e2e import Cluster, Tenant, accepted
from support.eventually import eventually
from support.manifests import key, model
from support.traffic import stream_once

#: What SmolLM2-135M-Instruct says, greedily, to the prompt below: the first words of its answer.
STORY = "As the sun dipped into the horizon"
STORY_PROMPT = "Write a short story about a cat."


async def test_a_real_model_streams_the_words_it_must(cluster: Cluster, tenant: Tenant):
    tenant.apply(
        model(
            "smollm2",
            tenant.namespace,
            model={"uri": cluster.weights_uri, "task": "chat", "contextLength": 2048},
            engine={"type": "mlx"},
            resources={"requests": {"cpu": "500m", "memory": "1Gi"}},
        ),
        key("app", tenant.namespace),
    )
    tenant.kubectl("wait", "mdep/smollm2", "--for=condition=Ready", "--timeout=240s", timeout=250)
    client = await tenant.client("app")
    words = []
    stream = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": STORY_PROMPT}],
        stream=True,
        temperature=0,
        max_tokens=24,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        words += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage
    streamed = "".join(words)
    assert streamed.startswith(STORY)
    assert usage is not None and usage.completion_tokens == 24

    whole = await client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": STORY_PROMPT}],
        temperature=0,
        max_tokens=24,
    )
    assert whole.choices[0].message.content == streamed
    assert whole.choices[0].finish_reason == "length"


async def test_a_key_sees_only_its_models(tenant: Tenant):
    tenant.apply(
        model("open", tenant.namespace),
        model("closed", tenant.namespace),
        key("narrow", tenant.namespace, models=["open"]),
        key("nothing", tenant.namespace, models=[]),
    )
    tenant.wait_ready("open", "closed")
    narrow, nothing = await tenant.client("narrow"), await tenant.client("nothing")
    assert [m.id for m in (await narrow.models.list()).data] == ["open"]
    assert [m.id for m in (await nothing.models.list()).data] == []
    with pytest.raises(openai.NotFoundError) as hidden:
        await stream_once(narrow, "closed", "hello")
    with pytest.raises(openai.NotFoundError) as absent:
        await stream_once(narrow, "no-such-model", "hello")
    assert hidden.value.code == absent.value.code == "model_not_found"
    assert await stream_once(narrow, "open", "hello there")


async def test_texts_are_embedded_and_count_against_the_key(tenant: Tenant):
    tenant.apply(
        model(
            "embed",
            tenant.namespace,
            model={"task": "embedding"},
            engine={"echo": {"dimensions": 16}},
            batching={"maxBatchSize": 8, "window": "10ms"},
        ),
        key("app", tenant.namespace, limits={"tpm": 1000}),
    )
    tenant.wait_ready("embed")
    conditions = tenant.kubectl.json("get", "mdep", "embed")["status"]["conditions"]
    assert [c["status"] for c in conditions if c["type"] == "SpecHonored"] == ["True"]
    client = await tenant.client("app")
    raw = await client.embeddings.with_raw_response.create(
        model="embed", input=["one two", "three", "one two"]
    )
    vectors = [item.embedding for item in raw.parse().data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [len(vector) for vector in vectors] == [16] * 3
    assert raw.parse().usage.total_tokens == 5
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 1000
    with pytest.raises(openai.BadRequestError, match="does embedding"):
        await stream_once(client, "embed", "hello")


async def test_models_of_another_namespace_are_as_if_they_were_not_until_they_are_opened(
    tenant: Tenant, other_tenant: Tenant
):
    tenant.apply(model("mine", tenant.namespace))
    name = f"{tenant.namespace}/mine"
    other_tenant.apply(key("theirs", other_tenant.namespace, models=["*", name]))
    client = await other_tenant.client("theirs")
    assert [m.id for m in (await client.models.list()).data] == []
    for asked in ("mine", name):
        with pytest.raises(openai.NotFoundError):
            await stream_once(client, asked, "hello")
    opened = {"spec": {"auth": {"namespaces": [other_tenant.namespace]}}}
    tenant.kubectl.patch("mdep", "mine", opened)
    tenant.wait_ready("mine")

    async def listed() -> bool:
        return [m.id for m in (await client.models.list()).data] == [name]

    await eventually(listed, within=10)
    assert await stream_once(client, name, "hello there")


async def test_a_revoked_key_is_refused_within_two_seconds(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("brief", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("brief")
    assert await stream_once(client, "echo", "hello")
    tenant.kubectl("delete", "apikey", "brief", "--wait=false")

    async def refused() -> bool:
        try:
            await client.models.list()
        except openai.AuthenticationError as error:
            return error.code == "invalid_api_key"
        return False

    await eventually(refused, within=2)


async def test_a_rotated_key_and_the_one_before_are_both_good_until_the_overlap_ends(
    tenant: Tenant,
):
    overlap = {"interval": "720h", "overlap": "8s"}
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace, rotation=overlap))
    tenant.wait_ready("echo")
    old = await tenant.client("app")
    before = tenant.secret("app")
    tenant.kubectl("annotate", "ak/app", "pippin.dev/rotate=today")
    await eventually(lambda: tenant.secret("app") != before)
    new = await tenant.client("app")
    for client in (new, old):
        assert await stream_once(client, "echo", "both are good")

    await eventually(lambda: accepted(old), until=lambda taken: not taken)
    assert await stream_once(new, "echo", "the new one goes on")


async def test_a_disabled_key_is_refused_until_it_is_enabled_again(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("paused", tenant.namespace))
    client = await tenant.client("paused")

    async def status() -> int:
        try:
            await client.models.list()
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    await eventually(status, until=lambda code: code == 200)
    tenant.kubectl.patch("apikey", "paused", {"spec": {"enabled": False}})
    await eventually(status, until=lambda code: code == 401, within=2)
    tenant.kubectl.patch("apikey", "paused", {"spec": {"enabled": True}})
    await eventually(status, until=lambda code: code == 200, within=2)


async def test_over_the_limit_says_when_to_come_back(tenant: Tenant):
    client = await limited(tenant)
    with pytest.raises(openai.RateLimitError) as refused:
        await stream_once(client, "echo", "three")
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60


@pytest.mark.embedded("a minute of waiting, which says as much on one cluster as on two")
@pytest.mark.timeout(180)
async def test_over_the_limit_the_stock_client_comes_back_by_itself(tenant: Tenant):
    client = await limited(tenant)
    patient = client.with_options(max_retries=2, timeout=90)
    assert await stream_once(patient, "echo", "three")


async def limited(tenant: Tenant) -> openai.AsyncOpenAI:
    """With a key that has used up its two requests a minute."""
    tenant.apply(model("echo", tenant.namespace), key("slow", tenant.namespace, limits={"rpm": 2}))
    tenant.wait_ready("echo")
    client = await tenant.client("slow")
    assert await stream_once(client, "echo", "one")
    assert await stream_once(client, "echo", "two")
    return client
