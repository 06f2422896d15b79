"""A SmolVLM with random weights that sees 64 x 64 pixels at once, in Hugging Face's layout. Seeded.

The language model is the tiny one of `tinymodel`. A tile is 8 x 8 patches and becomes 16 tokens; a
picture is stretched to 128 pixels and cut into up to four tiles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import load_file, save_file

from . import tinymodel

TILE, PATCH, FACTOR, LONGEST = 64, 8, 2, 128
HIDDEN, LAYERS, INNER = 48, 2, 96
MARK = "<image>"
_MARKS = (
    MARK,
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)
#: What was said is a list here, and a text would be lost.
TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}: "
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}: "
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }} "
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_llava(into: Path) -> Path:
    """One that sees a square by CLIP, as 64 tokens."""
    shape = tinymodel.Shape(marks=_MARKS)
    tinymodel.make(into, shape, LLAVA_TEMPLATE)
    text = json.loads((into / "config.json").read_text())
    config = _config("llava", text) | {"image_token_index": 3, "vision_feature_layer": -2}
    config["vision_config"] |= {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}
    _dump(into / "config.json", **config)
    words = load_file(into / "model.safetensors")
    named = {f"language_model.{name}": weight for name, weight in words.items()}
    save_file({**named, **_clip(shape.hidden)}, into / "model.safetensors", {"format": "pt"})
    square = {"shortest_edge": TILE}
    crop = {"height": TILE, "width": TILE}
    _dump(into / "preprocessor_config.json", size=square, crop_size=crop, resample=3)
    return into


def make(into: Path, model_type: str = "smolvlm") -> Path:
    """Write the model; returns the directory."""
    shape = tinymodel.Shape(marks=_MARKS)
    tinymodel.make(into, shape, TEMPLATE)
    text = json.loads((into / "config.json").read_text())
    _dump(into / "config.json", **_config(model_type, text))
    _dump(into / "preprocessor_config.json", **PREPROCESSOR)
    words = load_file(into / "model.safetensors")
    named = {
        name.replace("model.", "model.text_model.", 1): weight for name, weight in words.items()
    }
    weights = {**named, **_weights(shape.hidden)}
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    return into


PREPROCESSOR: dict[str, Any] = {
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Idefics3ImageProcessor",
    "max_image_size": {"longest_edge": TILE},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": LONGEST},
}


def _config(model_type: str, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": model_type,
        "text_config": text,
        "vision_config": {
            "model_type": f"{model_type}_vision",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 3,
            "image_size": TILE,
            "patch_size": PATCH,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
        },
        "scale_factor": FACTOR,
        "image_token_id": 3,
        "eos_token_id": text["eos_token_id"],
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def _weights(outputs: int) -> dict[str, Any]:
    dice = _Dice()
    width = HIDDEN * FACTOR**2
    return {
        **_tower(dice, "model.vision_model", (TILE // PATCH) ** 2),
        "model.vision_model.embeddings.patch_embedding.bias": dice.normal(HIDDEN),
        "model.connector.modality_projection.proj.weight": dice.normal(
            outputs, width, scale=1.5 * width**-0.5
        ),
    }


def _clip(outputs: int) -> dict[str, Any]:
    dice = _Dice()
    tower = "vision_tower.vision_model"
    return {
        **_tower(dice, tower, (TILE // PATCH) ** 2 + 1),
        f"{tower}.embeddings.class_embedding": dice.normal(HIDDEN),
        **dice.norm(f"{tower}.pre_layrnorm"),
        **dice.linear("multi_modal_projector.linear_1", HIDDEN, outputs),
        **dice.linear("multi_modal_projector.linear_2", outputs, outputs),
    }


def _tower(dice: _Dice, tower: str, places: int) -> dict[str, Any]:
    found = {
        f"{tower}.embeddings.patch_embedding.weight": dice.normal(
            HIDDEN, 3, PATCH, PATCH, scale=0.15
        ),
        f"{tower}.embeddings.position_embedding.weight": dice.normal(places, HIDDEN),
        **dice.norm(f"{tower}.post_layernorm"),
    }
    for number in range(LAYERS):
        layer = f"{tower}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= dice.linear(f"{layer}.self_attn.{part}", HIDDEN, HIDDEN)
        found |= dice.linear(f"{layer}.mlp.fc1", HIDDEN, INNER)
        found |= dice.linear(f"{layer}.mlp.fc2", INNER, HIDDEN)
        found |= dice.norm(f"{layer}.layer_norm1") | dice.norm(f"{layer}.layer_norm2")
    return found


class _Dice:
    def __init__(self) -> None:
        self._numbers = numpy.random.default_rng(11)

    def normal(self, *shape: int, scale: float = 0.3) -> Any:
        return self._numbers.standard_normal(shape, dtype=numpy.float32) * numpy.float32(scale)

    def linear(self, name: str, inputs: int, made: int) -> dict[str, Any]:
        weight = self.normal(made, inputs, scale=1.2 * inputs**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(made)}

    def norm(self, name: str) -> dict[str, Any]:
        return {f"{name}.weight": 1 + self.normal(HIDDEN), f"{name}.bias": self.normal(HIDDEN)}


def _dump(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
