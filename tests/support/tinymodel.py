"""A small, real llama-architecture model with random weights, made in a second.

The directory has Hugging Face's layout: safetensors, config, tokenizer, chat template. Seeded: the
same arguments give the same bytes. Greedy decoding never picks a special token (their rows of
the head are zero), so answers end at their length and every token is visible text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = (
    "the model server batch token cache request stream engine memory kernel import return class "
    "value list error index config python thread queue latency window prompt result method string "
    "number object module key time data file path user name type test code write read open close "
    "start stop first last next hello world big small red green blue one two three four five"
).split()


@dataclass(frozen=True)
class Shape:
    """Default: about 100,000 parameters."""

    layers: int = 2
    hidden: int = 64
    inter: int = 128
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 512
    context: int = 512
    seed: int = 7
    #: Marks that are one token each, beside the special ones.
    marks: tuple[str, ...] = ()


def make(into: Path, shape: Shape | None = None, template: str = TEMPLATE) -> Path:
    """Write the model; returns the directory."""
    shape = shape or Shape()
    into.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(shape)
    tokenizer.save(str(into / "tokenizer.json"))
    _dump(
        into / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        model_max_length=shape.context,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    _dump(into / "config.json", **_config(shape))
    weights = _weights(shape)
    weights["lm_head.weight"][_unwanted(tokenizer, shape)] = 0
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    return into


def _tokenizer(shape: Shape) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    numbers = numpy.random.default_rng(shape.seed)
    lines = [" ".join(numbers.choice(_WORDS, 12)) for _ in range(400)]
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[*SPECIAL, *shape.marks],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.inter,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "rms_norm_eps": 1e-5,
        "vocab_size": shape.vocabulary,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "max_position_embeddings": shape.context,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def _weights(shape: Shape) -> dict[str, numpy.ndarray[Any, numpy.dtype[numpy.float32]]]:
    numbers = numpy.random.default_rng(shape.seed)

    def matrix(rows: int, columns: int, scale: float) -> Any:
        return numbers.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(scale)

    hidden, inter, head = shape.hidden, shape.inter, shape.hidden // shape.heads
    found = {
        "model.embed_tokens.weight": matrix(shape.vocabulary, hidden, 1.0),
        "lm_head.weight": matrix(shape.vocabulary, hidden, hidden**-0.5),
        "model.norm.weight": numpy.ones(hidden, numpy.float32),
    }
    kv = shape.kv_heads * head
    parts = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inter, hidden),
        "mlp.up_proj": (inter, hidden),
        "mlp.down_proj": (hidden, inter),
    }
    for layer in range(shape.layers):
        for name, (rows, columns) in parts.items():
            scale = 1.5 * columns**-0.5
            found[f"model.layers.{layer}.{name}.weight"] = matrix(rows, columns, scale)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = numpy.ones(hidden, numpy.float32)
    return found


def _unwanted(tokenizer: Tokenizer, shape: Shape) -> list[int]:
    """Special tokens, bytes that are no text by themselves, and numbers without a token."""
    vocabulary = tokenizer.get_vocab()
    plain = {"Ġ", "Ċ"}
    bad = [
        number
        for text, number in vocabulary.items()
        if text in SPECIAL
        or text in shape.marks
        or not all(ord(char) < 128 or char in plain for char in text)
    ]
    return bad + list(range(len(vocabulary), shape.vocabulary))


def _dump(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
