"""Which models lie in a directory, what they are called, and whether they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pippin_contract.serverconfig import ModelConfig, ServerConfig
from pippin_server import cli
from pippin_server.models.discovery import Found, discover, table
from support import tinydiffusion, tinyencoder, tinymodel
from support.servers import echo_config

SERVER = ServerConfig(
    name="models", served_name="models", engine="mlx", engine_args=("--dtype", "float16")
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodel.make(tmp_path_factory.mktemp("weights") / "tiny")


def linked(weights: Path, into: Path, *without: str, **config: object) -> Path:
    """The model once more: without some files, with more in its config."""
    into.mkdir(parents=True)
    for file in weights.iterdir():
        if file.name not in without:
            (into / file.name).symlink_to(file)
    if config:
        (into / "config.json").unlink()
        told = json.loads((weights / "config.json").read_text())
        (into / "config.json").write_text(json.dumps({**told, **config}))
    return into


def by_name(root: Path, server: ServerConfig = SERVER) -> dict[str, Found]:
    return {one.name: one for one in discover(root, server)}


def test_models_are_called_by_where_they_lie(tmp_path: Path, weights: Path) -> None:
    linked(weights, tmp_path / "plain")
    linked(weights, tmp_path / "org/model")
    linked(weights, tmp_path / "a/b/deep")
    linked(weights, tmp_path / "a/b/c/too-deep")
    linked(weights, tmp_path / ".hidden")
    linked(weights, tmp_path / "plain/1_Pooling")  # a model's own
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    found = by_name(tmp_path)
    assert list(found) == ["a/b/deep", "org/model", "plain"]
    plain = found["plain"]
    assert (plain.problems, plain.config.engine, plain.config.model.task) == ((), "mlx", "chat")
    assert plain.config.model.family == "llama"
    assert plain.config.engine_args == ("--dtype", "float16")
    assert plain.bytes == (weights / "model.safetensors").stat().st_size


def test_hugging_faces_cache_is_understood(tmp_path: Path, weights: Path) -> None:
    repository = tmp_path / "models--org--model"
    for commit in ("old", "new"):
        linked(weights, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("new\n")
    linked(weights, tmp_path / "models--single/snapshots/only")
    (tmp_path / "models--org--nothing").mkdir()
    found = by_name(tmp_path)
    assert list(found) == ["org/model", "single"]
    assert found["org/model"].config.model.path.endswith("snapshots/new")


def test_what_a_model_does_is_read_off_its_files(tmp_path: Path, weights: Path) -> None:
    linked(weights, tmp_path / "text", "tokenizer_config.json")
    tinyencoder.make(tmp_path / "bert", architectures=["BertModel"])
    linked(weights, tmp_path / "embeds")
    (tmp_path / "embeds/modules.json").write_text("[]")
    linked(weights, tmp_path / "hears", model_type="whisper")
    tinydiffusion.make(tmp_path / "paints")
    found = by_name(tmp_path)
    tasks = {name: one.config.model.task for name, one in found.items()}
    assert tasks == {
        "text": "completion", "bert": "embedding", "embeds": "embedding", "hears": "transcription",
        "paints": "image",
    }  # fmt: skip
    assert found["text"].problems == ()
    assert found["hears"].problems == found["paints"].problems == ()
    parts = tmp_path / "paints"
    assert found["paints"].bytes == sum(p.stat().st_size for p in parts.rglob("*.safetensors"))


def test_a_file_beside_the_weights_says_otherwise(tmp_path: Path, weights: Path) -> None:
    told = {"task": "completion", "aliases": ["nick"], "contextLength": 64, "engineArgs": []}
    (linked(weights, tmp_path / "told") / "pippin.json").write_text(json.dumps(told))
    (tmp_path / "parrot").mkdir()
    (tmp_path / "parrot/pippin.json").write_text('{"engine": "echo", "echo": {"seed": 3}}')
    found = by_name(tmp_path)
    config = found["told"].config
    assert (config.model.task, config.model.context_length) == ("completion", 64)
    assert (config.aliases, config.engine_args) == (("nick",), ())
    parrot = found["parrot"]
    assert (parrot.problems, parrot.bytes) == ((), 0)
    assert (parrot.config.engine, parrot.config.echo.seed) == ("echo", 3)
    assert parrot.config.engine_args == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"engine": "gpt"}', "pippin.json: engine: "),
        ('{"tasks": "chat"}', "pippin.json: tasks: "),
        ("{", "pippin.json: "),
        ('{"engine": "vllm"}', "vllm"),
        ('{"engineArgs": ["--turbo"]}', "--turbo"),
    ],
)
def test_what_is_wrong_with_such_a_file_is_said(
    tmp_path: Path, weights: Path, text: str, said: str
) -> None:
    (linked(weights, tmp_path / "wrong") / "pippin.json").write_text(text)
    (found,) = discover(tmp_path, SERVER)
    assert any(said in problem for problem in found.problems)


def test_a_model_that_is_not_whole_is_found_and_says_so(tmp_path: Path, weights: Path) -> None:
    linked(weights, tmp_path / "empty", "model.safetensors")
    linked(weights, tmp_path / "mute", "tokenizer.json")
    found = by_name(tmp_path)
    assert found["empty"].problems == ("*.safetensors: no weights are here",)
    assert found["mute"].problems == ("tokenizer.json: no tokenizer is here",)
    shown = table(list(found.values()))
    assert "empty  mlx" in shown
    assert shown.splitlines()[1].endswith("no")
    assert shown.endswith("mute: tokenizer.json: no tokenizer is here")


def test_an_alias_has_one_model(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        told = {"engine": "echo", "aliases": ["nick", "c"] if name != "c" else []}
        (tmp_path / name / "pippin.json").write_text(json.dumps(told))
    found = by_name(tmp_path, echo_config())
    assert [one.config.aliases for one in found.values()] == [("nick",), (), ()]
    assert "alias nick" in found["b"].problems[0]


def test_a_context_for_all_is_a_bound_and_not_a_wish(tmp_path: Path, weights: Path) -> None:
    linked(weights, tmp_path / "short")
    linked(weights, tmp_path / "long", max_position_embeddings=100_000)
    server = SERVER.model_copy(update={"model": ModelConfig(context_length=8192)})
    found = by_name(tmp_path, server)
    lengths = {name: one.config.model.context_length for name, one in found.items()}
    assert lengths == {"short": 512, "long": 8192}


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        discover(tmp_path / "nowhere", SERVER)


def test_the_command_line_says_what_there_is(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked(weights, tmp_path / "tiny")
    assert cli.main(["discover", str(tmp_path), "--engine", "mlx"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "ENGINE", "TASK", "SIZE", "COMPLETE"]
    assert row.split() == ["tiny", "mlx", "chat", "1", "MiB", "yes"]
    assert cli.main(["discover", str(tmp_path), "--engine", "mlx", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["engine"], model["complete"]) == ("tiny", "mlx", True)
    assert model["path"] == str(tmp_path / "tiny") and model["bytes"] > 0
    assert cli.main(["discover", str(tmp_path / "nowhere"), "--engine", "mlx"]) == 1
    assert "No such file" in capsys.readouterr().err
