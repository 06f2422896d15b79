"""Every damage that a model directory may have is found, and named by its file."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pippin_server.engines.weights import size
from pippin_server.models import inspection, integrity
from support import tinydiffusion, tinymodel

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodel.make(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def weights(model: Path) -> Path:
    return model / "model.safetensors"


def edit(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))


def edit_header(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])


def cut(model: Path) -> str:
    weights(model).write_bytes(weights(model).read_bytes()[:-1000])
    return "model.safetensors: its header describes"


def grow(model: Path) -> str:
    weights(model).write_bytes(weights(model).read_bytes() + b"more")
    return "model.safetensors: its header describes"


def cut_in_header(model: Path) -> str:
    weights(model).write_bytes(weights(model).read_bytes()[:40])
    return "model.safetensors: cut off in its header"


def huge_header(model: Path) -> str:
    weights(model).write_bytes(struct.pack("<Q", 1 << 60) + weights(model).read_bytes()[8:])
    return "model.safetensors: cut off in its header"


def empty(model: Path) -> str:
    weights(model).write_bytes(b"")
    return "model.safetensors: cut off in its header"


def web_page(model: Path) -> str:
    weights(model).write_bytes(struct.pack("<Q", 8) + b"<!DOCTYPE html>")
    return "model.safetensors: its header is not JSON"


def wrong_shape(model: Path) -> str:
    edit_header(weights(model), lambda h: h["model.norm.weight"].update(shape=[3]))
    return "model.safetensors: tensor model.norm.weight has 256 bytes instead of 12"


def no_offsets(model: Path) -> str:
    edit_header(weights(model), lambda h: h["model.norm.weight"].pop("data_offsets"))
    return "model.safetensors: tensor model.norm.weight is not described"


def no_weights(model: Path) -> str:
    weights(model).unlink()
    return "*.safetensors: no weights"


def lose_shard(model: Path) -> str:
    (model / integrity.INDEX).write_text(json.dumps({"weight_map": {"x": SHARD}}))
    return f"{SHARD}: named by"


def lose_tensor(model: Path) -> str:
    index = {"weight_map": {"not.there": "model.safetensors"}}
    (model / integrity.INDEX).write_text(json.dumps(index))
    return "model.safetensors: tensor not.there is missing"


def lose_config(model: Path) -> str:
    (model / "config.json").unlink()
    return "config.json: not here"


def break_config(model: Path) -> str:
    (model / "config.json").write_text("{")
    return "config.json: not valid JSON"


def untyped_config(model: Path) -> str:
    (model / "config.json").write_text("{}")
    return "config.json: model_type is missing"


def lose_tokenizer(model: Path) -> str:
    (model / "tokenizer.json").unlink()
    return "tokenizer.json: no tokenizer"


def break_tokenizer(model: Path) -> str:
    (model / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes()[:-10])
    return "tokenizer.json: not valid JSON"


def lose_template(model: Path) -> str:
    edit(model / "tokenizer_config.json", chat_template=None)
    return "tokenizer_config.json: no chat template"


DAMAGES = [
    cut, grow, cut_in_header, huge_header, empty, web_page, wrong_shape, no_offsets, no_weights,
    lose_shard, lose_tensor, lose_config, break_config, untyped_config, lose_tokenizer,
    break_tokenizer, lose_template,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_damage_is_named(model: Path, damage: Callable[[Path], str]) -> None:
    expected = damage(model)
    found = integrity.problems(model, chat=True)
    assert any(problem.startswith(expected) for problem in found), found


def test_a_whole_model_has_no_problems(whole: Path) -> None:
    assert integrity.problems(whole, chat=True) == []
    assert size(whole) > 400_000


def test_a_completion_model_needs_no_chat_template(model: Path) -> None:
    lose_template(model)
    assert integrity.problems(model, chat=False) == []


def test_a_template_in_a_file_of_its_own_counts(model: Path) -> None:
    lose_template(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert integrity.problems(model, chat=True) == []


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return tinydiffusion.make(tmp_path / "painter", xl=True)


def cut_part(model: Path) -> str:
    path = model / "vae/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    return "vae/diffusion_pytorch_model.safetensors: its header describes"


def lose_part(model: Path) -> str:
    (model / "unet/diffusion_pytorch_model.safetensors").unlink()
    return "unet/*.safetensors: no weights are here"


def lose_shard_of_part(model: Path) -> str:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    told = {"weight_map": {"a": path.name, "b": "diffusion_pytorch_model-2.safetensors"}}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(told))
    return "unet/diffusion_pytorch_model-2.safetensors: named by diffusion_pytorch_model.saf"


def lose_words(model: Path) -> str:
    (model / "tokenizer_2/merges.txt").unlink()
    return "tokenizer_2/vocab.json: no tokenizer is here"


def spoil_words(model: Path) -> str:
    (model / "tokenizer/vocab.json").write_text("{")
    return "tokenizer/vocab.json: not valid JSON"


def lose_schedule(model: Path) -> str:
    (model / "scheduler/scheduler_config.json").unlink()
    return "scheduler/scheduler_config.json: not here"


def lose_config_of_part(model: Path) -> str:
    (model / "text_encoder_2/config.json").unlink()
    return "text_encoder_2/config.json: not here"


def lose_index_of_parts(model: Path) -> str:
    (model / "model_index.json").unlink()
    return "model_index.json: not here"


@pytest.mark.parametrize(
    "damage",
    [
        cut_part, lose_part, lose_shard_of_part, lose_words, spoil_words, lose_schedule,
        lose_config_of_part, lose_index_of_parts,
    ],
)  # fmt: skip
def test_damage_of_a_pipelines_parts_is_named_with_its_directory(
    pipeline: Path, damage: Callable[[Path], str]
) -> None:
    assert inspection.problems(pipeline, "image") == []
    said = damage(pipeline)
    (problem, *_) = inspection.problems(pipeline, "image")
    assert problem.startswith(said)
