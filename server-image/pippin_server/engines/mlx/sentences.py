"""From a directory of weights to a model that embeds, and from token ids to vectors."""

from __future__ import annotations

import gc
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..base import Vector
from . import encoder, pooling
from .args import Args
from .loading import accelerated, arrays, as_load_failures, cast, translated
from .pooling import Pooling

#: Context of a model whose files do not tell.
_UNKNOWN_CONTEXT = 512

Forward = Callable[[mx.array, mx.array], mx.array]


@dataclass(frozen=True, slots=True)
class Sentences:
    """Loaded and ready to be owned by a thread."""

    forward: Forward
    pooling: Pooling
    dimensions: int
    context_length: int
    vocabulary: int
    bytes: int
    details: dict[str, str]

    def embed(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        """Each as if it were alone. Raises EngineError."""
        try:
            return self._embed(texts)
        except (RuntimeError, MemoryError) as error:
            raise translated(error) from error

    def _embed(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        longest = max(map(len, texts))
        tokens = mx.array([[*text, *[0] * (longest - len(text))] for text in texts])
        present = mx.arange(longest)[None] < mx.array([[len(text)] for text in texts])
        vectors = self.pooling(self.forward(tokens, present), present)
        mx.eval(vectors)
        raw: Any = vectors  # it has a buffer, and its type does not say so
        numbers: Vector = array("f", bytes(raw))
        size = vectors.shape[1]
        return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def load(path: Path, args: Args) -> Sentences:
    """Blocks for as long as the disk takes. Raises LoadFailed."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    details = accelerated(args) if on_cpu else {}
    with as_load_failures():
        config = json.loads((path / "config.json").read_bytes())
        encodes = config.get("model_type") in encoder.MODEL_TYPES
        model, forward = (_encoder if encodes else _decoder)(path, config)
        pooled = pooling.read(path, "mean" if encodes else "last")
        cast(model, config, args, on_cpu)
        mx.eval(model.parameters())
        context = _context(path, config)
        dimensions, vocabulary = int(config["hidden_size"]), int(config["vocab_size"])
    gc.collect()
    gc.freeze()  # nothing of the model is looked at by the collector again
    held = arrays(model)
    return Sentences(
        forward=forward,
        pooling=pooled,
        dimensions=dimensions,
        context_length=context,
        vocabulary=vocabulary,
        bytes=sum(one.nbytes for one in held),
        details={**details, "dtype": str(held[0].dtype), "pooling": pooled.kind},
    )


def _encoder(path: Path, config: dict[str, Any]) -> tuple[Any, Forward]:
    model = encoder.load(path, config)
    return model, model


def _decoder(path: Path, config: dict[str, Any]) -> tuple[Any, Forward]:
    """What makes text can also embed it: without its head, as Qwen3-Embedding."""
    from mlx_lm.utils import _get_classes, load_model

    if config.get("use_bidirectional_attention") or not config.get("is_causal", True):
        raise ValueError("its tokens see those after them, which is not known here")

    def headless(config: dict[str, Any]) -> tuple[type, type]:
        whole, arguments = _get_classes(config)

        class Headless(whole):  # type: ignore[misc, valid-type]
            def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
                self.pop("lm_head", None)
                if not any(name.startswith("model.") for name in weights):
                    weights = {f"model.{name}": weight for name, weight in weights.items()}
                if hasattr(whole, "sanitize"):
                    weights = super().sanitize(weights)
                return {k: v for k, v in weights.items() if not k.startswith("lm_head.")}

        return Headless, arguments

    model, _ = load_model(path, lazy=True, get_model_classes=headless)
    # A token sees only those before it, so what pads the end of a row changes nothing.
    return model.model, lambda tokens, _: model.model(tokens)


def _context(path: Path, config: dict[str, Any]) -> int:
    """What the model was taught, when its files tell; else as many positions as it has."""
    most = int(config.get("max_position_embeddings") or _UNKNOWN_CONTEXT)
    if config["model_type"] in encoder.MODEL_TYPES:
        most -= encoder.Shape.of(config).first
    taught = path / "sentence_bert_config.json"
    if taught.exists():
        most = min(most, json.loads(taught.read_bytes()).get("max_seq_length") or most)
    return most
