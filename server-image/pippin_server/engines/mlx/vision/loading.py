"""From a directory of weights to the eyes of the model in it, if it has some that are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import mistral3

from . import MODEL_TYPES, idefics3, llava, sees
from .eyes import Eyes
from .tower import as_product

_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Family:
    """`text`: the classes of its language model, for mlx_lm; `named`: how the eyes' own weights are
    called in its files, without what stands before them."""

    make: Callable[[Mapping[str, Any], Mapping[str, Any]], Eyes]
    named: tuple[str, ...]
    text: tuple[type, type]


_IDEFICS3 = Family(
    idefics3.Idefics3, ("vision_model.", "connector."), (idefics3.Text, idefics3.TextArgs)
)
_LLAVA = Family(
    llava.Llava, ("vision_tower.", "multi_modal_projector."), (mistral3.Model, llava.TextArgs)
)
_FAMILIES = {"idefics3": _IDEFICS3, "smolvlm": _IDEFICS3, "llava": _LLAVA}


def family_of(config: Mapping[str, Any]) -> Family | None:
    return _FAMILIES[config["model_type"]] if sees(config) else None


def blindness(config: Mapping[str, Any]) -> str:
    """Why a model of no such family is shown no pictures."""
    kind = config.get("model_type")
    if sees(config):
        return "the weights of this model's eyes are not in its files: send text only"
    if "vision_config" not in config:
        return "this model reads no pictures: send text only, or serve a model that sees"
    return (
        f"models of the type {kind} are served for text only by the engine mlx: of those that see, "
        f"{', '.join(MODEL_TYPES)} are known to it; the engine vllm knows more"
    )


def template(path: Path) -> dict[str, Any]:
    """What a tokenizer is to be told of a chat template that lies where only processors look."""
    if (path / "chat_template.jinja").exists():
        return {}
    told = _object(path / "tokenizer_config.json").get("chat_template")
    beside = _object(path / "chat_template.json").get("chat_template")
    return {"chat_template": beside} if beside and not told else {}


def load(path: Path, config: Mapping[str, Any], tokenizer: Any) -> Eyes | None:
    """Not evaluated yet; None: there are none in the files, as when only words were converted.
    Raises KeyError and ValueError for what does not fit together."""
    family = family_of(config)
    found = {} if family is None else _weights(path, family)
    if family is None or not found:
        return None
    eyes = family.make(config, _preprocessor(path))
    eyes.mark = tokenizer.convert_ids_to_tokens(eyes.token)
    if quantised := config.get("quantization"):
        nn.quantize(
            eyes.net,
            quantised["group_size"],
            quantised["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in found,
        )
    eyes.net.load_weights(list(found.items()))
    return eyes


def _weights(path: Path, family: Family) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for file in sorted(path.glob("*.safetensors")):
        loaded: Any = mx.load(str(file))
        for name, weight in loaded.items():
            name = name.removeprefix("model.").replace("_tower.vision_model.", "_tower.", 1)
            if name.startswith(family.named) and not name.endswith("position_ids"):
                found[name] = as_product(weight) if "patch_embedding" in name else weight
    return found


def _preprocessor(path: Path) -> dict[str, Any]:
    alone = _object(path / "preprocessor_config.json")
    return alone or _object(path / "processor_config.json").get("image_processor") or {}


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()[:_MOST])
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}
