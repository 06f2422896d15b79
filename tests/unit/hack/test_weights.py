"""Weights from other files are the ones that went into them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ct2_whisper
import gguf
import llama_gguf
import numpy
import pytest
import weights
from safetensors.numpy import load_file

HIDDEN, HEADS, KEY_VALUE_HEADS, HEAD = 8, 2, 1, 4


def interleaved(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """What llama.cpp's converter does to the rows of q and k."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


@pytest.fixture
def original() -> dict[str, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (3, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "model.layers.0.self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
        "model.layers.0.self_attn.k_proj.weight": (KEY_VALUE_HEADS * HEAD, HIDDEN),
        "model.layers.0.mlp.down_proj.weight": (HIDDEN, 16),
    }
    return {name: random.random(s, dtype=numpy.float32) for name, s in shapes.items()}


@pytest.fixture
def file(tmp_path: Path, original: dict[str, numpy.ndarray]) -> Path:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_feed_forward_length(16)
    writer.add_rope_dimension_count(HEAD)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["<s>", "a", "b"])
    writer.add_token_types([3, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_chat_template("{{ messages }}")
    for name, values in original.items():
        for part, heads in (("q_proj", HEADS), ("k_proj", KEY_VALUE_HEADS)):
            if part in name:
                values = interleaved(values, heads)
        writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
        "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    }[name]


def test_every_tensor_comes_back_as_it_was(
    tmp_path: Path, file: Path, original: dict[str, numpy.ndarray]
) -> None:
    llama_gguf.convert(file, tmp_path)
    converted = load_file(tmp_path / "model.safetensors")
    assert converted.keys() == original.keys()
    for name, values in original.items():
        numpy.testing.assert_array_equal(converted[name], values, err_msg=name)


def test_the_configs_say_what_the_file_says(tmp_path: Path, file: Path) -> None:
    llama_gguf.convert(file, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_key_value_heads"] == KEY_VALUE_HEADS
    assert config["max_position_embeddings"] == 64
    assert config["tie_word_embeddings"] is True
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    assert tokenizer["model"]["merges"] == [["a", "b"]]
    assert [token["content"] for token in tokenizer["added_tokens"]] == ["<s>"]
    assert (
        "messages" in json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
    )


def test_prepared_weights_are_not_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPPIN_CACHE", str(tmp_path))
    there = weights.home() / weights.SMOLLM2.name
    there.mkdir(parents=True)
    said: list[str] = []
    assert weights.prepare(said.append) == there
    assert said == []


def ct2_file(found: dict[str, numpy.ndarray]) -> bytes:
    """As CTranslate2 writes it, in halves and small integers."""

    def text(name: str) -> bytes:
        return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"

    raw = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(found))
    for name, value in found.items():
        kind = {"float16": 4, "int16": 2}[str(value.dtype)]
        raw += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        raw += struct.pack("<BI", kind, value.nbytes) + value.tobytes()
    return raw + struct.pack("<I", 0)


def ct2_model() -> dict[str, numpy.ndarray]:
    numbers = numpy.random.default_rng(0)

    def normal(*shape: int) -> numpy.ndarray:
        return numbers.standard_normal(shape).astype(numpy.float16)

    found = {
        "encoder/conv1/weight": normal(4, 8, 3),
        "encoder/position_encodings/encodings": normal(6, 4),
        "decoder/position_encodings/encodings": normal(5, 4),
        "decoder/embeddings/weight": normal(9, 4),
    }
    for side in ("encoder", "decoder"):
        found[f"{side}/num_heads"] = numpy.int16(2).reshape(())
        found[f"{side}/layer_norm/gamma"] = normal(4)
        found[f"{side}/layer_0/self_attention/linear_0/weight"] = normal(12, 4)
        found[f"{side}/layer_0/self_attention/linear_0/bias"] = normal(12)
        found[f"{side}/layer_0/ffn/linear_0/bias"] = normal(16)
    found["decoder/layer_0/attention/linear_1/weight"] = normal(8, 4)
    return found


def test_a_whisper_of_ctranslate2_comes_back_with_its_matrices_apart(tmp_path: Path) -> None:
    found = ct2_model()
    marks = ["<|notimestamps|>", "<|en|>"]
    words = json.dumps({"added_tokens": [{"content": m, "id": i} for i, m in enumerate(marks)]})
    told = {"alignment_heads": [[0, 1]], "suppress_ids": [2], "suppress_ids_begin": [3]}
    ct2_whisper.convert(ct2_file(found), {**told, "lang_ids": [1]}, words.encode(), tmp_path)
    made = load_file(tmp_path / "model.safetensors")
    fused = found["decoder/layer_0/self_attention/linear_0/weight"]
    for index, part in enumerate("qkv"):
        name = f"model.decoder.layers.0.self_attn.{part}_proj"
        numpy.testing.assert_array_equal(made[f"{name}.weight"], fused[4 * index : 4 * index + 4])
        assert (f"{name}.bias" in made) == (part != "k")
    heard = found["decoder/layer_0/attention/linear_1/weight"]
    numpy.testing.assert_array_equal(
        made["model.decoder.layers.0.encoder_attn.v_proj.weight"], heard[4:]
    )
    assert made["model.encoder.embed_positions.weight"].shape == (6, 4)
    assert "model.encoder.layer_norm.weight" in made
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["vocab_size"], config["d_model"], config["num_mel_bins"]) == (9, 4, 8)
    assert (config["encoder_layers"], config["decoder_attention_heads"]) == (1, 2)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["lang_to_id"] == {"<|en|>": 1}
    assert generation["no_timestamps_token_id"] == 0


def test_another_layout_of_ctranslate2_is_refused() -> None:
    with pytest.raises(ValueError, match="layout 7"):
        ct2_whisper.variables(struct.pack("<IH", 7, 2) + b"X\0" + bytes(8))
