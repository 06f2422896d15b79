"""Adapters: what their files say, which are refused and why, and the names that they bring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pippin_contract.serverconfig import AdapterConfig, ServerConfig
from pippin_edge.errors import ApiError, ModelNotFound
from pippin_server.adapting import Adapting
from pippin_server.checks import examine
from pippin_server.engines.adapters import Adaptable, describe
from pippin_server.engines.base import LoadFailed
from pippin_server.engines.registry import Surroundings, create, problems
from pippin_server.models import adapters as located
from pippin_server.models.sources import base as sources
from pippin_server.roster import Roster
from support import adapters, tinymodel, webserver
from support.adapters import Lora
from support.servers import mlx_config
from support.sources import LOOPBACK, offer


def silently(percent: int, message: str, transfer: object = None) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodel.make(tmp_path_factory.mktemp("weights") / "tiny")


def test_both_forms_say_the_same_scale(tmp_path: Path, model: Path) -> None:
    lora = Lora(rank=4, alpha=10)
    of_peft = describe(adapters.peft(tmp_path / "peft", model, lora))
    of_mlx = describe(adapters.mlx(tmp_path / "mlx", model, lora))
    assert of_peft.scale("any", 4) == of_mlx.scale("any", 4) == 2.5
    assert of_peft.rank == of_mlx.rank == 4
    assert of_peft.peft and not of_mlx.peft


def test_a_modules_own_rank_and_alpha_count(tmp_path: Path, model: Path) -> None:
    told = describe(
        adapters.peft(
            tmp_path / "a",
            model,
            Lora(rank=4, alpha=8),
            rank_pattern={"q_proj": 16},
            alpha_pattern={"layers.1.self_attn.q_proj": 32, "v_.*": 1},
        )
    )
    assert told.rank == 16
    assert told.scale("model.layers.1.self_attn.q_proj", 16) == 2
    assert told.scale("model.layers.0.self_attn.q_proj", 16) == 0.5
    assert told.scale("model.layers.0.self_attn.v_proj", 4) == 0.25


def test_a_scale_by_the_ranks_root(tmp_path: Path, model: Path) -> None:
    told = describe(adapters.peft(tmp_path / "a", model, Lora(rank=4, alpha=8), use_rslora=True))
    assert told.scale("any", 4) == 4


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not served"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"r": 4096}, "a rank of 4096"),
        ({"r": "many"}, "adapter_config.json"),
        ({"lora_alpha": None}, "adapter_config.json"),
    ],
)
def test_what_is_more_than_a_lora_is_refused_by_name(
    tmp_path: Path, model: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadFailed, match=words):
        describe(adapters.peft(tmp_path / "a", model, **config))


def test_so_is_another_way_of_tuning_by_mlx(tmp_path: Path, model: Path) -> None:
    with pytest.raises(LoadFailed, match="fine_tune_type 'dora'"):
        describe(adapters.mlx(tmp_path / "a", model, fine_tune_type="dora"))


def cut(directory: Path) -> None:
    weights = directory / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def no_config(directory: Path) -> None:
    (directory / "adapter_config.json").unlink()


def no_weights(directory: Path) -> None:
    (directory / "adapter_model.safetensors").unlink()


def no_json(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "adapter_model.safetensors: its header describes"),
        (no_config, "adapter_config.json: not here"),
        (no_weights, "adapter_model.safetensors: not here"),
        (no_json, "adapter_config.json: not valid JSON"),
    ],
)
def test_what_is_damaged_is_named_with_its_file(
    tmp_path: Path, model: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(adapters.peft(tmp_path / "a", model))
    found = located.problem(AdapterConfig(name="sql"), tmp_path / "a")
    assert found is not None
    assert found.message.startswith("adapter 'sql': ")
    assert words in found.message
    assert (found.reason, found.permanent) == ("ModelCorrupted", True)


async def test_one_is_fetched_as_weights_are_and_then_judged(tmp_path: Path, model: Path) -> None:
    directory = adapters.peft(tmp_path / "a", model)
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    # Beside it lies what trainers leave, and nobody reads.
    contents |= {"README.md": b"words", "training_args.bin": b"pickled"}
    told = AdapterConfig(name="sql", uri="s3://bucket/sql")
    with webserver.files() as bucket:
        offer(bucket, "sql", files=contents)
        environ = {"AWS_ENDPOINT_URL": bucket.url}
        around = sources.Surroundings(tmp_path / "cache", environ, networks=LOOPBACK)
        found = await located.locate(told, around, silently)
        assert {path.name for path in found.iterdir()} == {
            path.name for path in directory.iterdir()
        }
        contents["adapter_model.safetensors"] = contents["adapter_model.safetensors"][:-1]
        offer(bucket, "sql", files=contents)
        with pytest.raises(LoadFailed, match="adapter 'sql': adapter_model.safetensors: its head"):
            await located.locate(told, around, silently)
        offer(bucket, "sql", files={"config.json": b"{}"})
        with pytest.raises(LoadFailed, match=r"adapter 'sql': .*no adapter_config.json is there"):
            await located.locate(told, around, silently)


def test_every_name_of_a_model_has_its_adapters() -> None:
    roster = Roster(("qwen", "gpt"), ["sql"])
    assert (roster.find("qwen").served, roster.find("qwen").adapter) == ("qwen", "")
    assert roster.find("gpt:sql") == roster.find("qwen:sql")
    assert (roster.find("gpt:sql").served, roster.find("gpt:sql").adapter) == ("qwen:sql", "sql")
    assert [named.served for named in roster.every()] == ["qwen", "qwen:sql"]


@pytest.mark.parametrize("name", ["sql", "qwen:other", "qwen:", ":sql", "qwen:sql:sql", "gone:sql"])
def test_other_names_are_not_served(name: str) -> None:
    with pytest.raises(ModelNotFound):
        Roster(("qwen",), ["sql"]).find(name)


def test_an_alias_goes_before_an_adapter_of_its_name() -> None:
    roster = Roster(("qwen", "qwen:sql"), ["sql"])
    assert roster.find("qwen:sql").adapter == ""
    roster.remove("sql")
    assert roster.find("qwen:sql").adapter == ""


class Engine(Adaptable):
    def __init__(self) -> None:
        self.known: dict[str, Path] = {}

    async def adapt(self, name: str, path: Path) -> None:
        self.known[name] = path

    async def forget(self, name: str) -> None:
        del self.known[name]


def adapting(*sources: str) -> tuple[Adapting, Roster, list[str]]:
    fetched = []

    async def locate(adapter: AdapterConfig) -> Path:
        fetched.append(adapter.uri)
        return Path("here")

    roster = Roster(("qwen",))
    return Adapting(Engine(), roster, locate, sources), roster, fetched


@pytest.mark.parametrize(
    "uri", ["hf://org/one", "hf://org/two@v1", "hf://alone/it", "hf://alone/it@main", "/a/b"]
)
async def test_adapters_come_from_where_it_is_allowed(uri: str) -> None:
    found, roster, fetched = adapting("hf://org/", "hf://alone/it", "file:///a")
    assert (await found.load("sql", uri)).served == "qwen:sql"
    assert fetched == [uri if "://" in uri else f"file://{uri}"]
    assert "sql" in roster
    await found.unload("sql")
    assert "sql" not in roster


@pytest.mark.parametrize(
    "uri",
    [
        "hf://organisation/one",
        "hf://alone/it-too",
        "https://host@elsewhere/x.tar",
        "https://hosted/x.tar",
        "https://host/../x.tar",
        "/a/../b",
        "/ab",
        "relative",
        "",
    ],
)
async def test_and_from_nowhere_else(uri: str) -> None:
    found, roster, fetched = adapting("hf://org", "hf://alone/it", "https://host", "file:///a")
    with pytest.raises(ApiError) as refused:
        await found.load("sql", uri)
    assert (refused.value.status, refused.value.param) == (400, "lora_path")
    assert not fetched and "sql" not in roster


async def test_a_name_is_taken_once_and_no_more_than_there_is_room_for() -> None:
    found, roster, _ = adapting("hf://org")
    for number in range(32):
        await found.load(f"a{number}", "hf://org/x")
    for name in ("a1", "a32", "no/slash", ""):
        with pytest.raises(ApiError) as refused:
            await found.load(name, "hf://org/x")
        assert refused.value.param == "lora_name"
    assert len(roster) == 32
    with pytest.raises(ModelNotFound):
        await found.unload("a32")


def test_json_of_a_config_is_an_object(tmp_path: Path, model: Path) -> None:
    directory = adapters.peft(tmp_path / "a", model)
    (directory / "adapter_config.json").write_text(json.dumps(["r", 4]))
    with pytest.raises(LoadFailed, match="no JSON object"):
        describe(directory)


def damaged(model: Path, directory: Path) -> ServerConfig:
    torn = adapters.peft(directory / "torn", model)
    cut(torn)
    return mlx_config(model, adapters=(AdapterConfig(name="torn", path=str(torn)),))


def test_the_check_before_a_start_names_it(model: Path, tmp_path: Path) -> None:
    around = Surroundings(tmp_path, "info")
    report = examine(damaged(model, tmp_path), around, "127.0.0.1", 0, {})
    assert [error.reason for error in report.errors] == ["ModelCorrupted"]
    assert "adapter 'torn': adapter_model.safetensors" in report.errors[0].message


async def test_one_of_another_model_ends_loading_with_its_name(model: Path, tmp_path: Path) -> None:
    other = adapters.peft(tmp_path / "other", model, Lora(modules=("q_proj",)))
    file = other / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"layers.1", b"layers.9"))
    engine = create(mlx_config(model), Surroundings(tmp_path, "info"), monotonic)
    assert isinstance(engine, Adaptable)
    engine.adapters = {"other": other}
    with pytest.raises(LoadFailed, match="adapter 'other': made for another model") as failed:
        await engine.load(model, silently)
    assert failed.value.permanent
    await engine.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"adapters": ({"name": "a"}, {"name": "a"})}, "two have the same name"),
        ({"adapters": tuple({"name": f"a{n}"} for n in range(33))}, "at most 32"),
        ({"adapters": ({"name": "a"},), "model": {"task": "embedding"}}, "embedding has none"),
    ],
)
def test_adapters_that_cannot_be_are_refused_at_the_start(
    model: Path, fields: dict[str, Any], words: str
) -> None:
    (problem,) = problems(mlx_config(model, **fields))
    assert words in problem
