"""Weights from a hub: fetched, and every way in which they cannot be is told apart."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pippin_contract.serverconfig import ModelConfig, ServerConfig
from pippin_server.engines.base import Transfer
from pippin_server.models.loader import locate
from pippin_server.models.sources import hub as client
from pippin_server.models.sources.base import Surroundings
from pippin_server.models.sources.progress import Meter
from support import tinydiffusion
from support.hub import Hub, hub
from support.servers import Running, mlx_config, serving

REPOSITORY = "team/tiny"
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def a_hub(tiny_model: Path) -> Iterator[Hub]:
    with hub(REPOSITORY, tiny_model, TOKEN) as running:
        yield running


def a_config(tmp_path: Path, uri: str, token: str | None = TOKEN) -> ServerConfig:
    token_file = ""
    if token is not None:
        (tmp_path / "token").write_text(token + "\n")
        token_file = str(tmp_path / "token")
    model = ModelConfig(uri=uri, token_file=token_file)
    return mlx_config(Path("unused")).model_copy(update={"model": model})


def surroundings(tmp_path: Path, url: str) -> dict[str, str]:
    # A hub that cannot be reached is tried for long by default.
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "home"),
        "PIPPIN_SERVER_CACHE_DIR": str(tmp_path / "cache"),
    }


async def test_a_model_is_fetched_with_the_token_and_served(tmp_path: Path, a_hub: Hub) -> None:
    config = a_config(tmp_path, f"hf://{REPOSITORY}@main")
    async with serving(tmp_path, config, env=surroundings(tmp_path, a_hub.url)) as server:
        answer = await server.post(
            "/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 3}
        )
        assert answer.status_code == 200
    assert "model.safetensors" in a_hub.downloads
    assert list((tmp_path / "cache").rglob("model.safetensors"))


@pytest.fixture
def known_hub(a_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """To the client of this very process, which reads its environment once."""
    monkeypatch.setattr(constants, "ENDPOINT", a_hub.url)
    files = a_hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    return a_hub


def test_the_way_from_a_hub_is_told_in_bytes_too(tmp_path: Path, known_hub: Hub) -> None:
    told: list[Transfer] = []
    meter = Meter(lambda *words: told.append(words[2]), itertools.count(0.0).__next__)
    source = client.parse(f"hf://{REPOSITORY}@main")
    path = client.fetch(source, tmp_path, TOKEN, meter)
    size = sum(file.stat().st_size for file in path.iterdir())
    assert (told[-1].bytes, told[-1].total, told[-1].percent) == (size, size, 100)


def test_of_a_repository_of_pictures_only_what_is_read_is_fetched(
    tmp_path: Path, known_hub: Hub
) -> None:
    known_hub.files = tinydiffusion.make(tmp_path / "painter")
    weights = (known_hub.files / "vae/diffusion_pytorch_model.safetensors").read_bytes()
    for unread in ("all-in-one.safetensors", "safety_checker/model.safetensors"):
        (known_hub.files / unread).parent.mkdir(exist_ok=True)
        (known_hub.files / unread).write_bytes(weights)
    around = Surroundings(tmp_path / "cache", token=TOKEN)
    told = ModelConfig(uri=f"hf://{REPOSITORY}@main", task="image")
    path = asyncio.run(locate(told, around, lambda *_: None))
    found = sorted(file.parent.name for file in path.rglob("*.safetensors"))
    assert found == ["text_encoder", "unet", "vae"]
    assert (path / "tokenizer/merges.txt").is_file()


def test_a_hub_that_fails_is_asked_again(tmp_path: Path, known_hub: Hub) -> None:
    known_hub.status = 500
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        known_hub.status = 500 if len(pauses) < 2 else None

    meter = Meter(lambda *_: None, lambda: 0.0)
    path = client.fetch(client.parse(f"hf://{REPOSITORY}"), tmp_path, TOKEN, meter, pause)
    assert (path / "model.safetensors").exists()
    assert pauses == [0.1, 0.2]


async def ended(server: Running) -> tuple[int, str]:
    return await server.exit_code(within=60), server.termination_message


@pytest.mark.parametrize(
    ("uri", "token", "reason"),
    [
        (f"hf://{REPOSITORY}@main", None, "ModelSourceUnauthorized"),
        (f"hf://{REPOSITORY}@main", "hf_wrongwrongwrong", "ModelSourceUnauthorized"),
        (f"hf://{REPOSITORY}@v9", TOKEN, "ModelSourceNotFound"),
        ("hf://team/other@main", TOKEN, "ModelSourceNotFound"),
        ("hf://nonsense", TOKEN, "ModelSourceNotFound"),
    ],
)
async def test_a_source_that_will_not_do_ends_the_process_for_good(
    tmp_path: Path, a_hub: Hub, uri: str, token: str | None, reason: str
) -> None:
    config = a_config(tmp_path, uri, token)
    env = surroundings(tmp_path, a_hub.url)
    async with serving(tmp_path, config, wait="no", env=env) as server:
        code, message = await ended(server)
        assert (code, message.partition(":")[0]) == (78, reason)
        assert "hf_" not in message + server.log


async def test_a_hub_out_of_reach_is_worth_another_try(tmp_path: Path) -> None:
    config = a_config(tmp_path, f"hf://{REPOSITORY}@main")
    env = surroundings(tmp_path, "http://127.0.0.1:9")
    async with serving(tmp_path, config, wait="no", env=env) as server:
        code, message = await ended(server)
        assert (code, message.partition(":")[0]) == (75, "ModelSourceUnreachable")
