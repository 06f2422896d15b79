"""What every model of MLX's goes through on its way into memory, and its errors in our words."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import structlog
from mlx.utils import tree_flatten

from ..base import EngineError, EngineFailed, LoadFailed, OutOfMemory
from . import blas
from .args import Args

log = structlog.get_logger("pippin.engine")

_NO_MEMORY = "the weights do not fit into this machine's memory"


@contextmanager
def as_load_failures() -> Iterator[None]:
    """What MLX and mlx_lm raise of unusable weights, raised as LoadFailed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_memory(error):
            raise LoadFailed("OutOfMemory", _NO_MEMORY, permanent=False) from error
        raise LoadFailed("ModelCorrupted", _unreadable(error)) from error
    except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
        raise LoadFailed("ModelCorrupted", _unreadable(error)) from error


def _unreadable(error: Exception) -> str:
    return f"the model cannot be loaded: {type(error).__name__}: {error}"


def accelerated(args: Args) -> dict[str, str]:
    try:
        found = blas.accelerate(args.threads or None)
    except blas.Unavailable as error:
        log.warning("blas.reference", reason=str(error), effect="matrix products are very slow")
        return {"blas": "reference"}
    log.info("blas.openblas", core=found.core, threads=found.threads)
    return {"blas": f"openblas/{found.core}", "threads": str(found.threads)}


def cast(weights: Any, config: dict[str, Any], args: Args, on_cpu: bool) -> None:
    """CPUs have no half precision to speak of; quantised weights stay as they are."""
    quantised = "quantization" in config or "quantization_config" in config
    dtype = args.dtype
    if dtype == "auto":
        if not on_cpu or quantised:
            return
        dtype = "float32"
    weights.set_dtype(getattr(mx, dtype))


def arrays(weights: Any) -> list[mx.array]:
    """The model's parameters."""
    flat: Any = tree_flatten(weights.parameters())
    return [leaf for _, leaf in flat if isinstance(leaf, mx.array)]


def release() -> None:
    """What a model that is not used any more has left: in cycles, and in allocators' pockets."""
    gc.unfreeze()  # it was put out of the collector's sight once it was loaded
    gc.collect()
    gc.freeze()
    mx.clear_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def in_use() -> int:
    """Bytes that MLX holds, also such as it would use again."""
    return int(mx.get_active_memory()) + int(mx.get_cache_memory())


def is_memory(error: Exception) -> bool:
    """Whether MLX had no memory for it; it has no class for that."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "memory" in text or "alloc" in text


def translated(error: Exception) -> EngineError:
    """What a step raised."""
    if is_memory(error):
        return OutOfMemory("out of memory: ask for less, or try again later")
    return EngineFailed("the engine failed on this request")
