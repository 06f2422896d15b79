"""What vLLM, and the processes that it starts, find around them. Set before it is imported."""

from __future__ import annotations

import os
from pathlib import Path

#: File in which a process of the engine leaves why it ended; set for those it is asked of.
LAST_WORDS = "PIPPIN_ENGINE_LAST_WORDS"
#: Said to engines on a CPU that have adapters: see `plainrows`.
SPARE_PLAIN_ROWS = "PIPPIN_VLLM_SPARE_PLAIN_ROWS"
#: How much the processes of the engine say.
LOG_LEVEL = "PIPPIN_ENGINE_LOG_LEVEL"

#: Of a limit of memory: what stays for weights' working copies, the libraries and the answers.
_RESERVE = 3 * 2**30
_LEAST_CACHE = 256 * 2**20
_MOST_CACHE = 4 * 2**30


def settle(scratch: Path, log_level: str) -> Path:
    """Prepare this process's environment, which its children inherit; the last words' file.

    What an administrator has set stays. `scratch`: a directory that can be written to.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    words = scratch / "last-words"
    words.unlink(missing_ok=True)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # its metrics are read in this process
    os.environ |= {
        LAST_WORDS: str(words),
        LOG_LEVEL: log_level,
        "VLLM_CONFIGURE_LOGGING": "0",  # our lines are JSON, and so are its
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads: forking it is unsafe
    }
    for name, value in _defaults(scratch).items():
        os.environ.setdefault(name, value)
    return words


def _defaults(scratch: Path) -> dict[str, str]:
    return {
        # Nothing is reported to anyone.
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        # The weights are here: nothing is fetched behind the operator's back.
        "HF_HUB_OFFLINE": "1",
        # Answers that one request may ask for; vLLM's own bound is 16384.
        "VLLM_MAX_N_SEQUENCES": "128",
        # Whoever runs a container as a number has neither a name nor a home.
        "USER": "pippin",
        "HF_HOME": str(scratch / "huggingface"),
        "XDG_CACHE_HOME": str(scratch),
        "XDG_CONFIG_HOME": str(scratch / "config"),
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "NUMBA_CACHE_DIR": str(scratch / "numba"),
    }


def cpu_cache_bytes(weights: int, limit: int) -> int:
    """Memory for keys and values on a CPU. vLLM by itself takes nearly all that there is, and the
    first long prompt is then one too much."""
    spare = limit - 2 * weights - _RESERVE
    return max(_LEAST_CACHE, min(_MOST_CACHE, spare // 2))
