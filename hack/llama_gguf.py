"""A llama-architecture GGUF file as the directory of safetensors, config and tokenizer that engines
load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: GGUF's name -> Hugging Face's: of the whole model, and of each layer.
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
#: GGUF's tokenizer.ggml.token_type of tokens that no text may spell, such as <|im_start|>.
_CONTROL_TOKEN = 3


@dataclass(frozen=True)
class Shape:
    """The numbers that describe a llama-architecture model."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    head_size: int
    context: int
    rope_base: float
    norm_epsilon: float

    def config(self, vocabulary: int, tokens: dict[str, int], *, tied: bool) -> dict[str, Any]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "intermediate_size": self.feed_forward,
            "head_dim": self.head_size,
            "max_position_embeddings": self.context,
            "rope_theta": self.rope_base,
            "rms_norm_eps": self.norm_epsilon,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": tied,
            "vocab_size": vocabulary,
            "torch_dtype": "float32",
            **tokens,
        }


def convert(gguf: Path, into: Path) -> None:
    """Write model.safetensors, configs and tokenizer of a llama-architecture GGUF file.

    In float32: on a CPU that is what the matrix library is fast in.
    """
    from gguf import GGUFReader  # here, because preparing a second time needs none of it
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf)

    def field(name: str, default: Any = None) -> Any:
        found = reader.fields.get(name)
        return default if found is None else found.contents()

    shape = Shape(
        hidden=field("llama.embedding_length"),
        layers=field("llama.block_count"),
        heads=field("llama.attention.head_count"),
        key_value_heads=field("llama.attention.head_count_kv"),
        feed_forward=field("llama.feed_forward_length"),
        head_size=field("llama.rope.dimension_count"),
        context=field("llama.context_length"),
        rope_base=field("llama.rope.freq_base", 10000.0),
        norm_epsilon=round(field("llama.attention.layer_norm_rms_epsilon"), 9),
    )
    weights = dict(_weight(tensor, shape) for tensor in reader.tensors)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    (into / "model.safetensors").chmod(0o644)

    tokens: list[str] = field("tokenizer.ggml.tokens")
    special = {
        f"{name}_token_id": int(field(f"tokenizer.ggml.{key}_token_id", default))
        for name, key, default in (("bos", "bos", 1), ("eos", "eos", 2), ("pad", "padding", 2))
    }
    _dump(into / "generation_config.json", special)
    tied = "lm_head.weight" not in weights
    _dump(into / "config.json", shape.config(len(tokens), special, tied=tied))
    types, merges = field("tokenizer.ggml.token_type"), field("tokenizer.ggml.merges")
    _dump(into / "tokenizer.json", _tokenizer(tokens, types, merges))
    _dump(
        into / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": field("tokenizer.chat_template"),
            "unk_token": tokens[field("tokenizer.ggml.unknown_token_id", 0)],
            **{key.removesuffix("_id"): tokens[index] for key, index in special.items()},
        },
    )


def _weight(tensor: Any, shape: Shape) -> tuple[str, Any]:
    """One tensor under its Hugging Face name, as a float32 array of rows x columns."""
    import numpy
    from gguf.quants import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    values = values.reshape([int(size) for size in reversed(tensor.shape)])
    name = tensor.name.removesuffix(".weight")
    if not name.startswith("blk."):
        return f"{_TOP[name]}.weight", values
    _, layer, part = name.split(".")
    if part in ("attn_q", "attn_k"):
        heads = shape.heads if part == "attn_q" else shape.key_value_heads
        values = _halves_first(values, heads)
    return f"model.layers.{layer}.{_LAYER[part]}.weight", numpy.ascontiguousarray(values)


def _halves_first(values: Any, heads: int) -> Any:
    """Rows of each head in the order of Hugging Face's rotary embedding.

    GGUF interleaves the two numbers that are rotated together, Hugging Face keeps all first ones
    before all second ones.
    """
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(tokens: list[str], types: list[int], merges: list[str]) -> dict[str, Any]:
    """A byte-level BPE tokenizer that takes digits one by one, as tokenizer.json has it."""
    bytewise = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": token, "special": True, **plain}
            for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == _CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytewise],
        },
        "post_processor": None,
        "decoder": bytewise,
        "truncation": None,
        "padding": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
