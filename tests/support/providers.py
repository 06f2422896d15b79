"""Models of providers outside, for a gateway without an operator."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from pippin_contract import providers

from .certificates import Authority
from .gateway import NAMESPACE, Running, model_object, running_gateway
from .upstreams import ANSWER, Turn, Upstream, answer

PATH = "/v1/chat/completions"
ASK: dict[str, object] = {"model": "cloud", "messages": [], "temperature": 0.5}
SECRET = {"name": "provider", "key": "api-key"}
KEY = "sk-of-the-provider-0123456789"
OF_CLOUD = {"model": "team-a/cloud", "key": "team-a/app"}
#: No test waits for another try.
ONCE = {"attempts": 1, "backoff": "0s"}


@asynccontextmanager
async def gateway_of_providers(directory: Path, authority: Authority) -> AsyncIterator[Running]:
    """It trusts that authority, and lets providers lie on this machine."""
    async with running_gateway(
        directory,
        provider_networks=("127.0.0.0/8", "::1/128"),
        provider_ca_dir=str(authority.public.parent),
        first_token_timeout_seconds=0.5,
        total_timeout_seconds=3,
    ) as running:
        yield running


def cloud(url: str, name: str = "cloud", **spec: Any) -> dict[str, Any]:
    external = {"url": url, "model": "big-1", "apiKeySecretRef": SECRET}
    external |= spec.pop("external", {})
    engine = {"type": "external", "external": {k: v for k, v in external.items() if v}}
    return model_object(name, engine=engine, **{"retries": ONCE, **spec})


def serve(gateway: Running, *models: dict[str, Any], key: str = KEY) -> None:
    """These are the models, and the operator has handed their keys over."""
    gateway.store.replace("modeldeployments", models)
    gateway.store.refresh()
    rows = {}
    for model in models:
        external = model["spec"].get("engine", {}).get("external")
        if external and "apiKeySecretRef" in external:
            made = handed(external["url"], key)
            rows[providers.row(NAMESPACE, model["metadata"]["name"])] = made
    gateway.provider_keys.put({"data": rows})


def handed(url: str, key: str = KEY) -> str:
    made = providers.Handed(url=url, secret="provider", entry="api-key", key=key)
    return base64.b64encode(made.model_dump_json().encode()).decode()


async def ask(gateway: Running, **body: object) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(PATH, json={**ASK, **body})


def plain(replica: Upstream) -> str:
    return f"http://127.0.0.1:{replica.port}"


async def names_itself(turn: Turn) -> None:
    """As OpenAI does: under the name of a snapshot."""
    await turn.send(answer(ANSWER.replace(b'"qwen"', b'"big-1-2026-01-01"')))


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["code"]


def failures(gateway: Running, kind: str) -> float:
    name = "pippin_gateway_upstream_errors_total"
    return gateway.metric(name, model="team-a/cloud", kind=kind)
