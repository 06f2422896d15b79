"""How one vector is made of a text's tokens, as sentence-transformers' files say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from ..base import LoadFailed

Kind = Literal["mean", "cls", "last"]
#: In newer files, then the switches of older ones.
_KINDS: dict[str, Kind] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """The vector of a text: of the mean of its tokens, of the first, or of the last."""

    kind: Kind
    normalize: bool

    def __call__(self, hidden: mx.array, present: mx.array) -> mx.array:
        """From rows x length x size to rows x size, in 32 bits."""
        hidden = hidden.astype(mx.float32)
        lengths = present.sum(axis=1, keepdims=True)
        if self.kind == "cls":
            vectors = hidden[:, 0]
        elif self.kind == "last":
            vectors = mx.take_along_axis(hidden, (lengths - 1)[:, :, None], axis=1)[:, 0]
        else:
            # A padded place may hold anything, so it is left out and not multiplied by nothing.
            vectors = mx.where(present[:, :, None], hidden, 0).sum(axis=1) / lengths
        if self.normalize:
            vectors = vectors / mx.maximum(mx.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def read(path: Path, default: Kind) -> Pooling:
    """Without modules.json: the default, normalised. Raises LoadFailed."""
    modules = path / "modules.json"
    if not modules.exists():
        return Pooling(default, normalize=True)
    kind, normalize = default, False
    for module in json.loads(modules.read_bytes()):
        match str(module["type"]).rpartition(".")[2]:
            case "Pooling":
                kind = _kind(json.loads((path / module["path"] / "config.json").read_bytes()))
            case "Normalize":
                normalize = True
            case "Transformer":
                pass
            case other:
                raise _unknown(f"the module {other} of modules.json")
    return Pooling(kind, normalize)


def _kind(config: dict[str, Any]) -> Kind:
    chosen = [str(config["pooling_mode"])] if "pooling_mode" in config else _switched_on(config)
    if len(chosen) != 1 or chosen[0] not in _KINDS:
        raise _unknown(f"pooling by {' and '.join(chosen) or 'nothing'}")
    return _KINDS[chosen[0]]


def _switched_on(config: dict[str, Any]) -> list[str]:
    return [name for name, on in config.items() if name.startswith("pooling_mode_") and on]


def _unknown(what: str) -> LoadFailed:
    return LoadFailed("ConfigInvalid", f"{what} is not known here: serve this model with vllm")
