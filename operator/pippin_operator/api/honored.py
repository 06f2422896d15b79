"""Which fields the operator does not act upon yet: nothing that is set is silently ignored."""

from __future__ import annotations

from collections.abc import Callable

from pippin_contract.adapters import TASKS

from .engine import External
from .model import Adapter
from .modeldeployment import ModelDeploymentSpec
from .traffic import PromptCache

#: An operator that was rolled back meets objects with newer ones.
SUPPORTED_SCHEMES = ("hf", "pvc", "s3", "oci", "https", "file")
#: Engines that answer a task which is not every engine's.
_ABLE = {"transcription": ("mlx", "echo"), "image": ("mlx", "echo")}
#: Engines whose batches of texts to embed are filled by us.
_BATCHED = ("mlx", "echo")

_DEFAULT_ENGINE = {"nvidia": "vllm", "amd": "vllm", "apple": "mlx", "cpu": "mlx"}


def engine(spec: ModelDeploymentSpec) -> str:
    """The engine that serves: the one asked for, else the accelerator's."""
    asked = spec.engine.type if spec.engine else None
    return asked or _DEFAULT_ENGINE[spec.accelerator.type]


def provider(spec: ModelDeploymentSpec) -> External | None:
    """Who serves outside, instead of Pods."""
    return spec.engine.external if spec.engine and engine(spec) == "external" else None


def blocking(spec: ModelDeploymentSpec) -> tuple[str, ...]:
    """Fields without which there is nothing to run, so that no workload is made."""
    found = []
    if spec.model.uri and spec.model.uri.partition("://")[0] not in SUPPORTED_SCHEMES:
        found.append("model.uri")
    if engine(spec) not in _ABLE.get(spec.model.task, (engine(spec),)):
        found.append("model.task")
    return tuple(found)


def keeps_weights(spec: ModelDeploymentSpec) -> bool:
    """Whether there is anything for a volume to keep, and a node that can mount one: Macs have a
    cache that outlives Pods, and no volumes."""
    scheme = (spec.model.uri or "").partition("://")[0]
    return scheme not in ("", "file", "pvc") and spec.accelerator.type != "apple"


def adapters(spec: ModelDeploymentSpec) -> tuple[Adapter, ...]:
    """Those that are served: a provider's weights are not ours to change, and vectors and media
    are not made by what reads them."""
    able = spec.model.task in TASKS and provider(spec) is None
    return spec.model.adapters if able else ()


def _is_amd(spec: ModelDeploymentSpec) -> bool:
    return spec.accelerator.type == "amd" and engine(spec) == "vllm"


def _batches(spec: ModelDeploymentSpec) -> bool:
    return spec.model.task == "embedding" and engine(spec) in _BATCHED


def _keeps_prompts(spec: ModelDeploymentSpec) -> bool:
    """MLX's models that embed, hear or paint have no keys and values to keep."""
    writes = spec.model.task in ("chat", "completion")
    return engine(spec) == "vllm" or (engine(spec) == "mlx" and writes)


def _caps_prompt_cache(spec: ModelDeploymentSpec) -> bool:
    """Whether a cap was asked for: the API server fills in the default by itself."""
    wanted = spec.prompt_cache
    return wanted is not None and wanted.enabled and wanted.max_bytes != PromptCache().max_bytes


_MODEL: tuple[tuple[str, Callable[[ModelDeploymentSpec], object]], ...] = (
    ("model.adapters", lambda s: s.model.adapters and not adapters(s)),
    # There is no image with vLLM for AMD's GPUs; whoever has one names it.
    ("accelerator.type", lambda s: _is_amd(s) and not (s.engine and s.engine.image)),
    ("engine.echo", lambda s: s.engine and s.engine.echo and engine(s) != "echo"),
    # A provider outside has no Pods of ours.
    ("autoscaling", lambda s: s.autoscaling and engine(s) == "external"),
    ("autoscaling.provider", lambda s: s.autoscaling and s.autoscaling.provider != "builtin"),
    ("batching", lambda s: s.batching and not _batches(s)),
    ("promptCache", lambda s: s.prompt_cache and not _keeps_prompts(s)),
    # vLLM takes what memory it is given for keys and values, running and kept, in one.
    ("promptCache.maxBytes", lambda s: engine(s) == "vllm" and _caps_prompt_cache(s)),
    ("storage", lambda s: s.storage and not keeps_weights(s)),
    ("auth.required", lambda s: s.auth and not s.auth.required),
)
#: Of Pods and weights, which a model of a provider has none of.
_OF_PODS: tuple[tuple[str, Callable[[ModelDeploymentSpec], object]], ...] = (
    ("model.uri", lambda s: s.model.uri),
    ("model.credentialsSecretRef", lambda s: s.model.credentials_secret_ref),
    ("engine.image", lambda s: s.engine and s.engine.image),
    ("engine.args", lambda s: s.engine and s.engine.args),
    ("engine.env", lambda s: s.engine and s.engine.env),
    ("replicas", lambda s: s.replicas is not None),
    ("resources", lambda s: s.resources),
    ("nodeSelector", lambda s: s.node_selector),
    ("tolerations", lambda s: s.tolerations),
    ("affinity", lambda s: s.affinity),
    ("priorityClassName", lambda s: s.priority_class_name),
    ("runtimeClassName", lambda s: s.runtime_class_name),
    ("podTemplate", lambda s: s.pod_template),
    ("limits.queue", lambda s: s.limits and s.limits.queue),
    ("timeouts.queue", lambda s: s.timeouts and s.timeouts.queue),
)


def unsupported_by_model(spec: ModelDeploymentSpec) -> tuple[str, ...]:
    """Paths below spec that are set and do nothing yet."""
    table = _MODEL + (_OF_PODS if provider(spec) else ())
    return blocking(spec) + tuple(path for path, is_set in table if is_set(spec))
