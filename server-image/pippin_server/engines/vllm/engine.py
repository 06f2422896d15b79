"""vLLM's engine and its OpenAI application, in this process."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric

from pippin_contract.adapters import served_name
from pippin_edge.asgi import Receive, Scope, Send

from ...hardware.budget import budget
from .. import weights
from ..adapters import CONFIG, Adaptable, Described, about, describe
from ..base import Activity, EngineStopped, Host, Loaded, LoadFailed, Progress
from . import surroundings

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm.v1.engine.async_llm import AsyncLLM

    from .application import Application

log = structlog.get_logger("pippin.engine")

#: Seconds for vLLM's processes to end.
_END = 10.0
_OUT_OF_MEMORY = ("out of memory", "free memory on device", "no available memory", "oomkilled")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server's configuration says to this engine. `scratch`: where it may write."""

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    task: str
    context_length: int | None
    max_concurrency: int
    prompt_cache: bool
    scratch: Path
    log_level: str
    #: Adapters may come later, too.
    adapts: bool = False


class VllmEngine(Host, Adaptable):
    """`batch`, `progressed_at` and the cache's numbers are written by `stats.Steps`."""

    name = "vllm"

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.batch = 0
        self.progressed_at = clock()
        self.cache_hits = self.cache_misses = 0
        self._settings = settings
        self._clock = clock
        self._active = 0
        self._llm: AsyncLLM | None = None
        self._app: Application | None = None
        self.adapters: Mapping[str, Path] = {}
        self._adapted = 0

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if path is None:
            raise LoadFailed("ModelSourceNotFound", "vLLM needs a directory with weights")
        described = [_described(*one) for one in self.adapters.items()]
        words = surroundings.settle(self._settings.scratch, self._settings.log_level)
        progress(0, "importing vLLM")
        arguments = await asyncio.to_thread(_arguments, self._settings, path, described)
        progress(0, "starting vLLM's engine")
        from . import application

        try:
            self._llm = llm = await asyncio.to_thread(self._start, arguments)
            await llm.reset_mm_cache()  # what it was profiled with
            progress(100, "making the API")
            self._app = await application.make(llm, arguments)
            for name, directory in self.adapters.items():
                await self.adapt(name, directory)
            _settle_heap()
        except LoadFailed:
            raise
        except Exception as error:
            raise _failure(error, words) from error
        from vllm import __version__

        return Loaded(
            context_length=llm.model_config.max_model_len,
            bytes=await asyncio.to_thread(weights.size, path),
            details={"vllm": __version__, "dtype": str(llm.model_config.dtype)},
            sees=llm.model_config.is_multimodal_model,
        )

    async def adapt(self, name: str, path: Path) -> None:
        if self._app is None:
            raise EngineStopped("the model is not loaded")
        _described(name, path)
        self._adapted += 1
        # vLLM finds what it keeps of prompts by an adapter's name and directory, also once the
        # adapter is gone: so no two are called the same.
        directory = str(path) + "/." * self._adapted
        served = served_name(self._settings.names[0], name)
        problem = await self._app.load_adapter(served, directory)
        if problem is not None:
            raise LoadFailed("AdapterMismatch", f"adapter '{name}': {problem}")

    async def forget(self, name: str) -> None:
        if self._app is not None:
            await self._app.unload_adapter(served_name(self._settings.names[0], name))

    async def warm_up(self) -> None:
        """vLLM has run the model while it measured its memory."""

    def activity(self) -> Activity:
        alive = self._llm is None or not self._llm.errored
        return Activity(
            active=self._active,
            batch=self.batch,
            progressed_at=self.progressed_at,
            alive=alive,
            cache_hits=self.cache_hits,
            cache_misses=self.cache_misses,
        )

    async def close(self) -> None:
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown, timeout=_END)
            gc.unfreeze()

    def fields(self, path: str) -> frozenset[str] | None:
        return self._app.fields.get(path) if self._app else None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        if not self._active:
            self.progressed_at = self._clock()
        self._active += 1
        try:
            await self._app.app(scope, receive, send)
        finally:
            self._active -= 1

    def metrics(self) -> Iterable[Metric]:
        if self._llm is None:
            return ()
        from .stats import renamed

        return renamed(REGISTRY)

    def _start(self, arguments: Namespace) -> AsyncLLM:
        """Blocks until the processes are up and the weights are in memory."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        from .stats import Steps

        context = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(context)
        return AsyncLLM.from_vllm_config(
            config,
            usage_context=context,
            stat_loggers=[lambda config, number: Steps(self, self._clock)],
            enable_log_requests=arguments.enable_log_requests,
            # Of its own loggers those for Prometheus stay. What the other gathers is for lines that
            # nobody has it write, and some of it grows until it does.
            disable_log_stats=True,
        )


def problems(settings: Settings) -> list[str]:
    """What is wrong with the arguments, by vLLM's own rules. Imports it: that takes seconds."""
    surroundings.settle(settings.scratch, settings.log_level)
    try:
        _parse(settings, "weights", ())
    except ValueError as error:
        return [str(error)]
    return []


