"""Who may call: the gateway by its signed token, or holders of keys from a file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pippin_contract.serverconfig import AuthConfig, PublicKey
from pippin_edge import tokens
from support.eventually import eventually
from support.servers import Running, echo_config, serving, started

AUDIENCE = "team-a/echo"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


def a_key() -> tuple[tokens.Signer, PublicKey]:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key()
    return (
        tokens.Signer(pem, time.time),
        PublicKey(kid=tokens.kid(public), pem=tokens.public_pem(public)),
    )


async def status(server: Running, token: str | None) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return (await server.post("/v1/chat/completions", HELLO, headers=headers)).status_code


async def test_only_the_gateways_token_for_this_model_opens(tmp_path: Path) -> None:
    current, current_public = a_key()
    following, following_public = a_key()
    stranger, _ = a_key()
    auth = AuthConfig(
        mode="gateway", audience=AUDIENCE, public_keys=(current_public, following_public)
    )
    async with serving(tmp_path, echo_config(auth=auth)) as server:
        assert await status(server, current.token(AUDIENCE, "team-a/key")) == 200
        assert await status(server, following.token(AUDIENCE, "team-a/key")) == 200
        for refused in (
            None,
            "nonsense",
            stranger.token(AUDIENCE, "team-a/key"),
            current.token("team-b/echo", "team-a/key"),
        ):
            assert await status(server, refused) == 401
        anonymous = await server.post("/v1/chat/completions", {"bad": "body"})
        assert anonymous.status_code == 401
        assert anonymous.json()["error"]["code"] == "invalid_api_key"
        assert "www-authenticate" in anonymous.headers
        for path in ("/v1/models", "/v1/queue/stats", "/nothing"):
            assert (await server.get(path)).status_code == 401
        for path in ("/health", "/ready", "/livez", "/metrics", "/v1/metrics"):
            assert (await server.get(path)).status_code == 200
        # From this machine only.
        assert (await server.get("/internal/diagnostics")).status_code == 200
        drained = await server.post("/internal/drain", {})
        assert drained.status_code == 200


async def test_a_standalone_server_takes_the_keys_of_a_file(tmp_path: Path) -> None:
    key = "sk-" + "a" * 40
    (tmp_path / "keys").write_text(f"# ours\n{key}\n")
    env = {"PIPPIN_SERVER_API_KEYS_FILE": str(tmp_path / "keys")}
    async with started(tmp_path, ["--engine", "echo"], env=env) as server:
        assert await status(server, key) == 200
        assert await status(server, key[:-1] + "b") == 401
        assert await status(server, None) == 401
        by_header = await server.post("/v1/chat/completions", HELLO, headers={"x-api-key": key})
        assert by_header.status_code == 200
        assert key not in server.access_lines + server.log


async def test_a_persons_request_goes_before_the_batches_that_came_first(tmp_path: Path) -> None:
    gateway, public = a_key()
    auth = AuthConfig(mode="gateway", audience=AUDIENCE, public_keys=(public,))
    config = echo_config(auth=auth, echo={"wedge_after": 1}, max_concurrency=1, max_queue=8)
    done: list[str] = []
    async with serving(tmp_path, config) as server:

        async def ask(key: str, *, batch: bool) -> None:
            await status(server, gateway.token(AUDIENCE, key, batch=batch))
            done.append(key)

        async def pending() -> tuple[int, int]:
            shown = {"authorization": f"Bearer {gateway.token(AUDIENCE, 'x/y')}"}
            async with server.client(headers=shown) as http:
                stats = (await http.get("/v1/queue/stats")).json()
            return stats["pending"], stats["pending_batch"]

        async with asyncio.TaskGroup() as group:
            for number in range(3):  # the first of them stands still
                group.create_task(ask(f"team-a/nightly-{number}", batch=True))
            await eventually(pending, until=lambda found: found == (2, 2))
            group.create_task(ask("team-a/person", batch=False))
            await eventually(pending, until=lambda found: found == (3, 2))
            await server.post("/internal/echo", {"wedgeAfter": 0, "firstTokenSeconds": 0.1})
    assert done[1] == "team-a/person"
