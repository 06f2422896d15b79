"""The file that tells a server what to serve and whom to believe, and the ConfigMap around it."""

from __future__ import annotations

from hashlib import sha256
from posixpath import basename
from typing import cast

from pippin_contract import wire
from pippin_contract.serverconfig import (
    AdapterConfig,
    AuthConfig,
    Batching,
    EchoConfig,
    EngineName,
    ModelConfig,
    PromptCacheConfig,
    ServerConfig,
    dump,
    usual_concurrency,
)
from pippin_contract.units import quantity, seconds

from ..api import traffic
from ..api.engine import Echo
from ..api.honored import adapters, engine
from ..api.resources import Manifest
from ..api.traffic import Limits, PromptCache, Timeouts
from . import names
from .context import Model, RenderContext
from .weights import adapter_weights, weights

FILE = basename(wire.SERVER_CONFIG_FILE)


def config_map(model: Model, ctx: RenderContext) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(model, names.config_map(model)),
        "data": {FILE: dump(server_config(model, ctx))},
    }


def config_hash(model: Model, ctx: RenderContext) -> str:
    return sha256(dump(server_config(model, ctx)).encode()).hexdigest()[:16]


def server_config(model: Model, ctx: RenderContext) -> ServerConfig:
    spec = model.spec
    limits, timeouts = spec.limits or Limits(), spec.timeouts or Timeouts()
    default = ServerConfig.model_fields
    return ServerConfig(
        namespace=model.namespace,
        name=model.name,
        served_name=model.served_name,
        aliases=spec.model.aliases,
        engine=cast(EngineName, engine(spec)),
        engine_args=spec.engine.args if spec.engine else (),
        echo=_echo(spec.engine.echo if spec.engine else None),
        model=_model(model),
        adapters=_adapters(model),
        batching=_batching(spec.batching),
        prompt_cache=_prompt_cache(spec.prompt_cache),
        max_concurrency=limits.concurrency or usual_concurrency(engine(spec)),
        max_queue=limits.queue or default["max_queue"].default,
        queue_timeout_seconds=_seconds(timeouts.queue) or default["queue_timeout_seconds"].default,
        liveness_stall_seconds=seconds(spec.probes.liveness_stall),
        drain_timeout_seconds=seconds(spec.drain.timeout),
        auth=AuthConfig(
            mode="gateway",
            audience=wire.audience(model.namespace, model.name),
            public_keys=ctx.public_keys,
        ),
    )


def _model(model: Model) -> ModelConfig:
    spec = model.spec.model
    source = weights(spec)
    return ModelConfig(
        uri=spec.uri or "",
        path=source.path,
        task=spec.task,
        context_length=spec.context_length,
        family=spec.family or "",
        tags=spec.tags,
        description=spec.description or "",
        token_file=source.token_file,
        credentials_dir=source.credentials_dir,
    )


def _adapters(model: Model) -> tuple[AdapterConfig, ...]:
    found = []
    for number, adapter in enumerate(adapters(model.spec)):
        source = adapter_weights(model.spec.model, number)
        found.append(
            AdapterConfig(
                name=adapter.name,
                uri=adapter.uri,
                path=source.path,
                token_file=source.token_file,
                credentials_dir=source.credentials_dir,
            )
        )
    return tuple(found)


def _prompt_cache(wanted: PromptCache | None) -> PromptCacheConfig:
    if wanted is None:
        return PromptCacheConfig()
    return PromptCacheConfig(enabled=wanted.enabled, max_bytes=int(quantity(wanted.max_bytes)))


def _echo(echo: Echo | None) -> EchoConfig:
    if echo is None:
        return EchoConfig()
    return EchoConfig(
        load_seconds=_seconds(echo.load_delay),
        first_token_seconds=_seconds(echo.first_token_delay),
        tokens_per_second=echo.tokens_per_second,
        error_percent=echo.error_percent,
        overloaded_percent=echo.overloaded_percent,
        out_of_memory_percent=echo.out_of_memory_percent,
        broken_percent=echo.broken_percent,
        seed=echo.seed,
        wedge_after=echo.wedge_after,
        out_of_memory_after=echo.out_of_memory_after,
        crash_after=echo.crash_after,
        dimensions=echo.dimensions,
    )


def _batching(batching: traffic.Batching | None) -> Batching:
    if batching is None:
        return Batching()
    return Batching(max_batch_size=batching.max_batch_size, window_seconds=seconds(batching.window))


def _seconds(duration: str | None) -> float:
    return seconds(duration) if duration else 0
