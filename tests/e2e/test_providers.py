"""A provider outside the cluster: a server on its own, with a key of its own, on this machine."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from support.e2e import Tenant
from support.manifests import key, model, sample
from support.servers import Running, started
from support.traffic import stream_once

# The gateway's process must reach what listens on this machine's loopback.
pytestmark = pytest.mark.embedded
KEY = "sk-of-the-provider-" + "a" * 30


async def test_a_provider_serves_under_keys_and_stands_in_for_a_model_that_is_down(
    tenant: Tenant, tmp_path: Path
):
    (tmp_path / "keys").write_text(KEY)
    env = {"PIPPIN_SERVER_API_KEYS_FILE": str(tmp_path / "keys")}
    async with started(tmp_path, ["--engine", "echo"], env=env) as provider:
        cloud = sample("external.yaml")
        cloud["spec"]["engine"]["external"] |= {"url": f"{provider.url}/v1", "model": "echo"}
        local = model("local", tenant.namespace, suspend=True, fallbacks=["gpt-cloud"])
        tenant.apply(
            cloud,
            local,
            key("app", tenant.namespace),
            key("stays", tenant.namespace, egress="Deny"),
        )
        await tenant.condition("mdep", "gpt-cloud", "Ready", "False", says="create secret")
        give(tenant)
        app, stays = await tenant.client("app"), await tenant.client("stays")
        assert await stream_once(app, "gpt-4o", "hello there")
        assert await stream_once(app, "local", "hello there")
        await asks_for_itself(app, provider)
        assert {one.id for one in (await app.models.list()).data} == {"gpt-4o", "local"}
        assert [one.id for one in (await stays.models.list()).data] == ["local"]
        with pytest.raises(openai.NotFoundError):
            await stream_once(stays, "gpt-4o", "hello")
        with pytest.raises(openai.InternalServerError, match="suspended"):
            await stream_once(stays, "local", "hello")
    assert tenant.server_pods("gpt-cloud") == []


def give(tenant: Tenant) -> None:
    """The Secret that the sample names; a touch of the object, so that nobody waits a minute."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "openai"}}
    tenant.apply({**secret, "stringData": {"api-key": KEY}})
    tenant.kubectl("annotate", "mdep", "gpt-cloud", "example.com/looked-at=now")
    tenant.wait_ready("gpt-cloud")


async def asks_for_itself(client: openai.AsyncOpenAI, provider: Running) -> None:
    """The provider saw our key for it, and our model's name nowhere."""
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
    )
    assert raw.parse().model == "gpt-4o"
    assert raw.headers["x-pippin-served-by"] == "external/gpt-cloud"
    assert await provider.metric("pippin_server_requests_total") >= 3
    assert KEY not in provider.access_lines + provider.log
