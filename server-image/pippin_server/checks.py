"""Everything that can be known to be wrong before the server starts, told at once.

The report of `pippin-server check`, and what `serve` refuses to start with.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pippin_contract import native
from pippin_contract.serverconfig import ServerConfig

from .engines import registry, weights
from .engines.base import LoadFailed
from .engines.mlx.fit import Fit
from .models import adapters, discovery, inspection
from .models.discovery import Found

Level = Literal["error", "warning", "ok"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `reason` is a word of the status when it is an error."""

    name: str
    level: Level
    message: str
    reason: str = "ConfigInvalid"


@dataclass(frozen=True, slots=True)
class Report:
    checks: tuple[Check, ...]

    @property
    def errors(self) -> list[Check]:
        return [check for check in self.checks if check.level == "error"]

    def and_arguments(self, config: ServerConfig, surroundings: registry.Surroundings) -> Report:
        """With what only the engine itself can say, which takes it seconds."""
        if self.errors:
            return self
        found = registry.examine_arguments(config, surroundings)
        return Report((*self.checks, *(Check("engine", "error", text) for text in found)))

    def payload(self) -> dict[str, object]:
        """`{valid, errors, warnings, checks}`."""
        said = {
            level: [f"{c.name}: {c.message}" for c in self.checks if c.level == level]
            for level in ("error", "warning")
        }
        return {
            "valid": not self.errors,
            "errors": said["error"],
            "warnings": said["warning"],
            "checks": [asdict(check) for check in self.checks],
        }

    def text(self) -> str:
        lines = [f"{check.level:7} {check.name}: {check.message}" for check in self.checks]
        found = len(self.errors)
        lines.append("everything is in order" if not found else f"{found} to mend")
        return "\n".join(lines)


def examine(
    config: ServerConfig,
    surroundings: registry.Surroundings,
    host: str,
    port: int,
    environ: Mapping[str, str],
) -> Report:
    return Report(
        (
            *_engine(config),
            *_address(host, port, config),
            *_model(config, surroundings, environ),
            *_adapters(config, environ),
            *_auth(config),
        )
    )


def examine_several(
    config: ServerConfig,
    surroundings: registry.Surroundings,
    host: str,
    port: int,
    found: Sequence[Found],
) -> Report:
    """A model that is not whole keeps the others from nothing; a server of none is no use."""
    checks = [*_address(host, port, config), *_auth(config)]
    checks += [Check("engine", "error", words) for words in discovery.alone(config)]
    if not found:
        words = "no model is there: see `pippin-server discover`"
        checks.append(Check("models", "error", words, "ModelSourceNotFound"))
    for one in found:
        checks += _one_of_several(one, surroundings)
    return Report(tuple(checks))


def _one_of_several(found: Found, surroundings: registry.Surroundings) -> Iterator[Check]:
    for problem in found.problems:
        yield Check("model", "warning", f"{found.name}: {problem}")
    if found.problems:
        return
    try:
        registry.claim(found.config, surroundings, models=1)
    except LoadFailed as failure:
        yield Check("memory", "warning", f"{found.name}: {failure.message}")
    else:
        size = f"{found.bytes / 2**20:.0f} MiB of weights"
        yield Check("model", "ok", f"{found.name}, {found.config.engine}, {size}")


def _engine(config: ServerConfig) -> Iterator[Check]:
    found = registry.problems(config)
    for problem in found:
        yield Check("engine", "error", problem)
    if not found:
        yield Check("engine", "ok", config.engine)


def _address(host: str, port: int, config: ServerConfig) -> Iterator[Check]:
    if 0 < port < 1024:
        yield Check("port", "warning", f"{port} is privileged: 1024 and above need no rights")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        words = "is taken: choose another" if taken else f"cannot be used: {error.strerror}"
        yield Check("port", "error", f"{host}:{port} {words}")
    else:
        yield Check("port", "ok", f"{host}:{port}")
    if config.auth.mode == "none" and host not in ("127.0.0.1", "::1", "localhost"):
        yield Check(
            "auth",
            "warning",
            f"everyone who reaches {host} may call: set auth or listen on 127.0.0.1",
        )


def _model(
    config: ServerConfig, surroundings: registry.Surroundings, environ: Mapping[str, str]
) -> Iterator[Check]:
    model = config.model
    if not registry.needs_weights(config):
        return
    if not model.path:
        level: Level = "ok" if model.uri else "error"
        yield Check("model", level, model.uri or "neither path nor uri", "ModelSourceNotFound")
        return
    if ".." in Path(model.path).parts:
        yield Check("model", "error", "the path must not contain '..'")
        return
    path = native.resolve(model.path, environ)
    if not path.is_dir():
        yield Check("model", "error", f"{model.path}: no such directory", "ModelSourceNotFound")
        return
    found = inspection.problems(path, model.task)
    for problem in found:
        yield Check("model", "error", problem, "ModelCorrupted")
    if not found:
        size = weights.size(path)
        yield Check("model", "ok", f"{path.name}, {size / 2**20:.0f} MiB of weights")
        if config.engine == "mlx" and not registry.problems(config):
            yield from _memory(registry.fitting(config, surroundings).of(path))


def _adapters(config: ServerConfig, environ: Mapping[str, str]) -> Iterator[Check]:
    """Those that lie here; others are judged when they have come."""
    here = [one for one in config.adapters if one.path and registry.needs_weights(config)]
    for adapter in here:
        failure = adapters.problem(adapter, native.resolve(adapter.path, environ))
        if failure is not None:
            yield Check("adapter", "error", failure.message, failure.reason)
        else:
            yield Check("adapter", "ok", adapter.name)


def _memory(fit: Fit) -> Iterator[Check]:
    if fit.problem is not None:
        yield Check("memory", "error", fit.problem, "InsufficientMemory")
    elif fit.warning is not None:
        yield Check("memory", "warning", fit.warning)


def _auth(config: ServerConfig) -> Iterator[Check]:
    if config.auth.mode == "gateway" and not config.auth.public_keys:
        yield Check("auth", "error", "mode gateway needs the gateway's public keys")
    if config.auth.mode == "gateway" and not config.auth.audience:
        yield Check("auth", "error", "mode gateway needs an audience")
