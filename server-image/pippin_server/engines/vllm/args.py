"""What may stand in a ModelDeployment's `engine.args` for vLLM: its own flags, but for ours."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.exceptions import VLLMError
from vllm.utils.argparse_utils import FlexibleArgumentParser

from ..adapters import MOST

#: Flags that would work around the server they run in -> what to do instead.
_OURS = {
    "model": "set spec.model",
    "model_tag": "set spec.model",
    "served_model_name": "set spec.model.name or spec.model.aliases",
    "max_num_seqs": "set limits.concurrency",
    "lora_modules": "set model.adapters",
    **dict.fromkeys(("host", "port", "uds", "root_path"), "the server does the listening"),
    **dict.fromkeys(
        ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs"),
        "TLS ends at the ingress",
    ),
    **dict.fromkeys(("api_key", "middleware"), "keys are checked before vLLM is asked"),
    **dict.fromkeys(
        ("headless", "api_server_count", "grpc", "grpc_port"), "one server runs in one Pod"
    ),
    "config": "list the arguments themselves",
    "disable_log_stats": "metrics and liveness are made of them",
    "enable_request_id_headers": "the server answers with X-Request-ID",
}
#: Ranks that vLLM makes room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: Adapters in one batch, when nobody says: each takes GPU memory for itself.
_AT_ONCE = 4
#: Flags by which somebody says how to spread over several devices.
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server's own configuration says. `context_length` None: the model's."""

    model: str
    names: tuple[str, ...]
    task: str
    context_length: int | None
    max_concurrency: int
    #: False: off, whatever vLLM would choose for the model.
    prompt_cache: bool = True
    #: Whether it has adapters, now or later; their count, and the widest rank among them.
    adapts: bool = False
    adapters: int = 0
    rank: int = 1


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"engine arguments: {message}")


def parse(arguments: Sequence[str], wanted: Wanted, *, devices: int) -> Namespace:
    """vLLM's own namespace, checked as `vllm serve` does. Raises ValueError in words for the user.

    With `devices` (GPUs that are here) above 1 and nothing said, the model is spread over all.
    """
    parser = make_arg_parser(_Parser(prog="vllm", add_help=False, allow_abbrev=False))
    asked = parser.parse_args(list(arguments))
    for field, instead in _OURS.items():
        if getattr(asked, field, None) != parser.get_default(field):
            flag = field.replace("_", "-")
            raise ValueError(f"engine arguments: --{flag} cannot be given: {instead}")
    if wanted.context_length is not None and asked.max_model_len is not None:
        raise ValueError(
            "engine arguments: --max-model-len and model.contextLength say the same: give one"
        )
    if not wanted.prompt_cache and asked.enable_prefix_caching:
        raise ValueError(
            "engine arguments: --enable-prefix-caching contradicts promptCache.enabled: false"
        )
    adapting = _adapting(asked, parser.get_default("max_loras"), wanted) if wanted.adapts else []
    found: Namespace = parser.parse_args([*arguments, *_own(wanted), *adapting])
    if devices > 1 and all(getattr(found, f) == parser.get_default(f) for f in _PARALLEL):
        found.tensor_parallel_size = devices
    try:
        validate_parsed_serve_args(found)
        validate_api_server_args(found)
    except (KeyError, TypeError, ValueError, VLLMError) as error:
        raise ValueError(f"engine arguments: {error.args[0]}") from error
    return found


def _own(wanted: Wanted) -> list[str]:
    own = [
        f"--model={wanted.model}",
        f"--max-num-seqs={wanted.max_concurrency}",
        "--disable-fastapi-docs",
        "--enable-prompt-tokens-details",  # how many were in the prompt cache
        "--served-model-name",
        *wanted.names,
    ]
    if wanted.context_length is not None:
        own.append(f"--max-model-len={wanted.context_length}")
    if not wanted.prompt_cache:
        own.append("--no-enable-prefix-caching")
    if wanted.task == "embedding":
        own.append("--runner=pooling")
    return own


def _adapting(asked: Namespace, usual: int, wanted: Wanted) -> list[str]:
    """What is said of ranks and of how many at once stays, where it is enough."""
    rank = next((one for one in _RANKS if one >= max(wanted.rank, asked.max_lora_rank)), _RANKS[-1])
    own = ["--enable-lora", f"--max-lora-rank={rank}"]
    if asked.max_loras == usual:
        own.append(f"--max-loras={max(1, min(wanted.adapters or _AT_ONCE, _AT_ONCE))}")
    if asked.max_cpu_loras is None:
        own.append(f"--max-cpu-loras={MOST}")
    return own
