"""Pictures for chat models on MLX, which mlx_lm does not have: files to pixels, pixels to vectors
that a language model reads in place of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of models that see, as their configs call them.
MODEL_TYPES = ("idefics3", "smolvlm", "llava")
#: Bytes of vectors that are kept of pictures which nobody shows at the moment.
KEPT = 128 * 2**20
#: What Hugging Face's configs of these models leave out of their language model.
LLAMA: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def sees(config: Mapping[str, Any]) -> bool:
    """Whether models with this config are known here, by more than their words. What is called
    llava may have eyes of any kind."""
    if config.get("model_type") != "llava":
        return config.get("model_type") in MODEL_TYPES
    tower, layer = config.get("vision_config"), config.get("vision_feature_layer", -2)
    clip = isinstance(tower, dict) and tower.get("model_type") == "clip_vision_model"
    return clip and isinstance(layer, int)
