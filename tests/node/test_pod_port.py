"""From another machine to a native Pod: through the TLS port of its node, and only for gateways."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cluster.controlplane import ControlPlane
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pippin_contract import endpoint as pod_endpoint
from pippin_contract.endpoint import SERVER_NAME, Endpoint
from pippin_contract.serverconfig import AuthConfig, PublicKey, ServerConfig
from pippin_contract.wire import SERVER_CONFIG_DIR
from pippin_edge.tokens import Signer, kid, public_pem
from pippin_gateway.routing.retry import Failure
from pippin_gateway.upstream.dial import dial
from pippin_gateway.upstream.failure import UpstreamFailure
from pippin_gateway.upstream.http1 import Connection
from pippin_node.podport import KNOCK_SECONDS
from support.apiserver import new_namespace
from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import NodeAgent, container, endpoint, pod, ready

#: Another address of this machine, as if it were another machine's.
ADDRESS = "127.0.0.2"
AUDIENCE = "team/model"


@pytest.fixture(scope="module")
def mac(
    full_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeAgent]:
    """A node that others reach at an address of its own."""
    agent = NodeAgent(full_control_plane, tmp_path_factory.mktemp("mac") / "root", "mac")
    agent.flags = [f"--host-address={ADDRESS}", "--os=darwin"]
    agent.join()
    agent.start()
    asyncio.run(agent.ready())
    yield agent
    agent.reset()
    # Else the scheduler takes it for alive, for forty seconds.
    agent.kubectl("delete", "node", agent.name)


def new_signer() -> tuple[Signer, PublicKey]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key()
    return Signer(pem, time.time), PublicKey(kid=kid(public), pem=public_pem(public))


@pytest.fixture(scope="module")
def gateway() -> tuple[Signer, PublicKey]:
    """The gateway's key, and its public half as every server has it."""
    return new_signer()


@pytest.fixture
async def kubectl(mac: NodeAgent) -> AsyncIterator[Kubectl]:
    namespace = new_namespace(mac.plane)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    await eventually(lambda: mac.plane.api.ok(account))
    scoped = mac.kubectl.within(namespace)
    yield scoped
    scoped("delete", "pods", "--all", "--grace-period=1", "--wait=true")


@pytest.fixture
async def served(kubectl: Kubectl, gateway: tuple[Signer, PublicKey]) -> Endpoint:
    """A toy on the Mac that trusts the gateway, as a server Pod does."""
    kubectl.apply(*server("toy", gateway[1]))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    return pod_endpoint.parse(endpoint(seen))


def server(name: str, *keys: PublicKey) -> tuple[dict[str, Any], ...]:
    auth = AuthConfig(mode="gateway", audience=AUDIENCE, public_keys=keys)
    config = ServerConfig(name="model", served_name="model", engine="echo", auth=auth)
    mount = {"name": "config", "mountPath": SERVER_CONFIG_DIR}
    return (
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"server.json": config.model_dump_json()},
        },
        pod(
            name,
            container(volumeMounts=[mount]),
            nodeSelector={"kubernetes.io/os": "darwin"},
            volumes=[{"name": "config", "configMap": {"name": name}}],
        ),
    )


async def get(connection: Connection, path: str) -> tuple[int, bytes]:
    connection.send(f"GET {path} HTTP/1.1\r\nhost: toy\r\n\r\n".encode(), b"")
    status = await connection.head()
    body = b""
    while part := await connection.read():
        body += part
    return status, body


async def test_a_gateway_reaches_a_pod_through_its_nodes_tls_port(
    served: Endpoint, gateway: tuple[Signer, PublicKey]
) -> None:
    assert (served.host, served.port) == (ADDRESS, 10260)
    connection = await dial(served, gateway[0].token(AUDIENCE, "team/key"))
    for _ in range(3):  # the connection is the Pod's own now: kept, with no word of the node
        assert await get(connection, "/ready") == (200, b"")
    connection.close()


async def test_a_large_answer_comes_whole_at_the_callers_pace(
    kubectl: Kubectl, mac: NodeAgent, served: Endpoint, gateway: tuple[Signer, PublicKey]
) -> None:
    content = os.urandom(8 * 1024 * 1024)
    (mac.pod_dir(ready(kubectl, "toy")) / "root/tmp/large").write_bytes(content)
    connection = await dial(served, gateway[0].token(AUDIENCE, "team/key"))
    connection.send(b"GET /file?path=/tmp/large HTTP/1.1\r\nhost: toy\r\n\r\n", b"")
    assert await connection.head() == 200
    received = bytearray()
    while part := await connection.read():
        received += part
        await asyncio.sleep(0)  # others have their turn: the sender must wait for this reader
    connection.close()
    assert bytes(received) == content


async def test_who_connects_and_says_nothing_is_let_go(served: Endpoint) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        served.host, served.port, ssl=context, server_hostname=SERVER_NAME
    )
    async with asyncio.timeout(KNOCK_SECONDS + 5):
        assert await reader.read() == b""
    writer.close()


async def test_the_nodes_logs_are_on_the_same_port(kubectl: Kubectl, served: Endpoint) -> None:
    assert "serving on" in await eventually(lambda: kubectl("logs", "toy"))


@pytest.mark.parametrize("who", ["stranger", "another model's", "nobody"])
async def test_who_is_no_gateway_gets_no_byte_to_the_pod(
    served: Endpoint, gateway: tuple[Signer, PublicKey], who: str
) -> None:
    stranger, _ = new_signer()
    token = {
        "stranger": stranger.token(AUDIENCE, "team/key"),
        "another model's": gateway[0].token("team/other", "team/key"),
        "nobody": "",
    }[who]
    with pytest.raises(UpstreamFailure) as failed:
        await dial(served, token)
    assert failed.value.kind is Failure.REFUSED_TOKEN


async def test_a_pod_that_is_not_there_is_not_told_from_one_that_is(
    served: Endpoint, gateway: tuple[Signer, PublicKey]
) -> None:
    with pytest.raises(UpstreamFailure) as failed:
        await dial(replace(served, path="/pods/none"), gateway[0].token(AUDIENCE, "team/key"))
    assert failed.value.kind is Failure.REFUSED_TOKEN


async def test_a_machine_that_shows_another_certificate_gets_no_token(
    served: Endpoint, gateway: tuple[Signer, PublicKey]
) -> None:
    with pytest.raises(UpstreamFailure, match="another certificate") as failed:
        await dial(replace(served, pin="0" * 64), gateway[0].token(AUDIENCE, "team/key"))
    assert failed.value.kind is Failure.CONNECT


async def test_a_pod_that_trusts_nobody_is_reached_by_nobody(
    kubectl: Kubectl, gateway: tuple[Signer, PublicKey]
) -> None:
    kubectl.apply(*server("alone"))
    seen = await eventually(lambda: ready(kubectl, "alone"))
    with pytest.raises(UpstreamFailure):
        await dial(pod_endpoint.parse(endpoint(seen)), gateway[0].token(AUDIENCE, "team/key"))


async def test_the_endpoint_outlives_a_restart_of_the_agent(
    kubectl: Kubectl, mac: NodeAgent, served: Endpoint, gateway: tuple[Signer, PublicKey]
) -> None:
    mac.end()
    mac.start()
    await mac.ready()

    async def reached() -> bool:
        connection = await dial(served, gateway[0].token(AUDIENCE, "team/key"))
        answer = await get(connection, "/ready")
        connection.close()
        return answer == (200, b"")

    await eventually(reached, retry=(UpstreamFailure,))
    assert pod_endpoint.parse(endpoint(ready(kubectl, "toy"))) == served