def _described(name: str, directory: Path) -> Described:
    """Raises LoadFailed; also for mlx_lm's form, which vLLM does not read."""
    with about(name):
        told = describe(directory)
        if not told.peft:
            raise LoadFailed(
                "AdapterMismatch", f"{CONFIG}: made by mlx_lm, and vLLM reads PEFT's form: convert"
            )
    return told


def _arguments(settings: Settings, path: Path, adapters: Sequence[Described]) -> Namespace:
    """Raises LoadFailed."""
    from vllm.platforms import current_platform

    try:
        found = _parse(settings, str(path), adapters)
    except ValueError as error:
        raise LoadFailed("ConfigInvalid", str(error)) from error
    if current_platform.is_cpu():
        _suit_cpu(found, path)
        if found.enable_lora:
            os.environ[surroundings.SPARE_PLAIN_ROWS] = "1"
    return found


def _parse(settings: Settings, model: str, adapters: Sequence[Described]) -> Namespace:
    from vllm.platforms import current_platform

    from . import args

    wanted = args.Wanted(
        model=model,
        names=settings.names,
        task=settings.task,
        context_length=settings.context_length,
        max_concurrency=settings.max_concurrency,
        prompt_cache=settings.prompt_cache,
        adapts=settings.adapts or bool(adapters),
        adapters=len(adapters),
        rank=max((told.rank for told in adapters), default=1),
    )
    devices = current_platform.device_count() if current_platform.is_cuda_alike() else 1
    return args.parse(settings.arguments, wanted, devices=devices)


def _suit_cpu(arguments: Namespace, path: Path) -> None:
    """What vLLM takes for granted and a container on a plain node does not have."""
    if shutil.which("g++") is None:
        arguments.enforce_eager = True
    if arguments.enforce_eager:
        # What samples is compiled all the same, at the first request that needs it.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    if arguments.kv_cache_memory_bytes is None and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        arguments.kv_cache_memory_bytes = surroundings.cpu_cache_bytes(
            weights.size(path), budget().bytes
        )


def _settle_heap() -> None:
    """What stays for as long as the model does is not looked at by the collector again, which stops
    every answer while it looks: that is all of torch and vLLM."""
    gc.unfreeze()  # of a model before
    gc.collect()
    gc.freeze()


def _failure(error: Exception, words: Path) -> LoadFailed:
    """The cause, which often only another process knows, in the words that it left."""
    try:
        cause = words.read_text()
    except OSError:
        cause = f"{type(error).__name__}: {error}"
    log.error("vllm.failed", exc_info=error, cause=cause)
    if any(sign in cause.lower() for sign in _OUT_OF_MEMORY):
        return LoadFailed("OutOfMemory", cause, permanent=False)
    permanent = cause.startswith(("ValueError", "ValidationError", "NotImplementedError"))
    return LoadFailed("EngineFailed", cause, permanent=permanent)
