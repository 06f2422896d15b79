"""What a key used and how a request fared, as a person asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openai.types.chat import ChatCompletionMessageParam

from support.e2e import Tenant
from support.eventually import eventually
from support.manifests import key, model

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


async def test_a_person_sees_what_a_key_used_and_how_a_request_fared(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    raw = await client.chat.completions.with_raw_response.create(model="echo", messages=ASKED)
    request_id = raw.headers["x-request-id"]
    used = raw.parse().usage
    assert used is not None

    def columns() -> list[str]:
        return tenant.kubectl("get", "ak", "app", "-o", "wide", "--no-headers").split()

    # As Phase, id, models, no rpm, no tpm, since when last used; then age, owner and the sums.
    await eventually(lambda: str(used.total_tokens) in columns(), within=60)
    said = pippin(tenant, "key", "usage", "app", "-n", tenant.namespace)
    assert f"{tenant.namespace}/echo" in said
    assert f": {used.total_tokens}" in said.splitlines()[-2]
    told = pippin(tenant, "explain", request_id)
    assert f"{tenant.namespace}/echo" in told and "200" in told
    assert tenant.server_pods("echo")[0]["metadata"]["name"] in told
    assert client.api_key not in said + told


def pippin(tenant: Tenant, *words: str) -> str:
    """`kubectl pippin …`, typed where the wheel put its scripts."""
    kubectl = tenant.cluster.kubectl
    path = f"{kubectl.binary.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(kubectl.binary), "pippin", *words, f"--kubeconfig={kubectl.kubeconfig}"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
