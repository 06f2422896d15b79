"""Small encoders of the BERT family with random weights, in Hugging Face's layout. Seeded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file

HIDDEN, LAYERS, INTER, VOCABULARY, POSITIONS = 64, 2, 128, 100, 40
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
CLS = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}


def make(into: Path, model_type: str = "bert", **config: Any) -> Path:
    """Write config and weights; keywords go into the config."""
    into.mkdir(parents=True, exist_ok=True)
    dump(
        into / "config.json",
        {
            "model_type": model_type,
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": INTER,
            "hidden_act": "gelu",
            "vocab_size": VOCABULARY,
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2 if model_type == "bert" else 1,
            "pad_token_id": 0 if model_type == "bert" else 1,
            "layer_norm_eps": 1e-12,
            **config,
        },
    )
    save_file(_weights(model_type), into / "model.safetensors", metadata={"format": "pt"})
    return into


def pooled(path: Path, config: dict[str, Any], *, normalize: bool) -> Path:
    """With the files that sentence-transformers writes beside."""
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}", "type": f"sentence_transformers.{name}"}
        for i, name in enumerate(modules)
    ]
    dump(path / "modules.json", listed)
    (path / "1_Pooling").mkdir(exist_ok=True)
    dump(path / "1_Pooling/config.json", config)
    return path


def dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _weights(model_type: str) -> dict[str, Any]:
    numbers = numpy.random.default_rng(11)

    def normal(*shape: int, scale: float = 0.3) -> Any:
        return numbers.standard_normal(shape, dtype=numpy.float32) * numpy.float32(scale)

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}.weight": 1 + normal(HIDDEN), f"{name}.bias": normal(HIDDEN)}

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Any]:
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    found = {
        "embeddings.word_embeddings.weight": normal(VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2 if model_type == "bert" else 1, HIDDEN),
        **norm("embeddings.LayerNorm"),
        **linear("pooler.dense", HIDDEN, HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            found.update(linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN))
        found.update(linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN))
        found.update(norm(f"{layer}.attention.output.LayerNorm"))
        found.update(linear(f"{layer}.intermediate.dense", HIDDEN, INTER))
        found.update(linear(f"{layer}.output.dense", INTER, HIDDEN))
        found.update(norm(f"{layer}.output.LayerNorm"))
    return found
