"""A Whisper with random weights that hears a second at a time, in Hugging Face's layout. Seeded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, LAYERS, BANDS, SOURCES, TARGETS = 32, 2, 8, 50, 32
LANGUAGES = ("en", "de", "yue")
_ASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


def make(into: Path, *, english: bool = False) -> Path:
    """Write config, tokenizer and weights. `english`: it knows nothing else."""
    into.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    words.save(str(into / "tokenizer.json"))
    vocabulary = words.get_vocab_size() + SOURCES + 1
    config = {
        "model_type": "whisper",
        "d_model": HIDDEN,
        "num_mel_bins": BANDS,
        "max_source_positions": SOURCES,
        "max_target_positions": TARGETS,
        "vocab_size": vocabulary,
        **{f"{side}_layers": LAYERS for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 4 * HIDDEN for side in ("encoder", "decoder")},
    }
    (into / "config.json").write_text(json.dumps(config))
    told = {"is_multilingual": not english, "suppress_tokens": [1, 2]}
    (into / "generation_config.json").write_text(json.dumps(told))
    save_file(weights(vocabulary), into / "model.safetensors", metadata={"format": "pt"})
    return into


def tokenizer() -> Tokenizer:
    """A token for each byte, then what is no word."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ("endoftext", "startoftranscript", *LANGUAGES, *_ASKS)
    made.add_special_tokens([f"<|{mark}|>" for mark in marks])
    return made


def weights(vocabulary: int) -> dict[str, Any]:
    numbers = numpy.random.default_rng(7)

    def normal(*shape: int) -> Any:
        return numbers.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.2)

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}.weight": 1 + normal(HIDDEN), f"{name}.bias": normal(HIDDEN)}

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Any]:
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    found: dict[str, Any] = {
        "model.encoder.conv1.weight": normal(HIDDEN, BANDS, 3),
        "model.encoder.conv1.bias": normal(HIDDEN),
        "model.encoder.conv2.weight": normal(HIDDEN, HIDDEN, 3),
        "model.encoder.conv2.bias": normal(HIDDEN),
        "model.encoder.embed_positions.weight": normal(SOURCES, HIDDEN),
        "model.decoder.embed_positions.weight": normal(TARGETS, HIDDEN),
        "model.decoder.embed_tokens.weight": 9 * normal(vocabulary, HIDDEN),
    }
    for side, attentions in (
        ("encoder", ("self_attn",)),
        ("decoder", ("self_attn", "encoder_attn")),
    ):
        found.update(norm(f"model.{side}.layer_norm"))
        for number in range(LAYERS):
            layer = f"model.{side}.layers.{number}"
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    found.update(linear(f"{layer}.{attention}.{part}", HIDDEN, HIDDEN))
                del found[f"{layer}.{attention}.k_proj.bias"]
                found.update(norm(f"{layer}.{attention}_layer_norm"))
            found.update(linear(f"{layer}.fc1", HIDDEN, 4 * HIDDEN))
            found.update(linear(f"{layer}.fc2", 4 * HIDDEN, HIDDEN))
            found.update(norm(f"{layer}.final_layer_norm"))
    return found
