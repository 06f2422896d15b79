"""From a name to an engine. Backends are imported only when asked for: they are heavy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pippin_contract.adapters import TASKS
from pippin_contract.serverconfig import PromptCacheConfig, ServerConfig

from ..hardware.budget import budget
from . import adapters
from .base import Embedder, Generator, Host
from .media import Painter, Transcriber

if TYPE_CHECKING:
    from .mlx.fit import Fitting
    from .vllm.engine import Settings as VllmSettings

Anything = Generator | Embedder | Host | Transcriber | Painter

#: Context of the echo engine when nobody sets one.
_ECHO_CONTEXT = 32768
#: What an engine is made of, beyond the server itself.
_PACKAGES = {"echo": (), "mlx": ("mlx", "mlx_lm"), "vllm": ("vllm",)}
#: What more it takes for a task.
_TASK_PACKAGES = {("mlx", "transcription"): ("av",), ("mlx", "image"): ("av",)}
#: Tasks that are not every engine's, and whose they are.
_TASKS = {"transcription": ("mlx", "echo"), "image": ("mlx", "echo")}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine must be told of the process. `scratch`: where it may write; `memory`: bytes
    that it may take, None: what is found; `strict`: what does not fit is refused."""

    scratch: Path
    log_level: str
    memory: int | None = None
    strict: bool = True
    #: Adapters may come while the model is served.
    adapts: bool = False


def missing(engine: str, task: str = "chat") -> list[str]:
    """Packages that the engine needs and that are not here."""
    needed = (*_PACKAGES[engine], *_TASK_PACKAGES.get((engine, task), ()))
    return [name for name in needed if importlib.util.find_spec(name) is None]


def versions() -> dict[str, str]:
    """Of what each engine that is installed computes with; the echo engine computes nothing."""
    here = (name for name, packages in _PACKAGES.items() if packages and not missing(name))
    return {name: importlib.metadata.version(_PACKAGES[name][0]) for name in here}


def problems(config: ServerConfig) -> list[str]:
    """Why the engine cannot be made from this config; nothing is loaded."""
    task = config.model.task
    able = _TASKS.get(task)
    if able is not None and config.engine not in able:
        others = " and ".join(able) + (" do" if len(able) > 1 else " does")
        return [f"task: the engine {config.engine} does no {task}: {others}"]
    if config.adapters and task not in TASKS:
        return [f"adapters: the task {task} has none: leave them out"]
    if len({one.name for one in config.adapters}) < len(config.adapters):
        return ["adapters: two have the same name"]
    if len(config.adapters) > adapters.MOST:
        return [f"adapters: {len(config.adapters)}, and at most {adapters.MOST} are served"]
    absent = missing(config.engine, task)
    if absent:
        return [f"engine: {config.engine} needs {', '.join(absent)}, not installed in this image"]
    return _wrong_arguments(config)


def _wrong_arguments(config: ServerConfig) -> list[str]:
    if config.engine == "echo":
        return ["engineArgs: the echo engine takes none"] if config.engine_args else []
    if config.engine == "vllm":
        return []  # vLLM knows them, and takes seconds to be asked: see `examine_arguments`
    from .mlx import args

    try:
        args.parse(config.engine_args, paints=config.model.task == "image")
    except ValueError as error:
        return [str(error)]
    return []


def examine_arguments(config: ServerConfig, surroundings: Surroundings) -> list[str]:
    """What only the engine's own library can say of its arguments; slow."""
    if config.engine != "vllm":
        return []
    from .vllm import engine

    return engine.problems(_vllm_settings(config, surroundings))


def needs_weights(config: ServerConfig) -> bool:
    return config.engine != "echo"


def claim(config: ServerConfig, around: Surroundings, models: int) -> tuple[int, Surroundings]:
    """What a model takes of a memory that so many share, beside the program itself, and what its
    engine is to be told of it; blocks. Raises LoadFailed."""
    if not needs_weights(config):
        return 0, around
    from .mlx.fit import share

    found, limit = share(fitting(config, around), Path(config.model.path), models)
    return found, replace(around, memory=limit or None)


