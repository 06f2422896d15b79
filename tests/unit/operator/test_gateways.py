"""What a gateway answers is read whole, or it has not told."""

from __future__ import annotations

import json

import pytest

from pippin_contract.endpoint import Endpoint
from pippin_operator.gateways import Gateways, Silent
from support.upstreams import Turn, answer, upstream

MODELS = 20_000


def report(models: int) -> bytes:
    told = [{"model": f"team-a/m{n}", "asked_seconds_ago": 1} for n in range(models)]
    return json.dumps({"version": 1, "models": told}).encode()


async def ask(said: bytes) -> int:
    async def serve(turn: Turn) -> None:
        await turn.send(said)

    async with upstream(serve) as gateway, Gateways("token") as gateways:
        where = Endpoint("127.0.0.1", gateway.port)
        return len((await gateways.demand(where)).models)


async def test_a_long_answer_is_read_to_its_end() -> None:
    assert await ask(answer(report(MODELS))) == MODELS


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(b"{}", status="404 Not Found"), "answered with 404"),
        (answer(b'{"version": 2}'), "none that this version understands"),
        (answer(b"not JSON"), "none that this version understands"),
        (answer(report(9)).replace(b"Length: ", b"Length: 9"), "cannot be reached"),
        (b"nonsense\r\n\r\n", "cannot be reached"),
    ],
    ids=["404", "newer", "no JSON", "cut off", "no HTTP"],
)
async def test_what_is_no_answer_is_silence(said: bytes, why: str) -> None:
    async def cut(turn: Turn) -> None:
        await turn.send(said)
        turn.writer.close()

    async with upstream(cut) as gateway, Gateways("token") as gateways:
        with pytest.raises(Silent, match=why):
            await gateways.demand(Endpoint("127.0.0.1", gateway.port))
