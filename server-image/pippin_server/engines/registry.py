"""From a name to an engine. Backends are imported only when asked for: they are heavy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from pippin_contract.serverconfig import ServerConfig

from .base import Engine

#: Context of the echo engine when nobody sets one.
_ECHO_CONTEXT = 32768
#: What an engine is made of, beyond the server itself.
_PACKAGES = {"echo": (), "mlx": ("mlx", "mlx_lm"), "vllm": ("vllm",)}


def missing(engine: str) -> list[str]:
    """Packages that the engine needs and that are not here."""
    return [name for name in _PACKAGES[engine] if importlib.util.find_spec(name) is None]


def problems(config: ServerConfig) -> list[str]:
    """Why the engine cannot be made from this config; nothing is loaded."""
    if config.engine == "vllm":
        return ["engine: this image does not run vllm: use the vllm image"]
    absent = missing(config.engine)
    if absent:
        return [f"engine: {config.engine} needs {', '.join(absent)}, not installed in this image"]
    return _wrong_arguments(config)


def _wrong_arguments(config: ServerConfig) -> list[str]:
    if config.engine == "echo":
        return ["engineArgs: the echo engine takes none"] if config.engine_args else []
    from .mlx import args

    try:
        args.parse(config.engine_args)
    except ValueError as error:
        return [str(error)]
    return []


def needs_weights(config: ServerConfig) -> bool:
    return config.engine != "echo"


def create(config: ServerConfig, clock: Callable[[], float]) -> Engine:
    """Not loaded yet. Call it when `problems` finds none."""
    if config.engine == "echo":
        from .echo import EchoEngine

        length = config.model.context_length or _ECHO_CONTEXT
        return EchoEngine(config.echo, context_length=length, clock=clock)
    from .mlx import args
    from .mlx.engine import MlxEngine

    return MlxEngine(
        args.parse(config.engine_args),
        batch=config.max_concurrency,
        context_length=config.model.context_length,
        clock=clock,
    )
