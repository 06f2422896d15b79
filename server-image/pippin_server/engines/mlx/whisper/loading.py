"""From a directory of weights to a model that hears."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..args import Args
from ..fit import usable
from ..loading import accelerated, arrays, as_load_failures, cast
from . import net, seeking
from .heads import alignment_heads
from .model import Model
from .vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Facts:
    """What the event loop needs of the model that the thread owns."""

    vocabulary: Vocabulary
    context_length: int
    bytes: int
    details: dict[str, str]


def load(path: Path, args: Args, wanted: int | None) -> tuple[Model, Facts]:
    """`wanted`: tokens of context. Blocks for as long as the disk takes. Raises LoadFailed."""
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    details = accelerated(args) if on_cpu else {}
    with as_load_failures():
        config = json.loads((path / "config.json").read_bytes())
        if config.get("model_type") != "whisper":
            raise ValueError(f"model_type {config.get('model_type')!r} does not hear, whisper does")
        shape = net.Shape.of(config)
        weights = net.load(path, config)
        cast(weights, config, args, on_cpu)
        mx.eval(weights.parameters())
        vocabulary = Vocabulary(path, config, shape.vocabulary)
        heads = alignment_heads(path, shape)
    limit = usable(wanted, shape.targets)
    gc.collect()
    gc.freeze()  # nothing of the model is looked at by the collector again
    held = arrays(weights)
    model = Model(weights, vocabulary, shape.sources * seeking.STEP, shape.bands, limit, heads)
    languages = str(len(vocabulary.languages) or 1)
    told = {**details, "dtype": str(held[0].dtype), "languages": languages}
    return model, Facts(vocabulary, limit, sum(one.nbytes for one in held), told)
