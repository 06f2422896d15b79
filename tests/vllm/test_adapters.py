"""A model and its LoRA adapters in one vLLM: by name, listed, and while they come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from pippin_contract.serverconfig import AdapterConfig
from support import adapters
from support.adapters import Lora
from support.servers import Running
from support.vllm import vllm_config, vllm_serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SQL, LATER = Lora(seed=1, alpha=16), Lora(seed=2, rank=12, alpha=48)
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
PROMPT = " ".join(str(number) for number in range(100, 160))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, smollm: Path) -> AsyncIterator[Running]:
    root = tmp_path_factory.mktemp("adapters")
    sql = adapters.peft(root / "sql", smollm, SQL)
    adapters.peft(root / "open/later", smollm, LATER)
    adapters.mlx(root / "open/mlx", smollm, LATER)
    given = (AdapterConfig(name="sql", path=str(sql)),)
    config = vllm_config(smollm, aliases=("small",), adapters=given)
    env = {
        "PIPPIN_SERVER_ADAPTER_SOURCES": json.dumps([f"file://{root}/open"]),
        "PIPPIN_SERVER_FILE_ROOTS": json.dumps([str(root)]),
    }
    async with vllm_serving(root, config, **env) as running:
        yield running


async def said(client: openai.AsyncOpenAI, model: str) -> tuple[str, str, int]:
    """The model that it says it is, its words, and how many tokens it had read before."""
    answer = await client.completions.create(model=model, prompt=PROMPT, **GREEDY)
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    return answer.model, answer.choices[0].text, (details.cached_tokens or 0) if details else 0


async def test_adapters_answer_by_name_and_come_and_go(server: Running) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120
    ) as client:
        plain, sql = await said(client, "smol"), await said(client, "smol:sql")
        assert (plain[0], sql[0]) == ("smol", "smol:sql")
        assert plain[1] != sql[1]
        assert plain[2] == sql[2] == 0, "what one has read is not the other's"
        together = await asyncio.gather(
            *(said(client, name) for name in ("small", "small:sql") * 4)
        )
        assert {one[1] for one in together[::2]} == {plain[1]}
        assert {one[1] for one in together[1::2]} == {sql[1]}
        listed = [
            (card.id, card.model_dump()["parent"]) for card in (await client.models.list()).data
        ]
        assert listed == [("smol", None), ("smol:sql", "smol")]

        shelf = server.directory / "open"
        body = {"lora_name": "later", "lora_path": str(shelf / "later")}
        loaded = await server.post("/v1/load_lora_adapter", body)
        assert loaded.status_code == 200, loaded.text
        later = await said(client, "smol:later")
        assert later[0] == "smol:later" and later[1] not in (plain[1], sql[1])
        left = await server.post("/v1/unload_lora_adapter", {"lora_name": "later"})
        assert left.status_code == 200
        with pytest.raises(openai.NotFoundError):
            await said(client, "smol:later")
        assert (await said(client, "smol"))[1] == plain[1]

        # Others may come by that name: nothing that was read by the first is taken for theirs.
        await server.post("/v1/load_lora_adapter", body)
        assert (await said(client, "smol:later"))[1:] == (later[1], 0)

        of_mlx = {"lora_name": "other", "lora_path": str(shelf / "mlx")}
        refused = await server.post("/v1/load_lora_adapter", of_mlx)
        assert refused.status_code == 400
        assert "vLLM reads PEFT's form" in refused.json()["error"]["message"]