def room(around: Surroundings) -> int:
    """Bytes for models; 0: nobody knows."""
    from .mlx.fit import PROGRAM

    found = budget(around.memory).bytes
    return max(1, found - PROGRAM) if found else 0


def honours(config: ServerConfig) -> frozenset[str]:
    """See `base.Generator`; of an engine that is not made yet."""
    if config.engine == "mlx":
        from .mlx.engine import MlxEngine

        return MlxEngine.honours | {"image_url"}
    from .echo import EchoEngine

    return EchoEngine.honours


def release(config: ServerConfig) -> None:
    """Give back what an engine that was closed has left behind; blocks."""
    if config.engine == "mlx":
        from .mlx.loading import release as give_back

        give_back()


def create(
    config: ServerConfig, surroundings: Surroundings, clock: Callable[[], float]
) -> Anything:
    """Not loaded yet. Call it when `problems` finds none."""
    if config.engine == "vllm":
        from .vllm.engine import VllmEngine

        return VllmEngine(_vllm_settings(config, surroundings), clock)
    if config.model.task == "embedding":
        return _embedder(config, surroundings, clock)
    if config.engine == "echo":
        return _echo(config, clock)
    if config.model.task == "transcription":
        from .mlx.transcriber import MlxTranscriber

        return MlxTranscriber(fitting(config, surroundings), clock=clock)
    if config.model.task == "image":
        from .mlx.painter import MlxPainter

        return MlxPainter(fitting(config, surroundings), clock=clock)
    from .mlx.engine import MlxEngine

    return MlxEngine(fitting(config, surroundings), clock=clock)


def fitting(config: ServerConfig, surroundings: Surroundings) -> Fitting:
    """What decides whether a model for the engine mlx fits into memory."""
    from .mlx import args
    from .mlx.fit import Fitting, Wish

    task = config.model.task
    told = args.parse(config.engine_args, paints=task == "image")
    alone = task in ("embedding", "transcription", "image")
    wish = Wish(
        config.model.context_length,
        1 if alone else config.max_concurrency,
        PromptCacheConfig(enabled=False) if alone else config.prompt_cache,
        told,
        on_cpu=sys.platform != "darwin",
        strict=surroundings.strict,
        stateless=task == "embedding",
        whole=task in ("transcription", "image"),
    )
    return Fitting(wish, budget(surroundings.memory))


def _echo(config: ServerConfig, clock: Callable[[], float]) -> Generator | Transcriber | Painter:
    from .echo import EchoEngine
    from .echo_media import EchoPainter, EchoTranscriber

    knobs, length = config.echo, config.model.context_length or _ECHO_CONTEXT
    if config.model.task == "transcription":
        return EchoTranscriber(knobs, context_length=length, clock=clock)
    if config.model.task == "image":
        return EchoPainter(knobs, context_length=length, clock=clock)
    return EchoEngine(knobs, context_length=length, clock=clock)


def _embedder(
    config: ServerConfig, surroundings: Surroundings, clock: Callable[[], float]
) -> Embedder:
    if config.engine == "echo":
        from .echo_embedder import EchoEmbedder

        length = config.model.context_length or _ECHO_CONTEXT
        return EchoEmbedder(config.echo, config.batching, context_length=length, clock=clock)
    from .mlx.embedder import MlxEmbedder

    return MlxEmbedder(config.batching, fitting(config, surroundings), clock=clock)


def _vllm_settings(config: ServerConfig, surroundings: Surroundings) -> VllmSettings:
    from .vllm.engine import Settings

    return Settings(
        arguments=config.engine_args,
        names=(config.served_name, *config.aliases),
        task=config.model.task,
        context_length=config.model.context_length,
        max_concurrency=config.max_concurrency,
        prompt_cache=config.prompt_cache.enabled,
        scratch=surroundings.scratch / "vllm",
        log_level=surroundings.log_level,
        adapts=surroundings.adapts and config.model.task in TASKS,
    )
